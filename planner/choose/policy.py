"""Every opinion of the planner, each with its argument; the mistake it prevents is a preference hidden in code.

A candidate's score is in points of the capability index (0 to 100, see ``docs/quality.md``):

    score = trusted index x retention x context x cache type  +  credit for speed  +  credit for headroom

Over the waits that are accepted at all, the credits are worth about as much as the doubt about an index. So they decide
where the intervals of two candidates overlap clearly, and a difference well beyond the doubt cannot be bought with
speed. A pairwise rule ("within the interval the faster wins") would not be transitive and would make the order depend
on who was compared first.

What a search needs to rely on: only the credits depend on the machine, and they are bounded. So an upper bound of a
score is known before anything is asked of the engine, and more speed or more memory never lowers a score.
"""

import math
from typing import Final

from planner.types.machine import Machine
from planner.types.model import Model
from planner.types.plan import Goal, Rule, Use
from planner.types.quality import Capability, TaskGroup
from planner.types.settings import CacheType

__all__ = [
    "FEW_BITS",
    "KEEP",
    "LARGE_UBATCHES",
    "LONG_PROMPTS",
    "LOSSLESS",
    "PARETO",
    "RULES",
    "UBATCHES",
    "answer_seconds",
    "cache_factor",
    "cache_ladder",
    "context_factor",
    "contexts",
    "families_of",
    "group_of",
    "headroom_credit",
    "is_tight",
    "longest_answer_seconds",
    "reserve_bytes",
    "speed_credit",
    "trusted",
    "typical_request",
]

MIB = 1 << 20
GIB = 1 << 30

KEEP = 4
"""How many models are worked out in full; the others get a reason from a bound. A person reads no longer list."""

PARETO = 6
"""How many points the list of quality against speed and memory has at most."""

# --- The rules by name ------------------------------------------------------------------------------------------------

RULES: Final[dict[Rule, str]] = {
    "index": "the higher capability index, after what its quantization loses, is preferred",
    "equal-so-faster": "where two indices cannot be told apart, the shorter wait for an answer decides",
    "equal-so-roomier": "where two indices cannot be told apart and speed is alike, the larger headroom decides",
    "answer-time": "a model is judged by the time to a typical answer, thinking included, not by tokens/s alone",
    "speed-floor": "nothing below the speed asked for is chosen while something else meets it",
    "few-bits": "below about 3 bits a weight a smaller model at 4 bits is usually better, and the loss curves say when",
    "context": "a candidate holds the context of the use if it can, and gives up context before it gives up size",
    "language": "a language that is asked for must be one that the makers name",
    "licence": "a licence counts as commercial only where that was read",
    "family": "Qwen and DeepSeek, unless other families are named",
    "memory": "weights, cache, compute buffers and overhead fit beside the reserve, on every device",
    "engine": "what the engine refuses is no candidate",
    "same-model": "of one model the quantization and settings with the higher score stand for it",
}
"""Each rule in a sentence; ``why-not`` names the one that decided."""

LOSSLESS = 0.9985
"""A share of an index from which on a quantization counts as lossless among recipes: the difference is below what any
benchmark resolves, and otherwise BF16 would stand beside Q8_0 for a tenth of a point at twice the bytes."""

FEW_BITS = 3.2
"""Bits per weight from which on down a loss is told as the rule "few-bits"; the loss itself comes from the curves."""

# --- What is considered when the user names no family -----------------------------------------------------------------

_FAMILIES: dict[str, tuple[str, ...]] = {"qwen": ("qwen", "qwq"), "deepseek": ("deepseek",)}
"""A family that a user names, and how the names of the catalogue's families start. QwQ is Qwen's reasoning line."""

_EVERY_FAMILY = "all"


def families_of(goal: Goal) -> tuple[str, ...]:
    """The starts of family names that the goal allows; Qwen and DeepSeek when it names none, any for ``all``."""
    if _EVERY_FAMILY in goal.families:
        return ("",)
    asked = goal.families or tuple(_FAMILIES)
    return tuple(start for name in asked for start in _FAMILIES.get(name.lower(), (name.lower(),)))


