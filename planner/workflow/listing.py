"""Which models of the catalogue are what somebody asks for, and all that is known about one of them.

Every condition narrows: what two conditions leave is what both leave. An unknown fact never passes for a yes, and the
listing says which models were left out only because nobody wrote down what was asked.
"""

from typing import get_args

from planner import catalogue
from planner.catalogue.quality import load_quality
from planner.choose.candidates import least_bytes, memory_bound, suits
from planner.errors import UsageError
from planner.types import Report
from planner.types.model import KnownModel, Model, Quantization
from planner.types.plan import Goal
from planner.types.quality import Capability, TaskGroup
from planner.workflow.session import the_machine

__all__ = [
    "SENSIBLE_BITS_PER_WEIGHT",
    "Listing",
    "ModelFilter",
    "capabilities",
    "check_names",
    "has_facts",
    "room_bytes",
    "select",
    "show",
]

SENSIBLE_BITS_PER_WEIGHT = 4.85
"""Of Q4_K_M: below it a smaller model is usually the better choice for the same memory."""


class ModelFilter(Report, frozen=True, kw_only=True):
    """What is asked of a model; what is empty or ``None`` is not asked.

    ``families`` are beginnings of names, one is enough; every one of ``languages`` must be named by a source.
    ``thinking`` true: it can think before it answers; false: it can answer at once (a hybrid does both). ``max_bytes``
    bounds the weights at :data:`SENSIBLE_BITS_PER_WEIGHT`; ``fits`` asks that the weights in the smallest quantization
    there is can be held by the machine (``machine`` by name or file, ``None`` is this one).
    """

    families: tuple[str, ...] = ()
    commercial: bool = False
    languages: tuple[str, ...] = ()
    thinking: bool | None = None
    max_bytes: int | None = None
    fits: bool = False
    machine: str | None = None


class Listing(Report, frozen=True, kw_only=True):
    """The models that pass, those that are known but cannot be planned, and what was left out for want of a source.

    ``known_only`` pass the family and the licence; of anything else nothing is known, so they are left out when it is
    asked. ``languages_unknown`` are the ids of models that pass everything but a language that no source speaks of.
    """

    models: tuple[Model, ...]
    known_only: tuple[KnownModel, ...]
    languages_unknown: tuple[str, ...]


def select(asked: ModelFilter) -> Listing:
    """The models that are all of what is asked, in the catalogue's order.

    Raises UsageError for a family that no model belongs to (``unknown-family``) and a language that no model names
    (``unknown-language``), and the errors of :func:`planner.machine.load`.
    """
    known = catalogue.load()
    models = tuple(known.models.values())
    check_names(asked, known)
    bound = room_bytes(asked)
    quantizations = tuple(known.quantizations.values())
    passing = [
        model
        for model in models
        if _is_asked_for(asked, model)
        and _thinks_as_asked(asked, model)
        and _is_small_enough(asked, model)
        and (bound is None or _smallest(model, quantizations) <= bound)
    ]
    more = asked.languages or asked.thinking is not None or asked.max_bytes is not None or asked.fits
    return Listing(
        models=tuple(model for model in passing if all(model.speaks(code) for code in asked.languages)),
        known_only=() if more else tuple(m for m in known.known_only.values() if _is_asked_for(asked, m)),
        languages_unknown=tuple(model.id for model in passing if _may_speak(model, asked.languages)),
    )


def check_names(asked: ModelFilter, known: catalogue.Catalogue) -> None:
    """Raise UsageError for a family that no model belongs to, and for a language that no model names."""
    models = tuple(known.models.values())
    _check_families(asked, (*models, *known.known_only.values()))
    _check_languages(asked, models)


def room_bytes(asked: ModelFilter) -> int | None:
    """What the machine can hold at most, where it is asked that a model fits; ``None`` otherwise and where unknown."""
    return memory_bound(Goal(), the_machine(asked.machine)[0]) if asked.fits else None


def has_facts(asked: ModelFilter, model: Model) -> bool:
    """Whether a model's family, licence, languages and thinking are what is asked."""
    told = all(model.speaks(code) for code in asked.languages)
    return told and _is_asked_for(asked, model) and _thinks_as_asked(asked, model)


def show(name: str) -> Model | KnownModel:
    """The model of that name, plannable or only known. Raises UsageError (``unknown-model``)."""
    return catalogue.load().find(name)


def capabilities(model: Model | KnownModel) -> tuple[Capability, ...]:
    """The indices of a model in every task group and mode that it has; none for one that cannot be planned."""
    if not isinstance(model, Model):
        return ()
    quality = load_quality()
    return tuple(
        quality.capability(model, group, thinking=thinking)
        for group in get_args(TaskGroup)
        for thinking in quality.modes(model)
    )


def _is_asked_for(asked: ModelFilter, model: Model | KnownModel) -> bool:
    family = not asked.families or any(_in_family(model, name) for name in asked.families)
    allowed = model.license is not None and model.license.commercial is True
    return family and (allowed or not asked.commercial)


def _in_family(model: Model | KnownModel, name: str) -> bool:
    """Whether a family is meant by its name or by the start of it (``qwen`` means all of Qwen's)."""
    return model.family.casefold().startswith(name.casefold())


def _thinks_as_asked(asked: ModelFilter, model: Model) -> bool:
    if asked.thinking is None:
        return True
    return model.thinking != ("none" if asked.thinking else "always")


def _is_small_enough(asked: ModelFilter, model: Model) -> bool:
    return asked.max_bytes is None or model.parameters * SENSIBLE_BITS_PER_WEIGHT / 8 <= asked.max_bytes


def _smallest(model: Model, quantizations: tuple[Quantization, ...]) -> int:
    return min(least_bytes(model, quantization) for quantization in quantizations if suits(model, quantization))


def _may_speak(model: Model, languages: tuple[str, ...]) -> bool:
    """Whether nothing speaks against a language and something is left open."""
    told = [model.speaks(code) for code in languages]
    return None in told and False not in told


def _check_families(asked: ModelFilter, models: tuple[Model | KnownModel, ...]) -> None:
    for name in asked.families:
        if not any(_in_family(model, name) for model in models):
            known = ", ".join(sorted({model.family for model in models}))
            raise UsageError(f"no model of family {name!r} is known", code="unknown-family", hint=f"families: {known}")


def _check_languages(asked: ModelFilter, models: tuple[Model, ...]) -> None:
    named = {code for model in models for code in model.languages or ()}
    for code in asked.languages:
        if code not in named:
            raise UsageError(
                f"no model's sources name a language {code!r}",
                code="unknown-language",
                hint="write a code of ISO 639, such as ar, vi or zh",
            )
