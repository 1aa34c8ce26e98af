"""From a goal to a plan: search, measure, search again, and write down why.

The mistake it prevents: a plan that cannot be explained afterwards. Every model of the catalogue is either chosen, an
alternative, or rejected with its reason, and every number says where it comes from.
"""

import difflib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec

from planner import __version__
from planner.catalogue import Catalogue
from planner.choose.evaluate import evaluate
from planner.choose.evaluation import Evaluation
from planner.choose.why_not import why_not as reason_against
from planner.errors import UsageError
from planner.measure.threads import KnownThreads
from planner.render.commands import commands
from planner.render.waiting import spinning
from planner.types import Report
from planner.types.artifact import Artifact, Repository
from planner.types.model import Model
from planner.types.plan import Candidate, Goal, ModelFacts, Plan, Reason
from planner.units import gib
from planner.workflow.costing import kept_costing
from planner.workflow.drifting import drift_warnings
from planner.workflow.estimator import CandidateEstimator
from planner.workflow.inspection import models
from planner.workflow.local import copies_here, copy_of, open_copies
from planner.workflow.requests import check_context, files_named
from planner.workflow.session import Session, open_session, remembered, threads_here
from planner.workflow.timing import Progress, Timed, time_leaders

__all__ = ["WhyNot", "plan", "why_not"]

_MOST_ALTERNATIVES = 8


class WhyNot(Report, frozen=True, kw_only=True):
    """Why ``model`` (at ``quantization``) is not ``chosen``; ``candidate`` holds its costs where they are known."""

    schema: str = "planner/why-not/1"
    model: str
    quantization: str | None
    chosen: str | None
    reason: Reason
    candidate: Candidate | None


class _Prepared(NamedTuple):
    """What a goal is searched with, the first search, and the threads that are known."""

    estimator: CandidateEstimator
    evaluation: Evaluation
    threads: KnownThreads


def plan(
    goal: Goal,
    *,
    machine: str | None = None,
    measure: Literal["none", "quick", "full"] = "full",
    engine_python: str | None = None,
    progress: Progress | None = None,
) -> Plan:
    """The best deployment for ``goal`` on this machine or on ``machine``; ``chosen`` is ``None`` if nothing meets it.

    Raises :class:`UsageError` for unknown names and impossible contexts, before an engine is started, and
    MissingInputError (code ``no-local-models``) when the goal is a local model and there is none.
    """
    if goal.local and goal.model is not None:
        raise UsageError("a goal names a model or asks for a local one, not both", hint="leave out --local")
    told = progress or _silent
    known = models()
    files = files_named(goal.model, goal.quantization)
    goal = _known(goal, known, files)
    told("detect", 0.0, 0.0, "")
    with open_session(known, machine, engine_python) as session:
        goal, notes = _opened(session, goal, files)
        told("estimate", 0.0, 0.0, "asking the engine about every candidate")
        prepared = _search(session, goal)
        timed = Timed(prepared.evaluation, (), ())
        unmeasured = _why_not_measured(session, measure)
        if measure != "none" and not unmeasured and prepared.evaluation.chosen is not None:
            timed = time_leaders(
                session,
                prepared.estimator,
                remembered(session),
                prepared.evaluation,
                lambda: _evaluate(session, goal, prepared.estimator),
                threads=prepared.threads,
                effort=measure,
                progress=told,
            )
        prepared.estimator.flush()
        return _written(
            session, prepared, goal, timed, (*notes, *unmeasured, *timed.warnings, *drift_warnings(session))
        )


def why_not(goal: Goal, name: str, *, machine: str | None = None, engine_python: str | None = None) -> WhyNot:
    """The one reason that decided against ``name`` (``MODEL`` or ``MODEL:QUANT``), from remembered speeds."""
    wanted, _, suffix = name.partition(":")
    known = models()
    model = known.model(wanted)
    quantization = known.quantization(suffix) if suffix else None
    goal = _known(goal, known, None)
    with open_session(known, machine, engine_python) as session:
        evaluation = _search(session, goal).evaluation
        quality = session.quality
    answer = reason_against(evaluation, quality, model, quantization)
    chosen = evaluation.chosen
    pool = [*evaluation.ranked, *evaluation.trade_offs]
    same = [c for c in pool if c.model == model.id and quantization and c.quantization == quantization.name]
    return WhyNot(
        model=model.id,
        quantization=answer.quantization,
        chosen=f"{chosen.model}:{chosen.quantization}" if chosen else None,
        reason=answer.reason,
        candidate=next(iter(same or [c for c in pool if c.model == model.id and quantization is None]), None),
    )


