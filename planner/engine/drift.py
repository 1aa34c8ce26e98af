"""Sees what a new build of the engine answers differently: answers are kept per build, and builds are compared.

The mistake it prevents is drift that is inherited: an upgrade of llama.cpp moves a buffer by eight per cent, every
number is quietly asked anew, and nobody learns why a plan that fitted yesterday is refused today.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from planner.engine.answers import ANSWERS_FORMAT, Buffers, ShapeAnswers, Weights
from planner.engine.questions import parse_question
from planner.types.drift import Change, Quantity

__all__ = ["NOTABLE", "DriftWatch", "changes_between", "kept_answers", "kept_builds", "prune_builds"]

NOTABLE = 0.001
"""A relative change up to this is no drift: logs round to it, and promises keep to it."""

_KEPT_BUILDS = 2

_Sizes = Mapping[tuple[Quantity, str], int | None]


def kept_builds(folder: Path) -> list[Path]:
    """The folders of builds whose answers are kept in ``folder``, the one that answered last first."""
    dated = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            files = [file.stat().st_mtime_ns for file in path.glob("*.json")] if path.is_dir() else []
            if files:
                dated.append((max(files), path))
    return [path for _, path in sorted(dated, reverse=True)]


def kept_answers(path: Path) -> ShapeAnswers | None:
    """The answers in a file; ``None`` for one that is not there, is damaged or is of another planner's form."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=ShapeAnswers)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found if found.format == ANSWERS_FORMAT else None


def prune_builds(folder: Path, build: str) -> tuple[str, ...]:
    """Remove the answers of all builds but ``build`` and the last one beside it; returns the names of those removed."""
    others = [path for path in kept_builds(folder) if path.name != build]
    removed = []
    for path in others[_KEPT_BUILDS - 1 :]:
        with contextlib.suppress(OSError):
            shutil.rmtree(path)
            removed.append(path.name)
    return tuple(removed)


def changes_between(shape_key: str, before: ShapeAnswers, after: ShapeAnswers) -> tuple[Change, ...]:
    """The numbers that differ by more than :data:`NOTABLE`, over the questions that both have answered.

    A buffer that one side lacks counts as empty there; a number that one side does not know is not compared.
    """
    found: list[Change] = []
    for key, weights in after.weights.items():
        if key in before.weights:
            found += _compared(shape_key, key, _of_weights(before.weights[key]), _of_weights(weights))
    for key, buffers in after.buffers.items():
        if key in before.buffers:
            found += _buffers_compared(shape_key, key, before.buffers[key], buffers)
    return tuple(found)


class DriftWatch:
    """Compares each new answer of a build with what the last other build answered to the same question."""

    def __init__(self, folder: Path, build: str) -> None:
        self._others = [path for path in kept_builds(folder) if path.name != build]
        self._before: dict[str, ShapeAnswers | None] = {}
        self.changes: list[Change] = []

    def see(self, shape_key: str, weights: Mapping[str, Weights], buffers: Mapping[str, Buffers]) -> None:
        """Look at fresh answers; what differs is in ``changes`` from now on."""
        before = self._last(shape_key)
        if before is not None:
            after = ShapeAnswers(weights=dict(weights), buffers=dict(buffers))
            self.changes += changes_between(shape_key, before, after)

    def _last(self, shape_key: str) -> ShapeAnswers | None:
        if shape_key not in self._before:
            told = (kept_answers(path / f"{shape_key}.json") for path in self._others)
            self._before[shape_key] = next((answers for answers in told if answers is not None), None)
        return self._before[shape_key]


def _buffers_compared(shape_key: str, key: str, before: Buffers, after: Buffers) -> Sequence[Change]:
    if (before.refused is None) != (after.refused is None):
        return [_change(shape_key, key, "refusal", "", None, None, after.refused or "")]
    return list(_compared(shape_key, key, _of_buffers(before), _of_buffers(after)))


def _compared(shape_key: str, key: str, before: _Sizes, after: _Sizes) -> Iterator[Change]:
    for quantity, buffer in dict.fromkeys((*before, *after)):
        old, new = before.get((quantity, buffer), 0), after.get((quantity, buffer), 0)
        if old is not None and new is not None and abs(new - old) > NOTABLE * old:
            yield _change(shape_key, key, quantity, buffer, old, new)


def _of_weights(weights: Weights) -> _Sizes:
    return {("weights", buffer): size for buffer, size in weights.buffers.items()}


def _of_buffers(answer: Buffers) -> _Sizes:
    sizes: dict[tuple[Quantity, str], int | None] = {}
    for buffer in answer.buffers:
        sizes["cache", buffer.name] = buffer.context_bytes
        sizes["compute", buffer.name] = buffer.compute_bytes
    sizes["output", ""] = answer.output_bytes
    sizes["work", ""] = answer.work_bytes
    sizes["structures", ""] = answer.structures_bytes
    return sizes


def _change(
    shape_key: str,
    key: str,
    quantity: Quantity,
    buffer: str,
    before_bytes: int | None,
    after_bytes: int | None,
    text: str = "",
) -> Change:
    question = parse_question(key)
    return Change(
        shape_key=shape_key,
        question=key,
        quantization=question.quantization if question is not None else "",
        quantity=quantity,
        buffer=buffer,
        before_bytes=before_bytes,
        after_bytes=after_bytes,
        text=text,
    )
