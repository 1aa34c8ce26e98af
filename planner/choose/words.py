"""Why the winner won and what each alternative trades, in words with numbers; ranks nothing.

Because a score is a product of factors, "what decided?" has an exact answer: the factor with the largest ratio.
"""

import math
from collections.abc import Mapping

import msgspec

from planner.choose.evaluation import Considered, Evaluation
from planner.choose.verdict import speed_reason
from planner.types.model import Model
from planner.types.plan import Candidate, Goal, Reason
from planner.units import count, gib, percent, rate

__all__ = ["decided_by", "explain"]


def explain(evaluation: Evaluation, models: Mapping[str, Model]) -> Evaluation:
    """The evaluation with reasons on the winner, on the others against the winner, and on its trade-offs."""
    if not evaluation.ranked:
        return evaluation
    winner, others = evaluation.ranked[0], evaluation.ranked[1:]
    told = msgspec.structs.replace(winner, reasons=_winner_reasons(evaluation, models))
    return msgspec.structs.replace(
        evaluation,
        ranked=(told, *(_against(evaluation, winner, other) for other in others)),
        trade_offs=tuple(
            msgspec.structs.replace(
                option, reasons=(_trade_off(winner, option), speed_reason(evaluation.goal, option.speed))
            )
            for option in evaluation.trade_offs
        ),
    )


def _winner_reasons(evaluation: Evaluation, models: Mapping[str, Model]) -> tuple[Reason, ...]:
    winner = evaluation.ranked[0]
    own = _entry(evaluation, winner)
    reasons = []
    if own is not None:
        reasons.append(Reason(code="best", text=_score_words(own, models[winner.model])))
        if len(evaluation.ranked) > 1:
            second = _entry(evaluation, evaluation.ranked[1])
            if second is not None:
                reasons.append(_ahead(own, second))
        reasons.append(own.reason)
    reasons.append(speed_reason(evaluation.goal, winner.speed))
    reasons.extend(_settings_words(evaluation.goal, winner, models[winner.model]))
    return tuple(reasons)


def _score_words(entry: Considered, model: Model) -> str:
    made = entry.factors
    words = [f"{count(round(made.parameters))} effective parameters"]
    if model.parameters_active < model.parameters:
        words = [f"{words[0]} (a mixture, {count(model.parameters)} of which {count(model.parameters_active)} active)"]
    named = (
        ("generation", made.generation),
        ("use", made.use),
        ("kept after quantization", made.loss),
        ("context", made.context),
        ("cache type", made.cache),
    )
    words += [f"{value:.2f} ({name})" for name, value in named if not math.isclose(value, 1.0, abs_tol=0.005)]
    return f"highest score of all that fit and are fast enough: {' × '.join(words)} = {count(round(entry.score))}"


def _settings_words(goal: Goal, winner: Candidate, model: Model) -> list[Reason]:
    words = []
    settings = winner.settings
    context = settings.context_tokens // settings.parallel
    if context > model.context_native:
        words.append(
            f"{context} tokens exceed the native context of {model.context_native}: the model needs YaRN for that "
            "(--rope-scaling yarn), which this plan does not apply"
        )
    if settings.load_mode == "none" and any(row.weights_repacked_bytes for row in winner.memory):
        twice = sum(row.weights_repacked_bytes for row in winner.memory)
        words.append(
            f"load mode none: the engine repacks {gib(twice)} of the weights, and mapping the file would hold them "
            "twice; the price is a slower start"
        )
    if settings.cache_type_k != "f16" and goal.cache_type is None:
        words.append(f"the cache is {settings.cache_type_k}: with f16 this context does not fit")
    if settings.cpu_moe_layers:
        words.append(f"the experts of {settings.cpu_moe_layers} layers stay on the CPU, the rest is on the GPU")
    elif settings.gpu_layers > 0:
        words.append(f"{settings.gpu_layers} layers are on the GPU, the rest stays on the CPU")
    return [Reason(code="trade-off", text=text) for text in words]


