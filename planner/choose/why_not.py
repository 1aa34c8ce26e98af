"""The answer to "why not MODEL[:QUANT]?": one reason for anything a user can name, and the list of all losers.

The mistake it prevents is a shrug. What was not worked out was left out because of a bound, and the bound is the
reason; nothing needs to be asked again.
"""

import math
from collections.abc import Iterable

from planner.choose import candidates, policy
from planner.choose.appraisal import Appraiser, QualitySource
from planner.choose.evaluation import Considered, Evaluation, ModelOutcome
from planner.choose.words import decided_by
from planner.types.model import Model, Quantization
from planner.types.plan import Reason, Rejected, Rule
from planner.units import percent

__all__ = ["rejected", "why_not"]


def why_not(
    evaluation: Evaluation, quality: QualitySource, model: Model, quantization: Quantization | None = None
) -> Rejected:
    """Why a model, or a model at a quantization, is not the chosen one; code ``best`` when it is."""
    entries = [entry for entry in evaluation.considered if entry.model == model.id]
    excluded = candidates.screen(evaluation.goal, model)
    if excluded is not None:
        return _answer(model, quantization, excluded)
    if quantization is not None:
        return _of_recipe(evaluation, Appraiser(evaluation.goal, quality), model, quantization, entries)
    chosen = evaluation.chosen
    if chosen is not None and chosen.model == model.id:
        return _answer(model, None, Reason(code="best", text=f"it is the chosen one, at {chosen.quantization}"))
    met = _best_met(entries)
    if met is not None and chosen is not None:
        return _beaten(evaluation, model, None, met)
    return next(
        (lost for lost in evaluation.rejected if lost.model == model.id),
        _answer(
            model, None, Reason(code="family", text="it was not among the models that were looked at", rule="family")
        ),
    )


def rejected(evaluation: Evaluation) -> tuple[Rejected, ...]:
    """Every model that is not in the ranking, by id, with the one reason that decided."""
    losers = [outcome for outcome in evaluation.outcomes if outcome.state != "ranked"]
    return tuple(_lost(evaluation, outcome.model) for outcome in losers)


def _lost(evaluation: Evaluation, model: str) -> Rejected:
    outcome = evaluation.outcome(model)
    if outcome is not None and outcome.reason is not None:
        return Rejected(model=model, quantization=None, reason=outcome.reason)
    if outcome is not None and outcome.state == "outranked":
        return _outranked(evaluation, outcome)
    nearest = _nearest_miss(entry for entry in evaluation.considered if entry.model == model)
    if nearest is None:
        return Rejected(
            model=model, quantization=None, reason=Reason(code="too-big", text="nothing of it was tried", rule="memory")
        )
    text = f"even at {nearest.quantization}: {nearest.reason.text}"
    reason = Reason(code=nearest.reason.code, text=text, rule=nearest.reason.rule)
    return Rejected(
        model=model,
        quantization=nearest.quantization,
        reason=reason,
        needed_bytes=nearest.needed_bytes,
        tokens_per_s=nearest.tokens_per_s,
    )


def _outranked(evaluation: Evaluation, outcome: ModelOutcome) -> Rejected:
    """A model whose heavier quantizations cannot run here and whose lighter ones score too little to matter."""
    reach = f"at {outcome.quantization} and any speed it scores {_in_words(evaluation, outcome.bound)}"
    miss = _nearest_miss(entry for entry in evaluation.considered if entry.model == outcome.model)
    if miss is None:
        return Rejected(
            model=outcome.model, quantization=None, reason=Reason(code="lower-rank", text=reach, rule="index")
        )
    text = f"at {miss.quantization}: {miss.reason.text}; {reach}"
    return Rejected(
        model=outcome.model,
        quantization=miss.quantization,
        reason=Reason(code=miss.reason.code, text=text, rule=miss.reason.rule),
        needed_bytes=miss.needed_bytes,
        tokens_per_s=miss.tokens_per_s,
    )


def _in_words(evaluation: Evaluation, score: float) -> str:
    chosen = evaluation.chosen
    ahead = f", and {chosen.model} {chosen.quantization} has {chosen.score:.1f}" if chosen else ""
    return f"{score:.1f} points at most{ahead}"


def _nearest_miss(entries: Iterable[Considered]) -> Considered | None:
    """The entry that came closest to meeting the goal: the fastest that fits, else the one that needs least."""

    def distance(entry: Considered) -> tuple[int, float, str]:
        if entry.verdict == "too-slow":
            return (0, -(entry.tokens_per_s or 0.0), entry.quantization)
        if entry.verdict == "too-big":
            return (1, float(entry.needed_bytes or math.inf), entry.quantization)
        return (2, 0.0, entry.quantization)

    return min(entries, key=distance, default=None)


