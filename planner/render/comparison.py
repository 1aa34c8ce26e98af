"""What a runner-up does better than the choice, in a few words; silence where it does nothing better.

A difference below five percent is not called one: measured speeds repeat no better than that.
"""

from planner.types.plan import Candidate

__all__ = ["better_at"]

_NOTABLE = 1.05


def better_at(candidate: Candidate, chosen: Candidate | None) -> str:
    """The runner-up's own stated trade-off, else what the numbers say: faster, smaller, longer, more capable."""
    stated = [reason.text for reason in candidate.reasons if reason.code == "trade-off"]
    if stated:
        return stated[0]
    if chosen is None:
        return ""
    return ", ".join(word for word in _advantages(candidate, chosen) if word) or "nothing; it came close"


def _advantages(candidate: Candidate, chosen: Candidate) -> tuple[str, ...]:
    here, there = _memory(candidate), _memory(chosen)
    return (
        _faster(candidate, chosen),
        "smaller" if here * _NOTABLE < there else "",
        "longer context" if candidate.settings.context_tokens > chosen.settings.context_tokens else "",
        "less quantization loss" if _same_but_larger(candidate, chosen) else "",
        "more capable" if candidate.score > chosen.score * _NOTABLE else "",
    )


def _faster(candidate: Candidate, chosen: Candidate) -> str:
    here, there = candidate.speed.generate, chosen.speed.generate
    if here is None or there is None or here.tokens_per_s <= there.tokens_per_s * _NOTABLE:
        return ""
    return f"{here.tokens_per_s / there.tokens_per_s:.1f} times as fast"


def _same_but_larger(candidate: Candidate, chosen: Candidate) -> bool:
    return candidate.model == chosen.model and candidate.file_bytes > chosen.file_bytes * _NOTABLE


def _memory(candidate: Candidate) -> int:
    return sum(memory.total_bytes for memory in candidate.memory)