# --- Context ----------------------------------------------------------------------------------------------------------

_CONTEXT: dict[Use, tuple[int, ...]] = {
    # A long chat with some pasted text; 4096 still holds a few pages and their answer.
    "chat": (8192, 4096),
    # Several source files and a diff; agents fill 32k at once.
    "code": (32768, 16384, 8192),
    # Qwen3 in thinking mode writes thousands of tokens before it answers (its cards recommend room for 32,768).
    "reasoning": (16384, 8192),
    # A report of about 100 pages; the smaller ones still hold a paper.
    "documents": (65536, 32768, 16384),
}
_CONTEXT_HALVED: dict[Use, float] = {"chat": 0.97, "code": 0.96, "reasoning": 0.97, "documents": 0.92}
"""What half the context leaves of an index. Two points of 65 for a chat, less than one size step between models of a
family (Qwen3 4B to 8B: about four), so a model gives up context before it gives up a size. Agents fill their context,
and for documents the context is half the task."""

_BEYOND_NATIVE = 0.93
"""A context beyond the native one needs YaRN, which is not applied here and costs quality on short texts: a model that
was trained for the length is preferred up to one size step."""


def contexts(goal: Goal, model: Model) -> tuple[int, ...]:
    """Context lengths per sequence to try, best first. Empty when the goal asks for more than the model has.

    A length that the user gave is never changed. Otherwise the use decides, and never beyond the native context.
    """
    if goal.context_tokens is not None:
        longest = max(model.context_native, model.context_extended or 0)
        return (goal.context_tokens,) if goal.context_tokens <= longest else ()
    return tuple(dict.fromkeys(min(tokens, model.context_native) for tokens in _CONTEXT[goal.use]))


def context_factor(goal: Goal, context_native: int, context: int) -> float:
    """What a context per sequence leaves of an index, at most 1."""
    if goal.context_tokens is not None:
        return _BEYOND_NATIVE if context > context_native else 1.0
    halvings = math.log2(max(1.0, _CONTEXT[goal.use][0] / context))
    return float(_CONTEXT_HALVED[goal.use] ** halvings)


# --- Cache types ------------------------------------------------------------------------------------------------------

_CACHE_KLD: dict[CacheType, float] = {
    "f32": 0.0,
    "f16": 0.0,
    "bf16": 0.0,
    # llama.cpp pull request 7412, Llama 3 8B: q8_0/q8_0 0.00098 against 0.00019 for f16/f16.
    "q8_0": 0.0008,
    "q5_1": 0.004,
    "q5_0": 0.006,
    # Between Q5_K_S and Q4_K_M weights; llama.cpp pull request 21551 sees 0.3 to 0.9 points of MMLU or HellaSwag lost
    # at q4_0, and the loss grows with the depth. The others are placed by their bits.
    "iq4_nl": 0.018,
    "q4_1": 0.018,
    "q4_0": 0.02,
}


_SHARE_PER_KLD = 0.7
"""exp(-0.7 x KLD) of an index survives: MMLU-Pro of Qwen3-4B falls by 3.3 of 70 points at plain 4 bits (mlx-lm's
benchmarks), where the KLD is about 0.07. So f16 to q8_0 costs nothing and q4_0 one point of 70."""


def cache_factor(cache: CacheType) -> float:
    """What a cache type leaves of an index, at most 1."""
    return math.exp(-_SHARE_PER_KLD * _CACHE_KLD[cache])


def cache_ladder(goal: Goal) -> tuple[CacheType, ...]:
    """Cache types to try, best first; a smaller one only where the one before does not fit.

    Never q8_0 first: on CPUs a quantized cache leaves the fast attention path (7.99 to 2.40 tokens/s between depth 512
    and 4k, llama.cpp pull request 26948).
    """
    return (goal.cache_type,) if goal.cache_type else ("f16", "q8_0", "q4_0")