def _of_recipe(
    evaluation: Evaluation,
    appraiser: Appraiser,
    model: Model,
    quantization: Quantization,
    entries: list[Considered],
) -> Rejected:
    chosen = evaluation.chosen
    if chosen is not None and (chosen.model, chosen.quantization) == (model.id, quantization.name):
        return _answer(model, quantization, Reason(code="best", text="it is the chosen one"))
    forbidden = _not_allowed(evaluation.goal.quantization, model, quantization)
    if forbidden is not None:
        return _answer(model, quantization, forbidden)
    own = [entry for entry in entries if entry.quantization == quantization.name]
    met = _best_met(own)
    if met is not None and chosen is not None:
        return _beaten(evaluation, model, quantization, met)
    miss = _nearest_miss(own)
    if miss is not None:
        return _answer(model, quantization, miss.reason, miss)
    return _answer(model, quantization, _not_tried(evaluation, appraiser, model, quantization, entries))


def _not_tried(
    evaluation: Evaluation,
    appraiser: Appraiser,
    model: Model,
    quantization: Quantization,
    entries: list[Considered],
) -> Reason:
    better = evaluation.pointless.get(quantization.name)
    if better is not None:
        return _pointless(better, entries)
    step = candidates.ladder(evaluation.goal, model)[0]
    reach = appraiser.bound(model, quantization, step.context, step.cache)
    best = _best_met(entries)
    if best is not None and reach <= best.score:
        return _lighter_than_needed(best, quantization, appraiser.kept(model, quantization))
    text = f"at any speed it scores {_in_words(evaluation, reach)}"
    return Reason(code="lower-rank", text=text, rule=_loss_rule(quantization))


def _loss_rule(quantization: Quantization) -> Rule:
    return "few-bits" if quantization.bits_per_weight < policy.FEW_BITS else "index"


def _beaten(evaluation: Evaluation, model: Model, quantization: Quantization | None, entry: Considered) -> Rejected:
    chosen = evaluation.chosen
    own = [
        e for e in evaluation.considered if chosen and (e.model, e.quantization) == (chosen.model, chosen.quantization)
    ]
    winner = _best_met(own)
    if winner is None:
        return _answer(model, quantization, entry.reason, entry)
    told = decided_by(winner, entry)
    if winner.model == entry.model:
        told = Reason(code="same-model-better-quantization", text=told.text, rule=told.rule)
    return _answer(model, quantization, told, entry)


def _not_allowed(asked: str | None, model: Model, quantization: Quantization) -> Reason | None:
    if asked is not None and asked.upper() != quantization.name.upper():
        return Reason(code="lower-rank", text=f"the goal names the quantization {asked}", rule="same-model")
    if not candidates.suits(model, quantization):
        text = f"{quantization.name} is for mixtures of experts, {model.id} is dense"
        return Reason(code="engine-refused", text=text, rule="engine")
    return None


def _pointless(better: str, entries: list[Considered]) -> Reason:
    """The reason of a recipe that was not tried: the better one met the goal, or missed it all the same."""
    own = [entry for entry in entries if entry.quantization == better]
    miss = _nearest_miss(own)
    if miss is None or _best_met(own) is not None:
        text = f"{better} of the same model loses no more and takes no more bytes"
        return Reason(code="same-model-better-quantization", text=text, rule="same-model")
    text = f"{better} loses no more and takes no more bytes, and even that: {miss.reason.text}"
    return Reason(code=miss.reason.code, text=text, rule=miss.reason.rule)


def _lighter_than_needed(best: Considered, quantization: Quantization, kept: float) -> Reason:
    text = (
        f"{best.quantization} of the same model meets the goal and keeps {percent(best.factors.retention)} of its "
        f"index, {quantization.name} {percent(kept)}; no speed makes up for that"
    )
    return Reason(code="same-model-better-quantization", text=text, rule=_loss_rule(quantization))


def _best_met(entries: list[Considered]) -> Considered | None:
    met = [entry for entry in entries if entry.verdict in {"fits", "tight"}]
    return max(met, key=lambda entry: (entry.score, entry.quantization), default=None)


def _answer(
    model: Model, quantization: Quantization | None, reason: Reason, entry: Considered | None = None
) -> Rejected:
    return Rejected(
        model=model.id,
        quantization=quantization.name if quantization is not None else None,
        reason=reason,
        needed_bytes=entry.needed_bytes if entry is not None else None,
        tokens_per_s=entry.tokens_per_s if entry is not None else None,
    )
