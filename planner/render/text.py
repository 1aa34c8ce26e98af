"""The pieces of text that several documents share: a machine in two lines, settings in words, bars with numbers.

One place words them, so that a speed never stands in one document with its origin and in another without.
"""

from collections import Counter

from planner import units
from planner.render.bar import bar, legend
from planner.render.layout import INDENT, facts
from planner.render.style import Style
from planner.types.machine import Cpu, Gpu, Machine
from planner.types.plan import DeviceMemory, Speed
from planner.types.settings import Settings

__all__ = [
    "DETAILED_DEVICES",
    "finish",
    "gpu_words",
    "gpus_words",
    "machine_lines",
    "memory_lines",
    "settings_lines",
    "speed_origin",
    "speed_range",
    "speed_words",
    "tokens",
]

DETAILED_DEVICES = 2
"""Up to so many devices each get their own legend with numbers; more share one."""

_ORIGIN_WORDS = {"measured": "measured on this machine", "predicted": "predicted", "published": "published"}


def finish(lines: list[str]) -> str:
    """The lines as one text that ends with exactly one newline."""
    return "\n".join(lines).rstrip() + "\n"


def tokens(count: int) -> str:
    """A number of tokens with thousands set apart: ``8,192``."""
    return f"{count:,}"


def machine_lines(machine: Machine, style: Style) -> list[str]:
    """The machine in two lines: what computes, and what holds the weights."""
    cpu, memory = machine.cpu, machine.memory
    engine = f"engine {machine.engine.package_version}" if machine.engine else "no engine"
    named = None if machine.kind == "detected" else f"{machine.name} ({machine.kind})"
    return [
        facts([named, cpu.model or machine.architecture, _cores(cpu)], style),
        facts(
            [
                f"RAM {units.gib(memory.total_bytes)}, {units.gib(memory.usable_bytes)} usable",
                gpus_words(machine, style),
                engine,
            ],
            style,
        ),
    ]


def _cores(cpu: Cpu) -> str:
    """How many cores there are and how many of them we may use."""
    whole = cpu.physical_cores or cpu.logical_cpus
    noun = "core" if whole == 1 else "cores"
    return f"{whole} {noun}" if cpu.usable_threads == whole else f"{cpu.usable_threads} of {whole} {noun} usable"


def gpus_words(machine: Machine, style: Style) -> str:
    """All GPUs, equal ones counted: ``8 × NVIDIA H100 80 GiB``."""
    counted = Counter(gpu_words(gpu) for gpu in machine.gpus)
    words = (f"{count} {style.times} {name}" if count > 1 else name for name, count in counted.items())
    return style.dot.join(words) or "no GPU"


def gpu_words(gpu: Gpu) -> str:
    """A GPU by name with its memory."""
    shared = " (shared)" if gpu.unified_memory else ""
    return f"{gpu.name or gpu.vendor} {units.gib(gpu.memory_total_bytes)}{shared}"


def settings_lines(settings: Settings, style: Style) -> list[str]:
    """The settings in words: the context and its cache, then how weights are loaded and who computes."""
    users = f"shared by {settings.parallel} sequences" if settings.parallel > 1 else "for one sequence"
    cache: str = settings.cache_type_k
    if settings.cache_type_v != cache:
        cache = f"{cache} (K) and {settings.cache_type_v} (V)"
    gpu = None
    if settings.cpu_moe_layers:
        layers = "all" if settings.cpu_moe_layers < 0 else str(settings.cpu_moe_layers)
        gpu = f"experts of {layers} layers on the CPU"
    uncommon = _uncommon(settings)
    return [
        facts([f"{tokens(settings.context_tokens)} tokens of context {users}", f"cache in {cache}"], style),
        facts(
            [
                f"load mode {settings.load_mode}",
                None if settings.repack else "no repacking",
                f"batch {settings.batch}, ubatch {settings.ubatch}",
                f"flash attention {settings.flash_attention}",
                gpu,
            ],
            style,
        ),
        *([facts(uncommon, style)] if uncommon else []),
    ]


def _uncommon(settings: Settings) -> list[str | None]:
    """What few people set, in words, where it is not llama.cpp's default."""
    moved = len(settings.tensor_overrides)
    drafts = {
        "none": None,
        "draft-mtp": f"drafts {settings.draft_tokens} tokens with its own block",
        "draft-simple": f"a second model drafts {settings.draft_tokens} tokens",
    }
    said = (
        (settings.kv_unified, "one cache for all sequences"),
        (settings.swa_full, "whole context in window layers"),
        (settings.lazy_mode != "auto", f"lazy mode {settings.lazy_mode}"),
        (settings.split_mode != "layer", f"split mode {settings.split_mode}"),
        (settings.main_gpu > 0, f"main GPU {settings.main_gpu}"),
        (bool(settings.tensor_split), "split " + ",".join(f"{share:g}" for share in settings.tensor_split)),
        (moved > 0, f"{moved} override{'s' if moved != 1 else ''} of where tensors lie"),
        (not settings.host_buffer, "no pinned memory for weights"),
        (not settings.kv_offload, "cache on the CPU"),
        (not settings.op_offload, "no help of the GPU with weights in RAM"),
        (settings.speculation != "none", drafts[settings.speculation]),
    )
    return [words for holds, words in said if holds]


def speed_words(speed: Speed | None, style: Style) -> str:
    """Tokens per second with spread, origin and basis: ``7.42 tokens/s (7.30–7.51), measured on this machine``."""
    if speed is None:
        return "unknown"
    spread = f" ({speed_range(speed, style)})" if speed_range(speed, style) else ""
    return f"{units.rate(speed.tokens_per_s)} tokens/s{spread}, {speed_origin(speed)}"


def speed_range(speed: Speed | None, style: Style) -> str:
    """The interval of a speed, empty where it is one point."""
    if speed is None:
        return ""
    low, high = units.rate(speed.low), units.rate(speed.high)
    return f"{low}{style.dash}{high}" if low != high else ""


def speed_origin(speed: Speed | None) -> str:
    """Where a speed comes from and what it rests on."""
    if speed is None:
        return "nothing was measured or predicted"
    return f"{_ORIGIN_WORDS[speed.origin]}: {speed.basis}" if speed.basis else _ORIGIN_WORDS[speed.origin]


def memory_lines(memory: tuple[DeviceMemory, ...], style: Style) -> list[str]:
    """A bar for each device with what it holds, and the legend."""
    label = max((len(device.device) for device in memory), default=0)
    lines: list[str] = []
    for device in memory:
        lines.append(f"{INDENT}{device.device.ljust(label)}  {bar(device, style)}  {_total_words(device, style)}")
        if len(memory) <= DETAILED_DEVICES:
            lines.extend(f"{INDENT}{' ' * label}  {line}" for line in legend(device, style))
    if len(memory) > DETAILED_DEVICES:
        lines.extend(f"{INDENT}{' ' * label}  {line}" for line in legend(max(memory, key=_total), style))
    return lines


def _total(device: DeviceMemory) -> int:
    return device.total_bytes


def _total_words(device: DeviceMemory, style: Style) -> str:
    if device.available_bytes is None:
        return units.gib(device.total_bytes)
    words = f"{units.gib(device.total_bytes)} of {units.gib(device.available_bytes)}"
    headroom = device.headroom_bytes
    return words if headroom is None or headroom >= 0 else style.bad(words)