def _known(goal: Goal, known: Catalogue, files: Repository | None) -> Goal:
    """The goal with canonical names; a model that is named with a quantization (``qwen3-8b:Q8_0``) sets both.

    A goal that names files keeps its names until their header was read.
    """
    families = sorted({model.family for model in known.models.values()})
    for family in goal.families:
        if family != "all" and not any(name.lower().startswith(family.lower()) for name in families):
            close = difflib.get_close_matches(family, families, n=3, cutoff=0.4) or families
            raise UsageError(
                f"unknown family {family!r}", hint=f"did you mean {', '.join(close)}?", code="unknown-family"
            )
    if files is not None or goal.local:
        return goal
    name, _, suffix = (goal.model or "").partition(":")
    recipe = goal.quantization or suffix
    model = known.model(name) if name else None
    if model is not None and goal.context_tokens is not None:
        check_context(model, goal.context_tokens)
    return msgspec.structs.replace(
        goal,
        model=model.id if model else None,
        quantization=known.quantization(recipe).name if recipe else None,
        families=(model.family,) if model and not goal.families else goal.families,
    )


def _opened(session: Session, goal: Goal, files: Repository | None) -> tuple[Goal, tuple[str, ...]]:
    """The goal with the model of the files it names, whose header is read here; and what could not be read."""
    if goal.local:
        warnings = open_copies(session)
        return msgspec.structs.replace(goal, families=goal.families or ("all",)), warnings
    if files is None:
        return goal, ()
    opened = session.sources.open(files, session.oracle.child)
    only = opened[0].model if len(opened) == 1 else None
    if only is not None and goal.context_tokens is not None:
        check_context(only, goal.context_tokens)
    recipe = goal.quantization
    opened_goal = msgspec.structs.replace(
        goal,
        model=only.id if only is not None else None,
        quantization=session.sources.quantization(only.id, recipe).name if recipe and only is not None else recipe,
        families=goal.families or ("all",),
    )
    return opened_goal, ()


def _search(session: Session, goal: Goal) -> _Prepared:
    threads = threads_here(session)
    estimator = CandidateEstimator(
        session.oracle, session.sources, session.machine, costing=kept_costing(session), threads=threads
    )
    estimator.learn(remembered(session).all() if session.local else ())
    return _Prepared(estimator, _evaluate(session, goal, estimator), threads)


def _evaluate(session: Session, goal: Goal, estimator: CandidateEstimator) -> Evaluation:
    sources = session.sources
    # Files compete among themselves: whoever names a repository or a folder wants the best of it.
    models = sources.opened or tuple(sources.catalogue.models.values())
    return evaluate(goal, session.machine, models, sources.quantizations, estimator, session.quality)


def _why_not_measured(session: Session, measure: str) -> tuple[str, ...]:
    if measure == "none":
        return ()
    if not session.local:
        return ("nothing was measured, because this plan is for another machine; every speed is predicted",)
    return ()


