"""Why the winner won, which rule decided against each other one, and what was traded, in words with numbers.

It ranks nothing. Because a score is a product of factors plus a credit, "what decided?" has an exact answer: the part
with the largest difference in points.
"""

import math
from collections.abc import Mapping

import msgspec

from planner.choose.evaluation import Considered, Evaluation
from planner.choose.policy import FEW_BITS, UBATCHES
from planner.choose.verdict import speed_reason
from planner.types.model import Model
from planner.types.plan import Candidate, Index, Reason, ReasonCode, Rule
from planner.types.settings import Settings
from planner.units import duration, gib, percent, rate

__all__ = ["decided_by", "explain"]

_NOTABLE = 1.05
"""Measured speeds repeat no better than this."""


def explain(evaluation: Evaluation, models: Mapping[str, Model]) -> Evaluation:
    """The evaluation with reasons on the winner, on the others against the winner, and on its trade-offs."""
    if not evaluation.ranked:
        return evaluation
    winner, others = evaluation.ranked[0], evaluation.ranked[1:]
    told = msgspec.structs.replace(winner, reasons=_winner_reasons(evaluation, models))
    ranked = (told, *(_against(evaluation, winner, other) for other in others))
    trade_offs = tuple(
        msgspec.structs.replace(
            option, reasons=(_trade_off(winner, option), speed_reason(evaluation.goal, option.speed))
        )
        for option in evaluation.trade_offs
    )
    pareto = tuple(_on_the_front(winner, each) for each in evaluation.pareto)
    return msgspec.structs.replace(
        evaluation, ranked=ranked, trade_offs=trade_offs, pareto=pareto, trade_off=_sentence(evaluation, winner)
    )


def decided_by(winner: Considered, loser: Considered) -> Reason:
    """The rule that put the winner ahead of the loser, in words with both numbers."""
    gains = _gains(winner, loser)
    name = max(gains, key=lambda part: gains[part])
    lead = f"{loser.score:.1f} points against {winner.score:.1f}"
    return _reason(name, winner, loser, lead)


def _gains(winner: Considered, loser: Considered) -> dict[str, float]:
    """By how many points, about, each part of the score favours the winner."""
    level = (math.prod(winner.factors) + math.prod(loser.factors)) / 2
    pairs = {name: (getattr(winner.factors, name), getattr(loser.factors, name)) for name in winner.factors._fields}
    gains = {name: level * math.log(max(mine, 1e-9) / max(theirs, 1e-9)) for name, (mine, theirs) in pairs.items()}
    return {**gains, "credit": winner.credit - loser.credit}


_CODES: dict[str, ReasonCode] = {
    "capability": "more-capable",
    "retention": "less-loss",
    "context": "trade-off",
    "cache": "trade-off",
    "credit": "meets-speed",
}


def _reason(part: str, winner: Considered, loser: Considered, lead: str) -> Reason:
    who, whom = _name(winner), _name(loser)
    if part == "credit":
        return _credit_reason(winner, loser, lead)
    if part == "capability":
        # What is surer counts more, so an index that counts more may be the lower one.
        more = "higher" if winner.index.value > loser.index.value else "surer"
        text = f"the index of {who} is {more}, {_span(winner.index)} against {_span(loser.index)}"
        return Reason(code="lower-rank", text=f"{lead}: {text}", rule="index")
    if part == "retention":
        kept, keeps = percent(loser.factors.retention), percent(winner.factors.retention)
        few = loser.bits_per_weight < FEW_BITS
        bits = f" ({loser.bits_per_weight:.1f} bits per weight)" if few else ""
        text = f"{whom}{bits} keeps {kept} of its index, {who} keeps {keeps}"
        return Reason(code="lower-rank", text=f"{lead}: {text}", rule="few-bits" if few else "index")
    text = f"{who} holds a longer context" if part == "context" else f"{who} needs no smaller cache type"
    return Reason(code="lower-rank", text=f"{lead}: {text}", rule="context")


def _credit_reason(winner: Considered, loser: Considered, lead: str) -> Reason:
    apart = f"{_span(winner.index)} and {_span(loser.index)}"
    if _waits_less(winner, loser):
        text = (
            f"the indices overlap ({apart}), and {_name(winner)} answers in {_wait(winner)} "
            f"where it takes {_wait(loser)}"
        )
        return Reason(code="lower-rank", text=f"{lead}: {text}", rule="equal-so-faster")
    text = f"the indices overlap ({apart}), and {_name(winner)} leaves {gib(winner.headroom_bytes)} free"
    return Reason(code="lower-rank", text=f"{lead}: {text}", rule="equal-so-roomier")


