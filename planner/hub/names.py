"""What the names of model files say: quantization label, part of a split set, purpose.

Names are a convention, not a fact: they choose among files, and everything that is computed comes from the header. The
mistake it prevents is counting ``-00002-of-00003`` as a model of its own, or an ``mmproj`` as the best quantization.
"""

import re
from collections.abc import Iterable

from planner.types import Report
from planner.types.artifact import Artifact, ArtifactKind, HubKind, Part

__all__ = ["Split", "artifacts_of", "is_model_file", "kind_of", "quantization_of", "same_quantization", "split_of"]

_SPLIT = re.compile(r"^(?P<prefix>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf$", re.IGNORECASE)
_MOST_PARTS = 1024

# A label stands between separators. Publishers add a prefix for their own mix: UD (Unsloth dynamic), i1 (weighted).
_LABEL = re.compile(
    r"(?:^|(?<=[-._ ]))"
    r"(?P<label>(?:(?:UD|i1)[-_])?"
    r"(?:I?Q\d_[A-Z0-9]+(?:_[A-Z0-9]+)*|TQ\d_\d|BF16|F16|FP16|F32|FP32|MXFP4(?:_[A-Z]+)*|NVFP4(?:_[A-Z]+)*|FP8))"
    r"(?=[-. ]|$)",
    re.IGNORECASE,
)
_SYNONYMS = {"FP16": "F16", "FP32": "F32"}
_DRAFTS = ("eagle3-", "dflash-", "dspark-", "draft-", "-draft")
_LORA = re.compile(r"(?:^|[-._/])lora(?:[-._/]|$)")


class Split(Report, frozen=True, kw_only=True):
    """One file's place in a split set: the name all parts share, its number from 1, and how many there are."""

    prefix: str
    index: int
    count: int


def split_of(path: str) -> Split | None:
    """The place of a file in a split set, or None for a file that stands alone."""
    match = _SPLIT.match(path)
    if match is None:
        return None
    index, count = int(match["index"]), int(match["count"])
    return Split(prefix=match["prefix"], index=index, count=count) if 1 <= index <= count <= _MOST_PARTS else None


def quantization_of(path: str) -> str | None:
    """The label in a file's name (``Q4_K_M``, ``UD-Q4_K_XL``, ``BF16``), else in its nearest folder's, else None."""
    *folders, name = path.split("/")
    split = split_of(name)
    stem = split.prefix if split is not None else name.removesuffix(".gguf")
    for text in (stem, *reversed(folders)):
        labels = [match["label"] for match in _LABEL.finditer(text)]
        if labels:
            return _spelled(labels[-1])
    return None


def _spelled(label: str) -> str:
    prefix, _, rest = label.rpartition("-")
    upper = rest.upper()
    plain = _SYNONYMS.get(upper, upper)
    if not prefix:
        return plain
    return f"{'i1' if prefix.lower() == 'i1' else prefix.upper()}-{plain}"


def same_quantization(asked: str, label: str | None, *, exactly: bool = True) -> bool:
    """Whether a label is the one that was asked for; not ``exactly`` also takes a publisher's mix of it."""
    if label is None:
        return False
    wanted, found = asked.upper(), label.upper()
    wanted = _SYNONYMS.get(wanted, wanted)
    return wanted == found or (not exactly and found.removeprefix("UD-").removeprefix("I1-") == wanted)


def kind_of(path: str) -> ArtifactKind:
    """What a file is for, by the words that publishers and llama.cpp use in its name."""
    name = path.rsplit("/", 1)[-1]
    lower = name.lower()
    if "imatrix" in lower:
        return "imatrix"
    if "mmproj" in lower:
        return "mmproj"
    if "mtp-" in name:  # llama.cpp looks for it in lower case: models *with* a block say MTP in capitals
        return "mtp"
    if any(word in lower for word in _DRAFTS):
        return "draft"
    return "adapter" if _LORA.search(lower) else "model"


def is_model_file(path: str) -> bool:
    """Whether a listing's entry is of interest: a GGUF file, or an importance matrix in its older format."""
    # A path that climbs or holds control characters is nobody's model file.
    if not path.isprintable() or any(segment in {"", ".", ".."} for segment in path.split("/")):
        return False
    lower = path.lower()
    return lower.endswith(".gguf") or ("imatrix" in lower and lower.endswith(".dat"))


def artifacts_of(
    parts: Iterable[Part], *, hub: HubKind, repo: str | None = None, commit: str | None = None
) -> tuple[Artifact, ...]:
    """File sets made of single files: split sets are put together in order, and their missing parts are named."""
    sets: dict[tuple[str, int], dict[int, Part]] = {}
    found: list[Artifact] = []
    for part in parts:
        split = split_of(part.path)
        if split is None:
            found.append(_artifact(part.path, (part,), (), hub=hub, repo=repo, commit=commit))
        else:
            sets.setdefault((split.prefix, split.count), {})[split.index] = part
    for (prefix, count), members in sets.items():
        numbers = range(1, count + 1)
        there = tuple(members[number] for number in numbers if number in members)
        missing = tuple(f"{prefix}-{number:05}-of-{count:05}.gguf" for number in numbers if number not in members)
        found.append(_artifact(f"{prefix}.gguf", there, missing, hub=hub, repo=repo, commit=commit))
    return tuple(sorted(found, key=lambda artifact: (artifact.kind, artifact.name)))


def _artifact(
    name: str, parts: tuple[Part, ...], missing: tuple[str, ...], *, hub: HubKind, repo: str | None, commit: str | None
) -> Artifact:
    return Artifact(
        hub=hub,
        name=name,
        kind=kind_of(name),
        quantization=quantization_of(name),
        parts=parts,
        missing=missing,
        repo=repo,
        commit=commit,
    )