def _written(session: Session, prepared: _Prepared, goal: Goal, timed: Timed, warnings: tuple[str, ...]) -> Plan:
    evaluation = timed.evaluation
    copies = copies_here(session)

    def final(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
        return tuple(_final(session, each, prepared.threads, copies) for each in candidates)

    ranked, trade_offs = final(evaluation.ranked), final(evaluation.trade_offs)
    chosen = _served(session, prepared.estimator, evaluation.ranked[0], ranked[0]) if ranked else None
    return Plan(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by=f"planner {__version__}",
        goal=goal,
        machine=session.machine,
        engine_build=session.oracle.system().build,
        chosen=chosen,
        model=_facts(session.sources.model(chosen.model)) if chosen else None,
        alternatives=tuple([*ranked[1:], *trade_offs][:_MOST_ALTERNATIVES]),
        rejected=evaluation.rejected,
        pareto=final(evaluation.pareto),
        trade_off=evaluation.trade_off,
        measurements=timed.measurements,
        commands=commands(chosen, session.sources.model(chosen.model)) if chosen else None,
        reasons=chosen.reasons if chosen else _nothing_meets(evaluation),
        warnings=(*warnings, *_gpu_warnings(session), *_context_warnings(session, chosen), *_waiting_warnings(chosen)),
    )


def _facts(model: Model) -> ModelFacts:
    """What later steps tell about a model, so that they need not ask the catalogue again."""
    return ModelFacts(
        id=model.id,
        name=model.name,
        family=model.family,
        vendor=model.vendor,
        architecture=model.architecture,
        parameters=model.parameters,
        parameters_active=model.parameters_active,
        context_native=model.context_native,
        thinking=model.thinking,
        license=model.license.id,
        license_commercial=model.license.commercial,
        license_source=model.license.source,
        hf_repo=model.hf_repo,
        modelscope_id=model.modelscope_id,
        sources=model.sources,
    )


def _final(
    session: Session, candidate: Candidate, threads: KnownThreads, copies: Mapping[tuple[str, str], Artifact]
) -> Candidate:
    """The candidate as a plan holds it: with the threads it runs with, and with its files where they are known."""
    model, quantization = candidate.model, candidate.quantization
    named = session.sources.artifact(model, quantization)
    shape_key = session.sources.shape_key(
        session.sources.model(model), session.sources.quantization(model, quantization)
    )
    return msgspec.structs.replace(
        candidate,
        settings=threads.of(shape_key, quantization).applied(candidate.settings),
        artifact=named or copy_of(copies, model, quantization, candidate.file_bytes),
    )


def _served(session: Session, estimator: CandidateEstimator, asked: Candidate, final: Candidate) -> Candidate:
    """The winner with what its server may keep in the RAM it leaves; ``asked`` is as the engine was asked about it."""
    model, quantization = (
        session.sources.model(asked.model),
        session.sources.quantization(asked.model, asked.quantization),
    )
    granted = estimator.with_server(model, quantization, asked)
    kept = max((row.server_bytes for row in granted.memory), default=0)
    if not kept:
        return final
    settings = msgspec.structs.replace(
        final.settings, cache_ram_mib=granted.settings.cache_ram_mib, checkpoints=granted.settings.checkpoints
    )
    text = f"of the RAM that is left, a server may keep {gib(kept)} of earlier prompts: it need not read them again"
    reasons = (*final.reasons, Reason(code="granted", text=text))
    return msgspec.structs.replace(final, settings=settings, memory=granted.memory, reasons=reasons)


def _nothing_meets(evaluation: Evaluation) -> tuple[Reason, ...]:
    """What came closest: the model that needs least, and the fastest that was too slow."""
    lost = [each for each in evaluation.rejected if each.reason.code in ("too-big", "too-slow", "engine-refused")]
    smallest = min((each for each in lost if each.needed_bytes), key=lambda each: each.needed_bytes or 0, default=None)
    fastest = max((each for each in lost if each.tokens_per_s), key=lambda each: each.tokens_per_s or 0, default=None)
    named = {each.model: each for each in (smallest, fastest) if each is not None}
    reasons = [
        Reason(code=each.reason.code, text=f"closest was {each.model}: {each.reason.text}") for each in named.values()
    ]
    return tuple(reasons) or tuple(each.reason for each in evaluation.rejected[:1])


def _gpu_warnings(session: Session) -> tuple[str, ...]:
    if session.local and session.machine.gpus and not session.oracle.has_gpu:
        names = ", ".join(sorted({gpu.name or gpu.vendor for gpu in session.machine.gpus}))
        sentence = (
            f"this llama.cpp build cannot use {names}, so the plan is for the CPU; "
            "point --engine-python at an interpreter whose llama-cpp-python was built for it"
        )
        return (sentence,)
    return ()


def _context_warnings(session: Session, chosen: Candidate | None) -> tuple[str, ...]:
    if chosen is None:
        return ()
    model = session.sources.model(chosen.model)
    per_sequence = chosen.settings.context_tokens // chosen.settings.parallel
    if per_sequence <= model.context_native:
        return ()
    return (f"{per_sequence} tokens go beyond the {model.context_native} that {model.id} was trained for (YaRN)",)


def _waiting_warnings(chosen: Candidate | None) -> tuple[str, ...]:
    sentence = None if chosen is None else spinning(chosen.settings)
    return () if sentence is None else (sentence,)


def _silent(_stage: str, _done: float, _total: float, _text: str) -> None:
    """Tell nobody."""