UBATCHES: Final = (512, 256, 128)
"""Tokens of a prompt that are worked on at once, the engine's default first. Compute buffers grow with it (300 MiB of
logits for a vocabulary of 152k at 512): a smaller one comes before a smaller cache or context where they do not fit. It
costs prompts some speed and answers nothing."""

LARGE_UBATCHES: Final = (2048, 1024)
"""The same where there is room to spare on a GPU and prompts are long: weights that are read from RAM are copied once
for each micro-batch, so four times the tokens read such a prompt up to four times as fast."""

LONG_PROMPTS: Final[tuple[Use, ...]] = ("code", "documents")
"""Uses that begin with a long prompt."""


# --- Quality ----------------------------------------------------------------------------------------------------------

_GROUPS: dict[Use, TaskGroup] = {
    "chat": "chat",
    "code": "code",
    "reasoning": "reasoning",
    "documents": "documents",
}

_LOWER_QUARTILE = 0.526
"""A quarter of a normal distribution lies below mean - 0.674 sd, and the end of an 80 % interval is 1.282 sd away."""


def group_of(use: Use) -> TaskGroup:
    """The task group whose index judges a use."""
    return _GROUPS[use]


def trusted(capability: Capability) -> float:
    """The index that a candidate is credited with: the lower quartile of what is known about it.

    A model that was measured is preferred to one of equal expectation whose index was inferred from its size: being
    wrong costs the user a download. A quarter, not a tenth, so that a newer generation is not refused for being new.
    """
    return capability.index - _LOWER_QUARTILE * (capability.index - capability.low)


# --- Speed ------------------------------------------------------------------------------------------------------------

_ANSWER_TOKENS: dict[Use, int] = {"chat": 400, "code": 800, "reasoning": 800, "documents": 600}
"""A typical answer: three paragraphs, a function with its tests, a worked solution, a summary."""

_THINKING_TOKENS: dict[Use, int] = {"chat": 1500, "code": 4000, "reasoning": 8000, "documents": 1500}
"""Typical thinking before it. openPangu-Embedded-7B publishes its means: 2,484 tokens on knowledge questions (1,723
when it adapts), 48,000 to 58,000 on olympiad mathematics and contest programming; everyday questions are shorter than
exams and everyday mathematics far from an olympiad. A model whose makers publish a figure brings its own."""

_PROMPT_TOKENS: dict[Use, int] = {"chat": 300, "code": 3000, "reasoning": 400, "documents": 12_000}
"""A typical prompt: a question after some talk, two source files, a stated problem, a paper of twenty pages."""

_PATIENCE_S: dict[Use, float] = {"chat": 30.0, "code": 60.0, "reasoning": 120.0, "documents": 60.0}
"""The wait at which half of the credit for speed is left."""

_SPEED_WEIGHT = 2.0
"""The whole credit for speed, in margins (points within which two indices cannot be told apart). From the longest wait
that is accepted to a short one the credit grows by about 0.6, so that range is worth 1.2 margins; three times the speed
is worth half a margin, which is what "cannot be told apart" should cost."""

_SLOW_READING: dict[Use, float] = {"chat": 0.0, "code": 0.5, "reasoning": 0.0, "documents": 0.5}
"""What of the credit is lost when all weights of a GPU's plan stay in RAM: a long prompt is then read at the speed of
the CPU or of the bus, tens of times slower than on the card, and these uses begin with a long prompt."""

_LONGEST_ANSWER_S: dict[Use, float] = {"chat": 90.0, "code": 900.0, "reasoning": 1800.0, "documents": 600.0}
"""A wait beyond which an answer is of no use; the user's own limit replaces it. For a chat a minute and a half, for a
hard problem the half hour that somebody gives it while doing something else."""


