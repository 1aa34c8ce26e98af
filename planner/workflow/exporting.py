"""A plan as files: which weights they name, and how the files reach the disk.

The mistake it prevents: an export that asks anything but the plan. Only where the weights lie is looked up, in what was
given, in the plan and in the receipt of ``planner fetch``, in this order.
"""

import os
from pathlib import Path

import msgspec

from planner.apply.receipts import read_receipt
from planner.errors import UsageError
from planner.files import atomic_write
from planner.render.deployment import deployment
from planner.render.export import Files, export
from planner.types.deployment import Deployment, ExportedFile, ExportOptions
from planner.types.plan import Plan

__all__ = ["export_plan", "write_files"]

_EXECUTABLE = 0o111


def export_plan(
    plan: Plan,
    form: str,
    options: ExportOptions,
    *,
    weights: str | None = None,
    program: str = "llama-server",
    host: str = "127.0.0.1",
    port: int = 8080,
    api_key_file: str | None = None,
) -> tuple[Deployment, Files]:
    """The deployment of a plan and its files in format ``form``; errors are those of ``deployment`` and ``export``."""
    receipt = read_receipt(plan)
    given: str | tuple[str, ...] | None = None if weights is None else _absolute(weights)
    if given is None and receipt is not None and not _as_planned(plan):
        given = receipt.weights
    made = deployment(
        plan,
        weights=given,
        program=program,
        host=host,
        port=port,
        api_key_file=None if api_key_file is None else os.path.abspath(api_key_file),  # noqa: PTH100 - text stays text
    )
    return made, export(form, made, msgspec.structs.replace(options, receipt=receipt))


def write_files(files: Files, output: str | None) -> tuple[ExportedFile, ...]:
    """Write the files to the folder ``output``, or the only one to a file of that name; without it, keep their text.

    What is there already with the same content is left alone. A script becomes executable. Raises FileIOError.
    """
    if output is None:
        return tuple(ExportedFile(name=name, text=text) for name, text in files.items())
    place = Path(output)
    if len(files) > 1 and place.exists() and not place.is_dir():
        raise UsageError(f"{output} is a file, and this format makes {len(files)}", hint="name a folder with --output")
    # A folder is what is one, what ends like one, and what more than one file must go into.
    alone = len(files) == 1 and not place.is_dir() and not output.endswith("/")
    return tuple(_write(name, text, place if alone else place / name) for name, text in files.items())


def _write(name: str, text: str, path: Path) -> ExportedFile:
    data = text.encode()
    try:
        changed = path.read_bytes() != data if path.is_file() else True
    except OSError:
        changed = True
    if changed:
        atomic_write(path, data)
    if text.startswith("#!") and path.is_file():
        path.chmod(path.stat().st_mode | _EXECUTABLE)
    return ExportedFile(name=name, path=str(path), changed=changed)


def _as_planned(plan: Plan) -> bool:
    """Whether the files that the plan found on this disk are still there."""
    artifact = plan.chosen.artifact if plan.chosen is not None else None
    return (
        artifact is not None
        and artifact.on_disk
        and all(Path(part.local_path or "").is_file() for part in artifact.parts)
    )


def _absolute(weights: str) -> str:
    """A path that is here from the root on, because what is written is started from elsewhere; others as they are."""
    path = os.path.abspath(weights)  # noqa: PTH100 - a symbolic link keeps the name that the engine looks at
    return path if os.path.exists(path) else weights  # noqa: PTH110 - the same
