"""Keeps measurements, one file each, and finds one again only for the very machine, engine build and question.

The mistake it prevents is yesterday's number for today's computer: what a measurement depends on is its address, and
the address is checked against the file's own words when it is read. A damaged file costs a new measurement, a
read-only home costs only the memory of it; neither is an error.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from planner.files import cache_dir, try_atomic_write
from planner.types import Report
from planner.types.measurement import Measurement, Test
from planner.types.settings import Settings

__all__ = ["Effort", "MeasurementStore", "Question", "kept_measurements"]

Effort = Literal["quick", "full"]
"""How much time was spent; a full measurement also answers a quick question, not the other way round."""

FactT = TypeVar("FactT", bound=msgspec.Struct)

_EFFORTS: dict[Effort, tuple[Effort, ...]] = {"quick": ("full", "quick"), "full": ("full",)}


class Question(Report, frozen=True, kw_only=True):
    """What was, or is to be, measured. ``shape_key`` names the tensors: models of one shape share measurements.

    ``file`` marks a real file (name, size and time of change), and is empty for a phantom. ``whole_tests`` asks for
    tests at full length, which a shortened one does not answer.
    """

    shape_key: str
    quantization: str
    settings: Settings
    tests: tuple[Test, ...]
    file: str = ""
    whole_tests: bool = False

    def digest(self) -> str:
        """A name that equal questions share; the order of the tests does not matter."""
        ordered = msgspec.structs.replace(self, tests=tuple(sorted(self.tests, key=_rank)))
        return hashlib.sha256(msgspec.json.encode(ordered, order="sorted")).hexdigest()[:24]


def _rank(test: Test) -> tuple[str, int]:
    return test.label, test.threads or 0


class _Entry(Report, frozen=True, kw_only=True):
    """One file: the question beside its answer, so that a file that was moved or renamed is not believed."""

    schema: str = "planner/kept-measurement/1"
    question: Question
    effort: Effort
    measurement: Measurement


class MeasurementStore:
    """The measurements of one machine and engine build under ``folder`` (default: the cache folder).

    ``machine`` is the machine's key (:func:`planner.machine.identity.machine_key`), ``engine_build`` the fingerprint
    of the engine's libraries: a change of either starts an empty store.

    ``warn`` receives one sentence for each damaged file that was skipped.
    """

    def __init__(
        self,
        machine: str,
        engine_build: str,
        *,
        folder: Path | None = None,
        warn: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self.machine_key = machine
        self.engine_build = engine_build
        root = folder if folder is not None else _root()
        self._folder = root / _safe(machine) / _safe(engine_build)
        self._warn = warn

    def find(self, question: Question, *, effort: Effort = "full") -> Measurement | None:
        """The kept answer to ``question`` taken with at least ``effort``; ``None`` when there is none."""
        for each in _EFFORTS[effort]:
            entry = self._read(self._path(question, each))
            if entry is not None and entry.question.digest() == question.digest() and self._is_ours(entry.measurement):
                return entry.measurement
        return None

    def keep(self, question: Question, measurement: Measurement, *, effort: Effort = "full") -> bool:
        """Keep an answer; False when it was disturbed (it must be taken anew) or cannot be written."""
        if measurement.conditions.disturbed or not self._is_ours(measurement):
            return False
        entry = _Entry(question=question, effort=effort, measurement=measurement)
        return try_atomic_write(self._path(question, effort), msgspec.json.format(msgspec.json.encode(entry)))

    def all(self) -> tuple[Measurement, ...]:
        """Every kept measurement of this machine and build, ordered by file name."""
        entries = (self._read(path) for path in self._files())
        return tuple(entry.measurement for entry in entries if entry is not None and self._is_ours(entry.measurement))

    def keep_fact(self, name: str, fact: msgspec.Struct) -> bool:
        """Keep something learnt about this machine and build beside its measurements (which threads are fastest)."""
        return try_atomic_write(self._folder / f"{_safe(name)}.fact", msgspec.json.encode(fact))

    def find_fact(self, name: str, kind: type[FactT]) -> FactT | None:
        """What :meth:`keep_fact` kept under ``name``, ``None`` when there is nothing or it is damaged."""
        return self._decode(self._folder / f"{_safe(name)}.fact", kind)

    def _path(self, question: Question, effort: Effort) -> Path:
        return self._folder / f"{question.digest()}-{effort}.json"

    def _files(self) -> Iterable[Path]:
        try:
            return sorted(self._folder.glob("*.json"))
        except OSError:
            return ()

    def _is_ours(self, measurement: Measurement) -> bool:
        return measurement.machine_key == self.machine_key and measurement.engine_build == self.engine_build

    def _read(self, path: Path) -> _Entry | None:
        return self._decode(path, _Entry)

    def _decode(self, path: Path, kind: type[FactT]) -> FactT | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._warn(f"a kept measurement cannot be read and is taken anew: {path.name}: {error}")
            return None


def kept_measurements(
    *, folder: Path | None = None, warn: Callable[[str], None] = lambda _sentence: None
) -> tuple[Measurement, ...]:
    """Every kept measurement of every machine and engine build under ``folder``, the oldest first."""
    root = folder if folder is not None else _root()
    found: list[Measurement] = []
    for path in sorted(root.glob("*/*/*.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=_Entry).measurement)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            warn(f"a kept measurement cannot be read and is left out: {path.name}: {error}")
    return tuple(sorted(found, key=lambda each: each.taken_at))


def _root() -> Path:
    return cache_dir() / "measurements"


def _safe(name: str) -> str:
    """A name as part of a path: no separators, no dots in front, never empty."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".") or "_"
