"""Every opinion of the planner, each with its argument; the mistake it prevents is a preference hidden in code.

A candidate's score has the unit "effective parameters": the size of a dense Qwen2.5 model that would be about as
capable. It is a product of factors so that "what decided?" always has an answer. The score is provisional: a fitted
capability index will replace :func:`factors` and nothing else.

What a search needs to rely on: no factor except :func:`speed_factor` depends on the machine, and speed can only lower
a score, never raise it. So a score is an upper bound before anything is asked of the engine.
"""

import math
from typing import NamedTuple

from planner.types.machine import Machine
from planner.types.model import Model, Quantization
from planner.types.plan import Goal, Use
from planner.types.settings import CacheType

__all__ = [
    "KEEP",
    "Factors",
    "cache_ladder",
    "contexts",
    "factors",
    "families_of",
    "is_tight",
    "loss",
    "reserve_bytes",
    "speed_factor",
]

MIB = 1 << 20
GIB = 1 << 30

KEEP = 6
"""How many models are worked out in full; the others get a reason from a bound. A person reads no longer list."""

# --- What is considered when the user names no family -----------------------------------------------------------------

_FAMILIES: dict[str, tuple[str, ...]] = {"qwen": ("qwen", "qwq"), "deepseek": ("deepseek",)}
"""A family that a user names, and how the names of the catalogue's families start. QwQ is Qwen's reasoning line."""


def families_of(goal: Goal) -> tuple[str, ...]:
    """The starts of family names that the goal allows; Qwen and DeepSeek when it names none."""
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
_CONTEXT_WEIGHT: dict[Use, float] = {"chat": 0.25, "code": 0.25, "reasoning": 0.25, "documents": 0.5}
"""Half the context is worth 2^-0.25 = 84 % of a model: less than one size step (about 1/2), so a model gives up
context before it gives up a size. For documents the context is half the task: 71 %."""

_BEYOND_NATIVE = 0.5
"""A context beyond the native one needs YaRN, which costs quality on short texts and is not applied here. A model that
was trained for the length is preferred up to half the size."""


def contexts(goal: Goal, model: Model) -> tuple[int, ...]:
    """Context lengths per sequence to try, best first. Empty when the goal asks for more than the model has.

    A length that the user gave is never changed. Otherwise the use decides, and never beyond the native context.
    """
    if goal.context_tokens is not None:
        longest = max(model.context_native, model.context_extended or 0)
        return (goal.context_tokens,) if goal.context_tokens <= longest else ()
    return tuple(dict.fromkeys(min(tokens, model.context_native) for tokens in _CONTEXT[goal.use]))


def _context_factor(goal: Goal, model: Model, context: int) -> float:
    if goal.context_tokens is not None:
        return _BEYOND_NATIVE if context > model.context_native else 1.0
    return float(min(1.0, context / _CONTEXT[goal.use][0]) ** _CONTEXT_WEIGHT[goal.use])


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


def cache_ladder(goal: Goal) -> tuple[CacheType, ...]:
    """Cache types to try, best first; a smaller one only where the one before does not fit.

    Never q8_0 first: on CPUs a quantized cache leaves the fast attention path (7.99 to 2.40 tokens/s between depth 512
    and 4k, llama.cpp pull request 26948).
    """
    return (goal.cache_type,) if goal.cache_type else ("f16", "q8_0", "q4_0")


# --- Quality ----------------------------------------------------------------------------------------------------------

_EXPERTS = 2 / 3
"""A mixture counts as total^(2/3) × active^(1/3). The Qwen team puts Qwen1.5-MoE-A2.7B (14.3 B, 2.4 B active without
embedding) level with Qwen1.5-7B: the formula says 7.9. It puts Qwen3-30B-A3B level with Qwen3-14B (Qwen3 report,
"one fifth of the active parameters"): 14.1. The geometric mean says 5.8 and 9.6, too little both times."""

_GENERATION_OF_ONE = 2.5
_DOUBLES_EVERY = 0.5
"""Half a number on Qwen's scale doubles the effective size: Qwen3-1.7B/4B/8B/14B/32B-Base match
Qwen2.5-3B/7B/14B/32B/72B-Base (Qwen3 release note), ratios 1.8 to 2.2; Qwen2.5-3B matches Qwen2-7B, ratio 2.5."""

_LOSS_PER_KLD = 5.0
"""exp(-5 × KLD) of the effective size survives quantization. MMLU-Pro of Qwen3-4B falls by 3.3 points at plain 4 bits
and of Qwen3-30B-A3B by 1.9 (mlx-lm's benchmarks); between those two models a point is worth 0.147 natural logarithms
of effective size; at a KLD of 0.072 (Q4_0, llama.cpp's perplexity notes) that is 6.8 and 3.9 per unit. So Q4_K_M keeps
86 to 88 %, Q3_K_M 60 to 66 %, and two bits 20 %: never a 2-bit 70B over a good 32B."""

_LOSSLESS_KLD = 0.002
"""Below this nobody sees a difference: F16 itself stands at 0.0006 against BF16 and Q8_0 at 0.0014 (Llama 3 8B), while
MMLU-Pro at 8 bits is within 0.2 points. Otherwise F16 would beat Q8_0 for a third decimal at twice the bytes."""

_UNKNOWN_KLD_AT_0_BITS = 30.0
_UNKNOWN_KLD_PER_BIT = 1.31
"""Where nobody measured a type: 30 × exp(-1.31 × bits), the line through IQ1_S and Q6_K of Llama 3 8B, which lies above
most of the others. Unmeasured counts as slightly worse than its neighbours."""

