"""Last touches on a candidate that already won its place: load mode, micro-batch, the longest context.

They change settings and hardly the score, so they come after the search; the mistake it prevents is a search that asks
twice as many questions for something that cannot change its answer.
"""

import msgspec

from planner.choose import policy
from planner.choose.inquiry import Inquiry, Option
from planner.types.estimate import Estimate
from planner.types.plan import Candidate, Goal, Reason

__all__ = ["larger_ubatch", "longest_context", "mapped_where_free"]


def mapped_where_free(inquiry: Inquiry, goal: Goal, option: Option, candidate: Candidate) -> Candidate:
    """The same candidate memory-mapped, where nothing is repacked and mapping costs no more memory.

    Mapped weights load at once, are shared between processes and can be dropped under pressure. Where weights are
    repacked, mapping would hold them twice.
    """
    if goal.load_mode is not None or candidate.settings.load_mode != "none":
        return candidate
    if any(row.weights_repacked_bytes > 0 for row in candidate.memory):
        return candidate
    mapped = inquiry.ask(option, msgspec.structs.replace(candidate.settings, load_mode="mmap"))
    if mapped.judged is None or not isinstance(mapped.estimate, Estimate):
        return candidate
    total = sum(row.total_bytes for row in candidate.memory)
    if mapped.judged.verdict != candidate.verdict or mapped.judged.needed_bytes > total:
        return candidate
    return inquiry.candidate(option, mapped) or candidate


def larger_ubatch(inquiry: Inquiry, option: Option, candidate: Candidate) -> Candidate:
    """The same candidate with the largest micro-batch for long prompts that its devices hold without getting tight.

    Its score stays that of the settings it won with: room that is used for prompts is no fault.
    """
    for ubatch in policy.LARGE_UBATCHES:
        settings = msgspec.structs.replace(candidate.settings, ubatch=ubatch)
        larger = inquiry.ask(option, settings)
        if larger.judged is None or not isinstance(larger.estimate, Estimate):
            continue
        if larger.judged.verdict == candidate.verdict == "fits":
            sentence = f"prompts are read {ubatch} tokens at a time: the GPU has the room, and long ones gain"
            reasons = (
                *(larger.judged.reason if reason.code == "fits" else reason for reason in candidate.reasons),
                Reason(code="trade-off", text=sentence, rule="memory"),
            )
            return msgspec.structs.replace(
                candidate,
                settings=settings,
                memory=larger.judged.memory,
                speed=larger.estimate.speed,
                reasons=reasons,
            )
    return candidate


def longest_context(inquiry: Inquiry, goal: Goal, option: Option, winner: Candidate) -> list[Candidate]:
    """The winner with the longest context, by doubling, that its model has and this machine holds.

    Empty when the user gave the context, or when twice as much does not fit.
    """
    if goal.context_tokens is not None:
        return []
    longest: list[Candidate] = []
    tokens = 2 * winner.settings.context_tokens // goal.parallel
    while tokens <= option.model.context_native:
        settings = msgspec.structs.replace(winner.settings, context_tokens=tokens * goal.parallel)
        placed = inquiry.ask(option, settings)
        if placed.judged is None or placed.judged.verdict not in {"fits", "tight"}:
            break
        found = inquiry.candidate(option, placed)
        longest = longest if found is None else [found]
        tokens *= 2
    return longest
