"""Engine builds compared: what a new one answers differently, told once in passing or asked for as a whole.

The mistake it prevents is a refresh that forgets what it replaced: everything that the last other build's cache holds
is asked again, compared number by number, and only then are still older builds' answers removed.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from planner import catalogue
from planner.engine.answers import ShapeAnswers
from planner.engine.child import EngineChild
from planner.engine.devices import PhantomDevice
from planner.engine.drift import changes_between, kept_answers, kept_builds, prune_builds
from planner.engine.oracle import Oracle
from planner.engine.questions import Question, parse_question
from planner.errors import BadInputError, EngineDiedError, EngineError
from planner.files import cache_dir
from planner.render.drift import change_words
from planner.types.drift import Change, DriftReport
from planner.types.model import Model, Quantization
from planner.workflow.session import Session

__all__ = ["drift", "drift_warnings"]

_MOST_WARNINGS = 5

_Devices = tuple[PhantomDevice, ...] | Literal["own"] | None


def drift_warnings(session: Session) -> tuple[str, ...]:
    """What this run found the engine to answer differently than its last build, the largest changes first.

    Told once: from now on the answers are those of this build.
    """
    found = _largest(session.oracle.drift)
    told = [
        change_words(msgspec.structs.replace(each, model=session.sources.asked_about(each.shape_key)))
        for each in found[:_MOST_WARNINGS]
    ]
    if len(found) > _MOST_WARNINGS:
        told.append(f"{len(found) - _MOST_WARNINGS} more numbers are different")
    return tuple(f"engine build changed: {each}" for each in told)


def drift(*, engine_python: str | None = None) -> DriftReport:
    """Ask this build all that the last other build has answered about the catalogue's models, and compare.

    The new answers are kept; those of builds before the last two are removed when every question was asked. Raises
    :class:`EngineMissingError` when there is no engine.
    """
    known = catalogue.load()
    folder = cache_dir() / "engine"
    with EngineChild(engine_python) as child:
        build = Oracle(child, devices=()).system().build
        others = [path for path in kept_builds(folder) if path.name != build]
        if not others:
            return DriftReport(build=build, build_before=None, questions=0, changes=())
        refresh = _Refresh(known, child, others[0])
        refresh.ask()
    return DriftReport(
        build=build,
        build_before=others[0].name,
        questions=refresh.questions,
        changes=refresh.changes(folder / build),
        skipped=dict(refresh.skipped),
        removed_builds=prune_builds(folder, build),
    )


class _Refresh:
    """Asks again what an older build was asked."""

    def __init__(self, known: catalogue.Catalogue, child: EngineChild, older: Path) -> None:
        self._known = known
        self._child = child
        self._models = {known.shape_key(model): model for model in reversed(tuple(known.models.values()))}
        self._before = {path.stem: told for path in sorted(older.glob("*.json")) if (told := kept_answers(path))}
        self._refused: list[Change] = []
        self.questions = 0
        self.skipped: Counter[str] = Counter()

    def ask(self) -> None:
        """Ask every question that can be asked again, device by device, so that one oracle keeps a shape at a time."""
        todo: dict[_Devices, list[tuple[str, str, Question]]] = {}
        for shape_key, answers in self._before.items():
            for key in (*answers.weights, *answers.buffers):
                question = self._repeatable(shape_key, key)
                if question is not None:
                    todo.setdefault(question.devices, []).append((shape_key, key, question))
        for devices, asked in todo.items():
            own = None if devices == "own" else devices or ()
            with Oracle(self._child, devices=own) as oracle:
                for shape_key, key, question in asked:
                    self.questions += 1
                    self._again(oracle, shape_key, key, question)

    def changes(self, folder: Path) -> tuple[Change, ...]:
        """What is different now, as kept in the folder of the new build, and what is refused."""
        found = list(self._refused)
        for shape_key, before in self._before.items():
            after = kept_answers(folder / f"{shape_key}.json")
            if after is not None and shape_key in self._models:
                found += changes_between(shape_key, before, after)
        return tuple(
            msgspec.structs.replace(change, model=self._models[change.shape_key].id) for change in _by_size(found)
        )

    def _repeatable(self, shape_key: str, key: str) -> Question | None:
        question = parse_question(key)
        why = None
        if shape_key not in self._models:
            why = "asked about a file, not about a model of the catalogue"
        elif question is None:
            why = "asked by a planner that worded questions differently"
        elif question.quantization not in self._known.quantizations:
            why = "asked about a quantization that the catalogue does not have"
        elif not question.repeatable:
            why = "asked with phantoms of GPUs whose rules have changed since"
        if why is not None:
            self.skipped[why] += 1
            return None
        return question

    def _again(self, oracle: Oracle, shape_key: str, key: str, question: Question) -> None:
        model, recipe = self._models[shape_key], self._known.quantization(question.quantization)
        before = self._before[shape_key]
        try:
            _ask(oracle, shape_key, self._known, model, recipe, question, weights=key in before.weights)
        except (EngineError, EngineDiedError, BadInputError) as error:
            if not _was_refused(before, key):
                self._refused.append(
                    Change(
                        shape_key=shape_key,
                        question=key,
                        quantization=question.quantization,
                        quantity="refusal",
                        text=error.message,
                    )
                )


def _ask(
    oracle: Oracle,
    shape_key: str,
    known: catalogue.Catalogue,
    model: Model,
    recipe: Quantization,
    question: Question,
    *,
    weights: bool,
) -> None:
    source, settings = functools.partial(known.layout, model), question.settings
    if weights:
        oracle.weights(shape_key, source, recipe, settings)
    elif question.drafting:
        # The key has the second context's own cache types; those of its first context lead to the same.
        first = msgspec.structs.replace(
            settings, draft_cache_type_k=settings.cache_type_k, draft_cache_type_v=settings.cache_type_v
        )
        oracle.drafting_buffers(shape_key, source, first, recipe)
    else:
        oracle.buffers(shape_key, source, [settings], recipe)


def _was_refused(before: ShapeAnswers, key: str) -> bool:
    answer = before.buffers.get(key)
    return answer is not None and answer.refused is not None


def _largest(changes: Iterable[Change]) -> list[Change]:
    """Of the changes of one number of a model in many questions the largest, ordered by size."""
    found: Mapping[tuple[str, str, str, str], Change] = {
        (each.shape_key, each.quantization, each.quantity, each.buffer): each for each in reversed(_by_size(changes))
    }
    return _by_size(found.values())


def _by_size(changes: Iterable[Change]) -> list[Change]:
    """Refusals first, then by bytes; equal ones in the order of their questions."""
    return sorted(changes, key=lambda each: (each.quantity != "refusal", -_moved(each), each.shape_key, each.question))


def _moved(change: Change) -> int:
    return abs((change.after_bytes or 0) - (change.before_bytes or 0))