def _waits_less(winner: Considered, loser: Considered) -> bool:
    mine, theirs = winner.answer_seconds, loser.answer_seconds
    return mine is not None and theirs is not None and mine * _NOTABLE < theirs


def _wait(entry: Considered) -> str:
    thinking = ", thinking included" if entry.thinking else ""
    return "an unknown time" if entry.answer_seconds is None else f"{duration(entry.answer_seconds)}{thinking}"


def _name(entry: Considered) -> str:
    return f"{entry.model} {entry.quantization}"


def _span(index: Index) -> str:
    return f"{index.value:.0f} ({index.low:.0f} to {index.high:.0f})"


def _winner_reasons(evaluation: Evaluation, models: Mapping[str, Model]) -> tuple[Reason, ...]:
    winner = evaluation.ranked[0]
    own = _entry(evaluation, winner)
    reasons = []
    if own is not None:
        reasons.append(Reason(code="best", text=_score_words(own), rule="index"))
        if len(evaluation.ranked) > 1:
            second = _entry(evaluation, evaluation.ranked[1])
            if second is not None:
                reasons.append(_ahead(own, second))
        reasons.append(own.reason)
    reasons.append(speed_reason(evaluation.goal, winner.speed))
    reasons.extend(_settings_words(evaluation, winner, models[winner.model]))
    return tuple(reasons)


_ORIGINS = {
    "measured": "from published scores of this model",
    "related": "from published scores of its siblings",
    "inferred": "inferred from its size and generation",
}


def _score_words(entry: Considered) -> str:
    index = entry.index
    mode = "thinking" if entry.thinking else "without thinking"
    words = (
        f"best score of all that fit and are fast enough: {index.group} index {_span(index)} {mode}, "
        f"{_ORIGINS[index.origin]}; {entry.quantization} keeps {percent(index.retention)} of {index.capability:.0f}"
    )
    if entry.answer_seconds is not None:
        words += f"; a typical answer takes {duration(entry.answer_seconds)}"
    return words


def _ahead(winner: Considered, second: Considered) -> Reason:
    gains = _gains(winner, second)
    part = max(gains, key=lambda each: gains[each])
    told = _reason(part, winner, second, f"ahead of {_name(second)}, {second.score:.1f} against {winner.score:.1f}")
    return Reason(code=_CODES[part], text=told.text, rule=told.rule)


def _settings_words(evaluation: Evaluation, winner: Candidate, model: Model) -> list[Reason]:
    words: list[tuple[str, Rule | None]] = []
    goal, settings = evaluation.goal, winner.settings
    context = settings.context_tokens // settings.parallel
    if context > model.context_native:
        sentence = (
            f"{context} tokens exceed the native context of {model.context_native}: the model needs YaRN for that "
            "(--rope-scaling yarn), which this plan does not apply"
        )
        words.append((sentence, "context"))
    if settings.cache_type_k != "f16" and goal.cache_type is None:
        words.append((f"the cache is {settings.cache_type_k}: with f16 this context does not fit", "context"))
    words.extend((sentence, "memory") for sentence in (*_host_words(winner), *_placement_words(settings)))
    return [Reason(code="trade-off", text=text, rule=rule) for text, rule in words]


def _host_words(winner: Candidate) -> list[str]:
    """How weights are loaded and prompts are read, where that is not the default."""
    words, settings = [], winner.settings
    if settings.load_mode == "none" and any(row.weights_repacked_bytes for row in winner.memory):
        twice = sum(row.weights_repacked_bytes for row in winner.memory)
        words.append(
            f"load mode none: the engine repacks {gib(twice)} of the weights, and mapping the file would hold them "
            "twice; the price is a slower start"
        )
    if not settings.repack:
        words.append("the weights are not repacked: a mapped file and a second copy do not fit; tokens take longer")
    if settings.ubatch < UBATCHES[0]:
        words.append(
            f"prompts are read {settings.ubatch} tokens at a time: buffers for {UBATCHES[0]} do not fit; long prompts "
            "are read a little more slowly"
        )
    return words


