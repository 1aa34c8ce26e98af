"""What the goal allows, in a fixed order, and what certainly cannot fit, before the engine is asked.

The mistake it prevents is asking an engine about 50 models × 28 quantizations × settings: a model that needs more than
all memory at the lightest tensor type of its recipe is out by arithmetic alone.
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from planner.choose import policy
from planner.estimate.speed import Kernel, kernel_of
from planner.types.machine import Machine
from planner.types.model import Model, Quantization
from planner.types.plan import DeviceMemory, Goal, Reason
from planner.types.settings import CacheType, LoadMode, Settings

__all__ = [
    "Kept",
    "Step",
    "base_settings",
    "better_recipe",
    "cache_share",
    "gpu_is_used",
    "ladder",
    "least_bytes",
    "least_weights",
    "memory_bound",
    "most_tokens_per_s",
    "recipes",
    "screen",
    "suits",
]


Kept = Callable[[Quantization], float]
"""The share of a model's index that survives a quantization."""


class Step(NamedTuple):
    """One rung of the settings ladder: context per sequence, cache type, and tokens of a prompt worked on at once."""

    context: int
    cache: CacheType
    ubatch: int = policy.UBATCHES[0]


def screen(goal: Goal, model: Model) -> Reason | None:
    """Why the goal excludes a model whatever its size, or ``None``: fixed model, family, licence, context."""
    if goal.model is not None and model.id != goal.model:
        return Reason(code="not-for-this-use", text=f"the goal names {goal.model}", rule="family")
    if goal.model is None and not model.family.lower().startswith(policy.families_of(goal)):
        wanted = ", ".join(goal.families) or "Qwen and DeepSeek"
        text = f"the family {model.family} is not among those asked for ({wanted})"
        return Reason(code="family", text=text, rule="family")
    if goal.commercial_license and model.license.commercial is not True:
        return Reason(code="licence", text=_licence(model), rule="licence")
    foreign = [language for language in goal.languages if not model.speaks(language)]
    if foreign:
        return Reason(code="language", text=_language(model, foreign), rule="language")
    if not policy.contexts(goal, model):
        return Reason(code="context-too-long", text=_too_long(goal, model), rule="context")
    return None


def _licence(model: Model) -> str:
    if model.license.commercial is None:
        return f"its licence ({model.license.id}) was not confirmed to allow commercial use"
    return f"its licence ({model.license.id}) does not allow commercial use"


def _language(model: Model, foreign: list[str]) -> str:
    names = ", ".join(foreign)
    if any(model.speaks(language) is None for language in foreign):
        return f"its makers do not say whether it speaks {names}"
    return f"its makers do not name {names} among its languages"


def _too_long(goal: Goal, model: Model) -> str:
    longest = f"{model.context_native} tokens"
    if model.context_extended is not None and model.context_extended > model.context_native:
        longest += f" ({model.context_extended} with YaRN)"
    return f"its context ends at {longest}, and {goal.context_tokens} are asked for"


def recipes(goal: Goal, model: Model, quantizations: Iterable[Quantization], kept: Kept) -> tuple[Quantization, ...]:
    """The quantizations worth trying for a model, least loss first, then fewest bits, then by name.

    One that the goal names is taken as it is. Of the others those are left out that a better one makes pointless (see
    :func:`better_recipe`).
    """
    named = goal.quantization.upper() if goal.quantization is not None else None
    allowed = [q for q in quantizations if named in {None, q.name.upper()} and suits(model, q)]
    if named is None:
        allowed = [q for q in allowed if better_recipe(q, allowed, kept) is None]
    return tuple(sorted(allowed, key=lambda q: _recipe_key(q, kept)))


def suits(model: Model, quantization: Quantization) -> bool:
    """Whether a recipe makes sense for a model at all: some are for mixtures of experts only."""
    return not (quantization.moe_only and model.parameters_active >= model.parameters)


def better_recipe(quantization: Quantization, others: Iterable[Quantization], kept: Kept) -> Quantization | None:
    """A recipe that loses no more, takes no more bits (within 1 %) and is unpacked no slower; ``None`` if none does.

    Q8_0 makes F16 pointless, Q5_K_M makes Q5_1 pointless. Q4_0 stays: CPUs unpack it faster than anything as small.
    """
    better = [other for other in others if other.name != quantization.name and _dominates(other, quantization, kept)]
    return min(better, key=lambda q: _recipe_key(q, kept), default=None)


def _dominates(better: Quantization, worse: Quantization, kept: Kept) -> bool:
    if better.bits_per_weight > 1.01 * worse.bits_per_weight or kept(better) < kept(worse):
        return False
    if _KERNELS.index(kernel_of(better.name)) > _KERNELS.index(kernel_of(worse.name)):
        return False
    # Of two that dominate each other the first in the order of recipes stays.
    mutual = worse.bits_per_weight <= 1.01 * better.bits_per_weight and kept(worse) >= kept(better)
    same_kernel = kernel_of(better.name) == kernel_of(worse.name)
    return not (mutual and same_kernel) or _recipe_key(better, kept) < _recipe_key(worse, kept)


def _recipe_key(quantization: Quantization, kept: Kept) -> tuple[float, float, str]:
    return (-kept(quantization), quantization.bits_per_weight, quantization.name)


_KERNELS: tuple[Kernel, ...] = ("plain", "k4", "k56", "k23", "codebook")
"""Kernels from the fastest per byte to the slowest, on a CPU core (see ``planner.estimate.speed``)."""


def ladder(goal: Goal, model: Model) -> tuple[Step, ...]:
    """Context, cache type and micro-batch to try, the best first; no later rung has more quality than one before.

    A smaller micro-batch only reads prompts more slowly, so it comes before a smaller cache type.
    """
    return _ladder(goal, policy.contexts(goal, model), model.context_native)


