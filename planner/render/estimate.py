"""One candidate's memory as text: every part on every device, what the device offers, and the verdict."""

from collections.abc import Callable, Iterator, Sequence

from planner import units
from planner.render.layout import INDENT, bullets, columns, labelled, section
from planner.render.style import PLAIN, Style
from planner.render.text import finish, memory_lines, settings_lines, speed_range, speed_words, tokens
from planner.render.untrusted import cleaned
from planner.types.plan import Candidate, DeviceMemory, Speed, Verdict

__all__ = ["estimate_text", "verdict_words"]

_DEVICES_ABREAST = 6

_ROWS: tuple[tuple[str, Callable[[DeviceMemory], int | None]], ...] = (
    ("weights", lambda memory: memory.weights_bytes),
    ("  mapped from the file", lambda memory: memory.weights_mapped_bytes),
    ("  repacked, a second copy", lambda memory: memory.weights_repacked_bytes),
    ("  read into buffers", lambda memory: memory.weights_private_bytes),
    ("cache of the context", lambda memory: memory.cache_bytes),
    ("compute buffers", lambda memory: memory.compute_bytes),
    ("overhead", lambda memory: memory.overhead_bytes),
    ("  output buffer", lambda memory: memory.output_bytes),
    ("  kernel work space", lambda memory: memory.work_bytes),
    ("  process and driver", lambda memory: memory.process_bytes),
    ("  draft, projector", lambda memory: memory.companion_bytes),
    ("  saved by a server", lambda memory: memory.server_bytes),
    ("  margin", lambda memory: memory.margin_bytes),
    ("total", lambda memory: memory.total_bytes),
    ("available", lambda memory: memory.available_bytes),
    ("kept in reserve", lambda memory: memory.reserve_bytes),
    ("left over", lambda memory: memory.headroom_bytes),
)

_RARE = ("  draft, projector", "  saved by a server", "  margin")


def estimate_text(candidate: Candidate, style: Style = PLAIN) -> str:
    """What the candidate needs on each device and whether that fits."""
    candidate = cleaned(candidate)
    title = f"{candidate.model} {candidate.quantization}, {units.gib(candidate.file_bytes)} of weights"
    lines = [style.heading(title)]
    lines += [f"{INDENT}{line}" for line in settings_lines(candidate.settings, style)]
    lines.append("")
    for start in range(0, len(candidate.memory), _DEVICES_ABREAST):
        lines += section("Memory", _table(candidate.memory[start : start + _DEVICES_ABREAST]), style)
    lines += [*memory_lines(candidate.memory, style), ""]
    lines += labelled("Speed", list(_speeds(candidate, style)))
    lines += labelled("Verdict", [verdict_words(candidate, style)])
    lines += bullets([reason.text for reason in candidate.reasons], style)
    return finish(lines)


def _speeds(candidate: Candidate, style: Style) -> Iterator[str]:
    """Decode with where it comes from; the others, which rest on the same, in short."""
    speeds = candidate.speed
    if speeds.generate is None:
        return
    yield f"generate {speed_words(speeds.generate, style)}"
    for told in (speeds.generate_at_depth, speeds.generate_full):
        if told is not None:
            yield f"after {tokens(told.at_context_tokens)} tokens {_short(told, style)}"
    if speeds.generate_together is not None:
        yield f"each of {candidate.settings.parallel} at once {_short(speeds.generate_together, style)}"
    if speeds.prompt is not None:
        yield f"read a prompt {_short(speeds.prompt, style)}"
    if speeds.first_token_s is not None:
        half = candidate.settings.context_tokens // candidate.settings.parallel // 2
        yield f"first token after a prompt of {tokens(half)}: {units.duration(speeds.first_token_s)}"


def _short(speed: Speed, style: Style) -> str:
    return f"{units.rate(speed.tokens_per_s)} tokens/s ({speed_range(speed, style)})"


def verdict_words(candidate: Candidate, style: Style) -> str:
    """The verdict in words, with how much is missing where something is."""
    words = _VERDICTS[candidate.verdict]
    if candidate.verdict == "too-big":
        words += "".join(f"; {_missing(device)}" for device in candidate.memory if (device.headroom_bytes or 0) < 0)
    paint = {"fits": style.good, "tight": style.warn}.get(candidate.verdict, style.bad)
    return paint(words)


_VERDICTS: dict[Verdict, str] = {
    "fits": "fits",
    "tight": "fits, with little to spare",
    "too-big": "does not fit",
    "too-slow": "fits, but is too slow for the goal",
    "unsupported": "this engine cannot run it",
}


def _missing(device: DeviceMemory) -> str:
    return f"{device.device} lacks {units.gib(-(device.headroom_bytes or 0))}"


def _table(devices: Sequence[DeviceMemory]) -> list[str]:
    values = [(name, [value(device) for device in devices]) for name, value in _ROWS]
    # Of the parts only those that are there: most deployments have no draft, and no server's memory.
    rows = [(name, *map(_cell, cells)) for name, cells in values if any(cells) or name not in _RARE]
    header = ("", *(device.device for device in devices))
    return columns(header, rows, right=tuple(range(1, len(header))))


def _cell(value: int | None) -> str:
    return "0" if value == 0 else units.gib(value)