def longest_answer_seconds(goal: Goal) -> float:
    """Seconds that a typical answer may take; never less than one without thinking takes at the speed asked for."""
    if goal.max_answer_seconds is not None:
        return goal.max_answer_seconds
    asked = _ANSWER_TOKENS[goal.use] / goal.min_tokens_per_s if goal.min_tokens_per_s > 0 else math.inf
    return max(_LONGEST_ANSWER_S[goal.use], asked)


def answer_seconds(goal: Goal, model: Model, tokens_per_s: float, *, thinking: bool) -> float:
    """Seconds to a typical answer of the use: thinking and answer tokens at the decode speed."""
    tokens = _ANSWER_TOKENS[goal.use]
    if thinking:
        typical = _THINKING_TOKENS[goal.use]
        if model.thinking_tokens is not None:
            # A published figure is about everyday questions; harder uses take as many times more as they do above.
            typical = round(model.thinking_tokens * typical / _THINKING_TOKENS["chat"])
        tokens += typical
    return tokens / tokens_per_s if tokens_per_s > 0 else math.inf


def typical_request(use: Use, *, thinking: bool = False) -> tuple[int, int]:
    """Tokens that are read and tokens that are written in a typical request of the use."""
    return _PROMPT_TOKENS[use], _ANSWER_TOKENS[use] + (_THINKING_TOKENS[use] if thinking else 0)


def speed_credit(goal: Goal, seconds: float, *, weights_in_ram: float = 0.0) -> float:
    """The credit for the wait for a typical answer, in margins: 0 to 2, half of it at the patience of the use.

    It saturates: ten times faster than fast enough is worth little. ``weights_in_ram`` is the share of the weights that
    a plan with a GPU leaves in RAM.
    """
    patience = _PATIENCE_S[goal.use]
    reading = 1.0 - _SLOW_READING[goal.use] * weights_in_ram
    return _SPEED_WEIGHT * reading * patience / (patience + seconds)


_HEADROOM = 0.1
"""Headroom counts a twentieth of what speed counts: it decides between candidates of like speed."""


def headroom_credit(share_left: float) -> float:
    """The credit for the share of memory left free, 0 to 0.1 margins."""
    return _HEADROOM * min(1.0, max(0.0, share_left))


# --- Memory -----------------------------------------------------------------------------------------------------------

_TIGHT = 0.05
"""Less than 5 % of a device left beside the reserve is called tight: one browser tab away from swapping."""


def reserve_bytes(goal: Goal, machine: Machine, *, host: bool, available_bytes: int) -> int:
    """Bytes of a device that no plan may use.

    Of RAM on a machine that others use too: 6 %, at least 512 MiB and at most 4 GiB, since what runs beside us does not
    grow with the memory. In a container, where nothing else runs: 24 MiB and 0.75 %, at most 2 GiB, for page
    tables (0.2 % of what is mapped), the kernel's own books and an estimate that is 0.5 % low; a process that holds a
    promise of 8 GiB to its last byte runs with 32 MiB beside it, one of 4 GiB with 4 (``bench/container.py``). Of a
    GPU: 3 %, at least 256 MiB, at most 1 GiB, for what a desktop and the driver take later (llama.cpp's own margin is
    1 GiB). What the process itself holds, its tokenizer too, is estimated and not part of it.
    """
    if goal.reserve_bytes is not None:
        return goal.reserve_bytes
    if not host:
        return _clamp(available_bytes * 3 // 100, 256 * MIB, GIB)
    if any(limit.limit_bytes < machine.memory.total_bytes for limit in machine.memory.limits):
        return min(24 * MIB + available_bytes * 3 // 400, 2 * GIB)
    return _clamp(machine.memory.total_bytes * 6 // 100, 512 * MIB, 4 * GIB)


def is_tight(headroom_bytes: int, available_bytes: int) -> bool:
    """Whether what is left of a device is too little to forget about."""
    return headroom_bytes < _TIGHT * available_bytes


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))