def _against(evaluation: Evaluation, winner: Candidate, other: Candidate) -> Candidate:
    own, entry = _entry(evaluation, winner), _entry(evaluation, other)
    if own is None or entry is None:
        return other
    lost = Reason(code="lower-rank", text=decided_by(own, entry))
    return msgspec.structs.replace(other, reasons=(lost, entry.reason, speed_reason(evaluation.goal, other.speed)))


def _entry(evaluation: Evaluation, candidate: Candidate) -> Considered | None:
    """What was noted about a candidate; the load mode and a longer context do not count, they change no factor."""
    same = [
        entry
        for entry in evaluation.considered
        if entry.model == candidate.model
        and entry.quantization == candidate.quantization
        and math.isclose(entry.score, candidate.score)
    ]
    return max(same, key=lambda entry: entry.utility, default=None)


def decided_by(winner: Considered, loser: Considered) -> str:
    """In words, the factor that put the winner ahead of the loser, with both numbers."""
    gains = _gains(winner, loser)
    name = max(gains, key=lambda factor: gains[factor])
    lead = f"{count(round(loser.utility))} against {count(round(winner.utility))} (score times speed)"
    return f"{lead}: {_factor_words(name, winner, loser)}"


def _gains(winner: Considered, loser: Considered) -> dict[str, float]:
    """By how much, as a logarithm, each factor favours the winner."""
    pairs = {name: (getattr(winner.factors, name), getattr(loser.factors, name)) for name in winner.factors._fields}
    pairs["speed"] = (winner.utility / winner.score, loser.utility / loser.score)
    return {name: math.log(max(mine, 1e-300) / max(theirs, 1e-300)) for name, (mine, theirs) in pairs.items()}


def _factor_words(name: str, winner: Considered, loser: Considered) -> str:
    mine = getattr(winner.factors, name, 0.0)
    theirs = getattr(loser.factors, name, 0.0)
    who = f"{winner.model} {winner.quantization}"
    words = {
        "parameters": f"{who} is larger ({count(round(mine))} against {count(round(theirs))} effective parameters)",
        "generation": f"{winner.model} is of a newer generation, which counts {mine / max(theirs, 1e-300):.1f} times",
        "use": f"{winner.model} suits the use better, which counts {mine / max(theirs, 1e-300):.1f} times",
        "loss": f"{loser.quantization} keeps {percent(theirs)} of its quality, {who} {percent(mine)}",
        "context": f"{who} holds a longer context",
        "cache": f"{who} needs no smaller cache type",
        "speed": f"{who} is faster ({rate(winner.tokens_per_s)} against {rate(loser.tokens_per_s)} tokens/s)",
    }
    return words[name]


def _ahead(winner: Considered, second: Considered) -> Reason:
    gains = _gains(winner, second)
    name = max(gains, key=lambda factor: gains[factor])
    text = f"ahead of {second.model} {second.quantization}: {_factor_words(name, winner, second)}"
    if name == "generation":
        return Reason(code="newer-generation", text=text)
    if name == "loss":
        return Reason(code="less-loss", text=text)
    return Reason(code="meets-speed" if name == "speed" else "more-capable", text=text)


def _trade_off(winner: Candidate, option: Candidate) -> Reason:
    words = []
    if option.settings.context_tokens != winner.settings.context_tokens:
        longer = option.settings.context_tokens > winner.settings.context_tokens
        words.append(f"{'longer' if longer else 'shorter'} context of {option.settings.context_tokens} tokens")
    if not math.isclose(option.score, winner.score):
        words.append(f"{'better' if option.score > winner.score else 'lower'} quality")
    mine, theirs = winner.speed.generate, option.speed.generate
    if (
        mine is not None
        and theirs is not None
        and not math.isclose(mine.tokens_per_s, theirs.tokens_per_s, rel_tol=0.01)
    ):
        faster = theirs.tokens_per_s > mine.tokens_per_s
        words.append(f"{'faster' if faster else 'slower'} ({rate(theirs.tokens_per_s)} tokens/s)")
    saved = sum(row.total_bytes for row in winner.memory) - sum(row.total_bytes for row in option.memory)
    if saved:
        words.append(f"{gib(abs(saved))} {'less' if saved > 0 else 'more'} memory")
    return Reason(code="trade-off", text=", ".join(words) or "the same cost")
