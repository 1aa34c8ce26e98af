"""Keeps what was imported, one file each, and finds the rows that are of the same model as a measurement.

They are never taken for speeds of this machine and never teach a prediction: their use is to stand beside one's own.
The mistake it prevents is two models of one name: rows belong to a measurement when the bytes and the parameters of all
tensors agree, to the digits that the imported file has.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from planner.files import atomic_write, cache_dir
from planner.measure.llama_bench import params_text, size_text
from planner.types.imported import Imported, ImportedRow
from planner.types.measurement import Described

__all__ = ["ImportStore", "same_model"]


class ImportStore:
    """The imported files under ``folder`` (default: in the cache); ``warn`` is told of each damaged one."""

    def __init__(self, *, folder: Path | None = None, warn: Callable[[str], None] = lambda _sentence: None) -> None:
        self._folder = folder if folder is not None else cache_dir() / "imported"
        self._warn = warn

    def keep(self, imported: Imported) -> None:
        """Keep what was read from one file; the same rows again replace themselves.

        Raises :class:`FileIOError` where nothing can be written: keeping is all that an import does.
        """
        digest = hashlib.sha256(msgspec.json.encode(imported.rows)).hexdigest()[:24]
        atomic_write(self._folder / f"{digest}.json", msgspec.json.format(msgspec.json.encode(imported)))

    def all(self) -> tuple[Imported, ...]:
        """Everything that was imported, the oldest first."""
        found = [each for path in self._files() if (each := self._read(path)) is not None]
        return tuple(sorted(found, key=lambda each: (each.imported_at, each.source)))

    def _files(self) -> Iterable[Path]:
        try:
            return sorted(self._folder.glob("*.json"))
        except OSError:
            return ()

    def _read(self, path: Path) -> Imported | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Imported)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._warn(f"an imported file cannot be read and is left out: {path.name}: {error}")
            return None


def same_model(row: ImportedRow, described: Described) -> bool:
    """Whether an imported row is of the model that ``described`` tells; what is not told is no agreement."""
    size, parameters = described.model_size_bytes, described.parameters
    if size is None or parameters is None:
        return False
    if row.described.model_size_bytes is not None:
        return (row.described.model_size_bytes, row.described.parameters) == (size, parameters)
    # A table has rounded numbers.
    return (row.fields.get("size"), row.fields.get("params")) == (size_text(size), params_text(parameters))
