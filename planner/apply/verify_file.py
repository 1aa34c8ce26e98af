"""The file that is served beside the file that was planned: size, content, and the tensors in its header.

The mistake it prevents is another file under the right name: a newer upload, another publisher's mix of types, a copy
that was cut. Each differs in speed and memory, and only the last one fails to load.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from planner.apply.receipts import hash_file, known_hash
from planner.apply.serve_phantom import planned_layout
from planner.apply.serve_weights import Weights, check_whole
from planner.errors import PlannerError
from planner.gguf.ggml_types import tensor_bytes
from planner.gguf.walked import TensorRow, Walked
from planner.types.model import TensorSpec
from planner.types.plan import Candidate
from planner.types.verification import Check, CheckStatus
from planner.units import gib

__all__ = ["file_checks"]

_NEAR = 0.02
"""Publishers' mixes of types move a file by a few per mille; from here on the plan's bytes are not the file's."""


def file_checks(
    chosen: Candidate, weights: Weights, *, hashed: bool, engine_python: str | None, tell: Callable[[str], None]
) -> Iterator[Check]:
    """One check for each part's size and content, and one for the tensors; ``hashed`` reads every byte.

    Raises what :func:`check_whole` raises for a file that is not there or is cut.
    """
    if weights.origin == "phantom":
        yield _check("weights", "unknown", None, None, "a phantom with random weights stands in for the file")
        return
    headers = check_whole(weights)
    expected = _expected(chosen, weights)
    for path in weights.paths:
        size, digest = expected.get(path.name, (None, None))
        found = path.stat().st_size
        if size is None:
            yield _check("size", "unknown", None, gib(found), f"nobody said how large {path.name} should be")
        else:
            yield _check("size", "met" if size == found else "missed", f"{size} bytes", f"{found} bytes", path.name)
        yield _content(path, digest, weights, hashed=hashed, tell=tell)
    yield from _tensors(chosen, headers, engine_python)


def _expected(chosen: Candidate, weights: Weights) -> Mapping[str, tuple[int | None, str | None]]:
    """Size and hash by file name: of the plan's artifact, else of the receipt."""
    found: dict[str, tuple[int | None, str | None]] = {}
    if weights.receipt is not None:
        found |= {Path(each.local_path).name: (each.size_bytes, each.sha256) for each in weights.receipt.files}
    for part in chosen.artifact.parts if chosen.artifact is not None else ():
        wanted = part.size_bytes, part.sha256
        found[Path(part.path).name] = wanted
        if part.local_path is not None:
            found[Path(part.local_path).name] = wanted
    return found


def _content(path: Path, digest: str | None, weights: Weights, *, hashed: bool, tell: Callable[[str], None]) -> Check:
    if digest is None:
        return _check("sha256", "unknown", None, None, f"nobody said what {path.name} should hold")
    known = known_hash(weights.receipt, path)
    if known is None and not hashed:
        return _check("sha256", "unknown", digest, None, "not read: --quick")
    if known is None:
        tell(f"reading {path} ({gib(path.stat().st_size)}) for its hash")
    found = known or hash_file(path)
    text = f"{path.name}, unchanged since it was fetched and hashed" if known else path.name
    return _check("sha256", "met" if found == digest else "missed", digest, found, text)


def _tensors(chosen: Candidate, headers: tuple[Walked, ...], engine_python: str | None) -> Iterator[Check]:
    rows = [row for header in headers for row in header.tensors]
    held = sum(row.size_bytes for row in rows)
    near = abs(held - chosen.file_bytes) <= _NEAR * chosen.file_bytes
    yield _check("tensor-bytes", "met" if near else "missed", gib(chosen.file_bytes), gib(held))
    try:
        planned = {tensor.name: tensor for tensor in planned_layout(chosen, engine_python).tensors}
    except (PlannerError, ValueError) as error:
        yield _check("tensors", "unknown", None, None, f"the planned tensors cannot be told: {error}")
        return
    there = {row.name: row for row in rows}
    missing = sorted(set(planned) - set(there))
    strange = sorted(set(there) - set(planned))
    shaped = sorted(name for name in set(planned) & set(there) if _dims(planned[name]) != _dims(there[name]))
    if missing or shaped:
        text = _listed("not there", missing) or _listed("of another shape", shaped)
        yield _check("tensors", "missed", len(planned), len(there), f"{text}: it is another model")
        return
    retyped = sorted(name for name in planned if name in there and planned[name].type != there[name].type)
    status: CheckStatus = "met" if not retyped and not strange else "differs" if near else "missed"
    text = "; ".join(filter(None, (_listed("of another type", retyped), _listed("not planned", strange))))
    yield _check("tensors", status, len(planned), len(there), text)


def _dims(tensor: TensorSpec | TensorRow) -> int:
    """What a shape holds, whatever trailing ones the file leaves out."""
    return tensor_bytes("F32", tensor.dims)


def _listed(what: str, names: list[str]) -> str:
    return f"{len(names)} tensors {what} ({', '.join(names[:3])}{' …' if len(names) > 3 else ''})" if names else ""


def _check(name: str, status: CheckStatus, planned: object, found: object, text: str = "") -> Check:
    return Check(
        area="file",
        name=name,
        status=status,
        planned=None if planned is None else str(planned),
        found=None if found is None else str(found),
        text=text,
    )