_CODER = 2.0
"""A coder model counts double for code: on the Artificial Analysis index of May 2026 Qwen3-Coder-30B-A3B has 38 where
Qwen3-30B-A3B has 32 and Qwen3-32B 37, so specialising was worth the step from 14 to 33 effective billions, 2.3."""
_NOT_MADE_FOR = 0.5
"""A model whose makers do not name the use is taken only where the alternative is half its size."""
_THINKS = 4.0
"""Thinking counts four times for reasoning: Qwen3-4B thinking is level with Qwen3-32B not thinking on GPQA-Diamond
(55.9 and 54.6, Qwen3 report), a ratio of 8 in size; four is the careful side."""
_ALWAYS_THINKS: dict[Use, float] = {"chat": 0.5, "documents": 0.5, "code": 0.7}
"""A model that cannot stop thinking makes a chat wait for thousands of tokens; at 10 tokens/s that is minutes."""


class Factors(NamedTuple):
    """The product that is the score, factor by factor; only ``parameters`` has a unit."""

    parameters: float
    generation: float
    use: float
    loss: float
    context: float
    cache: float

    @property
    def score(self) -> float:
        """Effective parameters."""
        return math.prod(self)


def factors(goal: Goal, model: Model, quantization: Quantization, context: int, cache: CacheType) -> Factors:
    """Every factor of a candidate's score."""
    return Factors(
        parameters=_effective_parameters(model),
        generation=_doublings(model),
        use=_use_factor(goal.use, model),
        loss=loss(quantization),
        context=_context_factor(goal, model, context),
        cache=math.exp(-_LOSS_PER_KLD * _CACHE_KLD[cache]),
    )


def loss(quantization: Quantization) -> float:
    """The share of a model's effective size that survives a quantization, 1 for a lossless one."""
    kld = quantization.kld
    if kld is None:
        kld = _UNKNOWN_KLD_AT_0_BITS * math.exp(-_UNKNOWN_KLD_PER_BIT * quantization.bits_per_weight)
    return math.exp(-_LOSS_PER_KLD * max(0.0, kld - _LOSSLESS_KLD))


def _effective_parameters(model: Model) -> float:
    return float(model.parameters**_EXPERTS * model.parameters_active ** (1 - _EXPERTS))


def _doublings(model: Model) -> float:
    return float(2.0 ** ((model.generation - _GENERATION_OF_ONE) / _DOUBLES_EVERY))


def _use_factor(use: Use, model: Model) -> float:
    if use == "code" and "coder" in model.family.lower():
        return _CODER
    made_for = 1.0 if use in model.uses or not model.uses else _NOT_MADE_FOR
    if use == "reasoning":
        return made_for * (_THINKS if model.thinking != "none" else 1.0)
    return made_for * (_ALWAYS_THINKS[use] if model.thinking == "always" else 1.0)


# --- Speed ------------------------------------------------------------------------------------------------------------

_HALF_SPEED: dict[Use, float] = {"chat": 4.0, "code": 4.0, "documents": 4.0, "reasoning": 8.0}
"""Speed counts as s ÷ (s + 4): 0.67 at 8 tokens/s (a fast reader's pace), 0.83 at 20, 0.91 at 40. It decides between
near-equals (a model that leaves the GPU for a better quantization and halves its speed loses) and saturates: no speed
is worth more than half again of a model that is fast enough. Thousands of thinking tokens are waited for, so speed
weighs twice for reasoning. It is smooth on purpose; "within 10 % the faster wins" is not transitive and would make the
order depend on who was compared first."""


def speed_factor(tokens_per_s: float | None, goal: Goal) -> float:
    """What speed leaves of a score, below 1; an unknown speed counts as just what was asked for."""
    speed = goal.min_tokens_per_s if tokens_per_s is None else tokens_per_s
    return speed / (speed + _HALF_SPEED[goal.use]) if speed > 0 else 0.0


# --- Memory -----------------------------------------------------------------------------------------------------------

_TOKENIZER_BYTES = 64 * MIB
"""A real file's tokenizer, which a phantom does not have: up to 60 MiB for 262k tokens."""
_TIGHT = 0.05
"""Less than 5 % of a device left beside the reserve is called tight: one browser tab away from swapping."""


def reserve_bytes(goal: Goal, machine: Machine, *, host: bool, available_bytes: int) -> int:
    """Bytes of a device that no plan may use.

    Of RAM on a machine that others use too: 6 %, at least 512 MiB and at most 4 GiB, since what runs beside us does not
    grow with the memory. In a container, where nothing else runs: 3 %, at least 128 MiB and at most 2 GiB. Both plus
    the tokenizer; page tables (0.2 % of what is mapped) are inside. Of a GPU: 3 %, at least 256 MiB, at most 1 GiB,
    for what a desktop and the driver take later (llama.cpp's own margin is 1 GiB).
    """
    if goal.reserve_bytes is not None:
        return goal.reserve_bytes
    if not host:
        return _clamp(available_bytes * 3 // 100, 256 * MIB, GIB)
    if any(limit.limit_bytes < machine.memory.total_bytes for limit in machine.memory.limits):
        return _TOKENIZER_BYTES + _clamp(available_bytes * 3 // 100, 128 * MIB, 2 * GIB)
    return _TOKENIZER_BYTES + _clamp(machine.memory.total_bytes * 6 // 100, 512 * MIB, 4 * GIB)


def is_tight(headroom_bytes: int, available_bytes: int) -> bool:
    """Whether what is left of a device is too little to forget about."""
    return headroom_bytes < _TIGHT * available_bytes


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))