def _placement_words(settings: Settings) -> list[str]:
    """Where layers and experts are, where not everything is on one GPU."""
    words = []
    if settings.tensor_split:
        counts = ", ".join(f"{count:.0f}" for count in settings.tensor_split)
        words.append(f"the GPUs hold {counts} layers, the output as one: split by free memory, one would overflow")
    if settings.cpu_moe_layers:
        words.append(f"the experts of {settings.cpu_moe_layers} layers stay on the CPU, the rest is on the GPU")
    elif settings.gpu_layers > 0:
        words.append(f"{settings.gpu_layers} layers are on the GPU, the rest stays on the CPU")
    return words


def _against(evaluation: Evaluation, winner: Candidate, other: Candidate) -> Candidate:
    own, entry = _entry(evaluation, winner), _entry(evaluation, other)
    if own is None or entry is None:
        return other
    return msgspec.structs.replace(
        other, reasons=(decided_by(own, entry), entry.reason, speed_reason(evaluation.goal, other.speed))
    )


def _entry(evaluation: Evaluation, candidate: Candidate) -> Considered | None:
    """What was noted about a candidate."""
    same = [
        entry
        for entry in evaluation.considered
        if (entry.model, entry.quantization) == (candidate.model, candidate.quantization)
        and entry.settings == candidate.settings
    ]
    return max(same, key=lambda entry: entry.score, default=None)


# --- What was traded --------------------------------------------------------------------------------------------------


def _sentence(evaluation: Evaluation, winner: Candidate) -> str:
    """The trade-off of the choice in one sentence, against the best index or else the faster ones on the front."""
    best = evaluation.pareto[0] if evaluation.pareto else winner
    if _value(best) > _value(winner) + 0.5:
        lost = _value(best) - _value(winner)
        within = "less than can be told apart" if lost <= evaluation.margin else "more than the doubt about it"
        return (
            f"It gives up {lost:.1f} points of index against {best.model} {best.quantization}, {within}, "
            f"for {_gained(winner, best)}."
        )
    faster = [each for each in evaluation.pareto if _speed(each) > _NOTABLE * _speed(winner) > 0]
    if not faster:
        return "Nothing else that was worked out here is better in quality or in speed."
    other = max(faster, key=lambda each: (each.score, _speed(each)))
    return (
        f"Nothing that runs here has a clearly higher index; {other.model} {other.quantization} would be "
        f"{_speed(other) / _speed(winner):.1f} times as fast for {_value(winner) - _value(other):.1f} points less."
    )


def _gained(winner: Candidate, best: Candidate) -> str:
    gains = []
    if _speed(winner) > _NOTABLE * _speed(best) > 0:
        gains.append(f"{_speed(winner) / _speed(best):.1f} times the speed")
    saved = _memory(best) - _memory(winner)
    if saved > 0:
        gains.append(f"{gib(saved)} less memory")
    if winner.answer_seconds is not None and best.answer_seconds is not None:
        earlier = best.answer_seconds - winner.answer_seconds
        if earlier > 1:
            gains.append(f"an answer {duration(earlier)} earlier")
    return " and ".join(gains) or "an index that is surer"


def _on_the_front(winner: Candidate, each: Candidate) -> Candidate:
    if (each.model, each.quantization, each.settings) == (winner.model, winner.quantization, winner.settings):
        return each
    return msgspec.structs.replace(each, reasons=(_trade_off(winner, each),))


def _trade_off(winner: Candidate, option: Candidate) -> Reason:
    words = []
    if option.settings.context_tokens != winner.settings.context_tokens:
        longer = option.settings.context_tokens > winner.settings.context_tokens
        words.append(f"{'longer' if longer else 'shorter'} context of {option.settings.context_tokens} tokens")
    points = _value(option) - _value(winner)
    if abs(points) >= 0.05:
        words.append(f"{abs(points):.1f} points of index {'more' if points > 0 else 'less'}")
    mine, theirs = _speed(winner), _speed(option)
    if mine > 0 and theirs > 0 and not math.isclose(mine, theirs, rel_tol=0.01):
        words.append(f"{'faster' if theirs > mine else 'slower'} ({rate(theirs)} tokens/s)")
    saved = _memory(winner) - _memory(option)
    if saved:
        words.append(f"{gib(abs(saved))} {'less' if saved > 0 else 'more'} memory")
    return Reason(code="trade-off", text=", ".join(words) or "the same cost")


def _value(candidate: Candidate) -> float:
    return candidate.index.value if candidate.index is not None else 0.0


def _speed(candidate: Candidate) -> float:
    generate = candidate.speed.generate
    return generate.tokens_per_s if generate is not None else 0.0


def _memory(candidate: Candidate) -> int:
    return sum(row.total_bytes for row in candidate.memory)