@functools.lru_cache(maxsize=256)
def _ladder(goal: Goal, contexts: tuple[int, ...], context_native: int) -> tuple[Step, ...]:
    steps = [
        Step(context, cache, ubatch)
        for context in contexts
        for cache in policy.cache_ladder(goal)
        for ubatch in policy.UBATCHES
    ]

    def worth(step: Step) -> float:
        return policy.context_factor(goal, context_native, step.context) * policy.cache_factor(step.cache)

    return tuple(sorted(steps, key=worth, reverse=True))


_CACHE_BITS: dict[CacheType, float] = {
    "f32": 32.0,
    "f16": 16.0,
    "bf16": 16.0,
    "q8_0": 8.5,
    "q5_1": 6.0,
    "q5_0": 5.5,
    "q4_1": 5.0,
    "q4_0": 4.5,
    "iq4_nl": 4.5,
}
"""Bits per value of each cache type: the block sizes of ggml's types."""


def cache_share(step: Step, of: Step) -> float:
    """The cache of a rung over that of another one, at least: what grows with context and bits does, the rest stays."""
    return (step.context * _CACHE_BITS[step.cache]) / (of.context * _CACHE_BITS[of.cache])


def least_bytes(model: Model, quantization: Quantization) -> int:
    """Bytes below which the weights cannot be, whatever the recipe does with single tensors.

    A recipe's published bits per weight are an average over one model. Its lightest tensor type is at most 10 % lighter
    from 4.4 bits on (Q4_K 4.5 of 4.9, Q8_0 8.5 of 8.5) and at most 25 % below (IQ1_S 1.56 of 2.0); nothing is lighter
    than 1.5 bits.
    """
    share = 0.9 if quantization.bits_per_weight >= 4.4 else 0.75
    return int(model.parameters * max(1.5, share * quantization.bits_per_weight) / 8)


def least_weights(row: DeviceMemory) -> int:
    """Weight bytes of a device whatever the load mode: a repacked copy beside the mapped file can be done without."""
    return row.weights_bytes - (row.weights_repacked_bytes if row.weights_mapped_bytes else 0)


_BEYOND_PEAK = 1.25
"""Room for a bandwidth that is stated too low, and for what stays in a cache."""


def most_tokens_per_s(machine: Machine, model: Model, quantization: Quantization) -> float:
    """Tokens per second that cannot be exceeded: each one reads the active weights from where they can be at best.

    What does not fit the GPUs is read from RAM; of a mixture those are experts, of which a token reads few. Infinite
    where the bandwidth or the size of a device that may be used is unknown.
    """
    gpus = machine.gpus if gpu_is_used(machine) else ()
    ram = machine.memory.bandwidth_bytes_per_s
    rates = [gpu.bandwidth_bytes_per_s for gpu in gpus]
    sizes = [gpu.memory_total_bytes for gpu in gpus]
    if ram is None or None in rates or None in sizes:
        return math.inf
    least = least_bytes(model, quantization)
    read = least * model.parameters_active / model.parameters
    fastest = max([ram, *(rate for rate in rates if rate is not None)])
    in_ram = 0.0
    if gpus and not any(gpu.unified_memory for gpu in gpus):
        outside = max(0, least - sum(size for size in sizes if size is not None))
        in_ram = min(read, outside * _least_active_share(model))
    return _BEYOND_PEAK / (in_ram / ram + max(1.0, read - in_ram) / fastest)


def _least_active_share(model: Model) -> float:
    """The smallest share of any part of a model that a token reads: of experts those it is routed to."""
    experts, used = model.size("n_expert"), model.size("n_expert_used")
    return used / experts if experts and used else model.parameters_active / model.parameters


def memory_bound(goal: Goal, machine: Machine) -> int | None:
    """All bytes that a model could ever use here beside the reserves; ``None`` when a GPU's memory is unknown.

    Memory that CPU and GPU share is counted once.
    """
    gpus = machine.gpus if gpu_is_used(machine) else ()
    usable = machine.memory.usable_bytes
    host = usable - policy.reserve_bytes(goal, machine, host=True, available_bytes=usable)
    rooms = []
    for gpu in gpus:
        size = gpu.memory_total_bytes
        if size is None:
            return None
        rooms.append(size - policy.reserve_bytes(goal, machine, host=gpu.unified_memory, available_bytes=size))
    if gpus and all(gpu.unified_memory for gpu in gpus):
        return max(host, *rooms)
    return host + sum(rooms)


def gpu_is_used(machine: Machine) -> bool:
    """Whether layers can go to a GPU: there is one, and the engine that was asked (if any) can offload."""
    return bool(machine.gpus) and (machine.engine is None or machine.engine.gpu_offload)


def base_settings(goal: Goal, machine: Machine, step: Step, *, load_mode: LoadMode, gpu_layers: int) -> Settings:
    """The settings of a rung of the ladder: the whole context of all sequences, one thread per usable core.

    On a CPU the logits of one token for each sequence are planned: that is what llama-server reserves, and of what
    ``Llama()`` reserves the rest is never written. A GPU allocates what is reserved, so there the whole counts.
    """
    threads = max(1, machine.cpu.usable_threads)
    return Settings(
        context_tokens=step.context * goal.parallel,
        parallel=goal.parallel,
        outputs_max=0 if gpu_is_used(machine) else goal.parallel,
        cache_type_k=step.cache,
        cache_type_v=step.cache,
        ubatch=step.ubatch,
        load_mode=goal.load_mode or load_mode,
        gpu_layers=gpu_layers,
        threads=threads,
        threads_batch=threads,
    )
