"""What an option cannot reach, by arithmetic and by what others of its model showed; so that nobody is asked in vain.

Every bound is on the safe side: what it rules out, the engine would have ruled out too. The mistake it prevents is a
shortcut that changes the answer.
"""

from typing import NamedTuple

from planner.choose import candidates
from planner.choose.appraisal import Appraiser
from planner.choose.evaluation import Considered
from planner.choose.inquiry import Inquiry, Option
from planner.types.machine import Machine
from planner.types.plan import Goal, Reason, Verdict
from planner.types.settings import Settings
from planner.units import gib, rate

__all__ = ["Bounds", "Hopeless", "is_split"]

_LIGHTER_TYPE_GAIN = 2.0
"""Most that a lighter tensor type gains per byte on a CPU: Q4_0 over Q6_K, 1.7 on an Ampere Altra."""
_LIGHTER_TYPE_GAIN_ON_GPU = 1.25
"""The same on a GPU, which waits for its memory and not for unpacking: one share of bandwidth fits all types."""


class Hopeless(NamedTuple):
    """A verdict that needs no question, with its reason."""

    verdict: Verdict
    reason: Reason
    needed_bytes: int | None = None


class Bounds:
    """The bounds of one search; they tighten as :class:`Inquiry` learns."""

    def __init__(self, goal: Goal, machine: Machine, inquiry: Inquiry, appraiser: Appraiser) -> None:
        self._goal = goal
        self._machine = machine
        self._inquiry = inquiry
        self._appraiser = appraiser
        self._memory_bytes = candidates.memory_bound(goal, machine)
        self._on_gpu = candidates.gpu_is_used(machine)

    def score(self, option: Option) -> float:
        """The most that an option can score: with the best settings, as fast as it can be by what is known now."""
        step = candidates.ladder(self._goal, option.model)[0]
        return self._inquiry.bound(option, step, self._fastest(option))

    def too_big(self, option: Option) -> Hopeless | None:
        """Whether weights and the smallest cache that was seen for this model exceed all memory there is."""
        least = candidates.least_bytes(option.model, option.quantization)
        lowest = candidates.ladder(self._goal, option.model)[-1]
        cache = self._inquiry.least_cache_bytes(option.model, lowest)
        if self._memory_bytes is None or least + cache <= self._memory_bytes:
            return None
        text = (
            f"needs at least {gib(least)} for its weights, and this machine has {gib(self._memory_bytes)} for weights "
            "and context in all"
        )
        return Hopeless("too-big", Reason(code="too-big", text=text, rule="memory"), least)

    def too_slow(self, option: Option) -> Hopeless | None:
        """Whether what was too slow with a heavier recipe cannot be fast enough with this one."""
        reach, floor = self._fastest(option), self._appraiser.least_tokens_per_s(option.model)
        if reach >= floor:
            return None
        text = f"memory and what its heavier quantizations showed allow {rate(reach)} tokens/s at most; "
        if floor > self._goal.min_tokens_per_s:
            text += f"answers in time need {rate(floor)}"
            return Hopeless("too-slow", Reason(code="answer-too-late", text=text, rule="answer-time"))
        text += f"{rate(floor)} are asked for"
        return Hopeless("too-slow", Reason(code="too-slow", text=text, rule="speed-floor"))

    def _fastest(self, option: Option) -> float:
        """The most tokens per second that a recipe can reach, by bandwidth and by others of its model.

        Time per token grows with the bytes read, and no lighter type is read more than twice as fast per byte. A split
        over GPU and CPU says nothing: fewer bytes may move whole layers to the GPU.
        """
        least = candidates.least_bytes(option.model, option.quantization)
        known = [
            (entry.tokens_per_s, entry.file_bytes)
            for entry in self._inquiry.noted(option.model)
            if entry.tokens_per_s and entry.file_bytes and self._is_whole(entry)
        ]
        gain = _LIGHTER_TYPE_GAIN_ON_GPU if self._on_gpu else _LIGHTER_TYPE_GAIN
        physics = candidates.most_tokens_per_s(self._machine, *option)
        return min([physics, *(gain * speed * max(1.0, size / least) for speed, size in known)])

    def _is_whole(self, entry: Considered) -> bool:
        return not self._on_gpu or (entry.settings is not None and not is_split(entry.settings))


def is_split(settings: Settings) -> bool:
    """Whether settings for a GPU leave layers or experts to the CPU."""
    return settings.gpu_layers != -1 or settings.cpu_moe_layers != 0
