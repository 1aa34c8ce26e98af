"""What a candidate takes of each device beside what the device offers, as one bar of parts for each.

Every bar is drawn to its own device: a card of 24 GiB beside 768 GiB of RAM would be a speck otherwise. Parts differ
by pattern as well as by colour, stand in the order of the table, and what is wide enough says its name.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from planner import units
from planner.render.bar import SEGMENTS, parts
from planner.render.report.drawing import COLOURS, Size, shortened
from planner.types.plan import DeviceMemory

__all__ = ["memory_height", "paint_memory"]

_HATCHES = {"overhead": "---", "server": "\\\\\\", "reserve": "///", "compute": "xxx", "cache": "|||"}
_DARK = {"reserve", "free"}
_PIXELS_A_LETTER = 7.2


def memory_height(devices: Sequence[DeviceMemory], *, narrow: bool) -> int:
    """The height in pixels for that many bars with a legend below."""
    return (74 if narrow else 58) * len(devices) + (150 if narrow else 110)


def paint_memory(figure: Figure, size: Size, devices: Sequence[DeviceMemory]) -> None:
    """A bar for each device, the first on top, in per cent of what it offers; a line marks that end."""
    axes = figure.subplots()
    axes.grid(visible=False, axis="y")
    widest = 100.0
    for row, device in enumerate(devices):
        widest = max(widest, _bar(axes, row, device, size))
    axes.axvline(100, color=COLOURS.ink, linewidth=1.6)
    axes.set_ylim(len(devices) - 0.45, -0.85)
    axes.set_xlim(0, widest * 1.004)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("% of what the device offers")
    present = {
        segment.name for device in devices for segment, part in zip(SEGMENTS, parts(device), strict=True) if part
    }
    handles = [_patch(segment.name) for segment in SEGMENTS if segment.name in present]
    figure.legend(handles=handles, loc="outside lower center", ncols=3 if size.narrow else 7, handlelength=1.6,
                  columnspacing=1.2, handleheight=1.1)  # fmt: skip


def _bar(axes: Axes, row: int, device: DeviceMemory, size: Size) -> float:
    """Draw one bar; gives where it ends, in per cent."""
    sizes = parts(device)
    whole = device.available_bytes or sum(sizes) or 1
    start = 0.0
    for segment, part in zip(SEGMENTS, sizes, strict=True):
        width = 100 * part / whole
        if not part:
            continue
        colour, edge = getattr(COLOURS, segment.name), COLOURS.muted if segment.name == "free" else COLOURS.paper
        axes.barh(row, width, left=start, height=0.52, color=colour, edgecolor=edge, linewidth=1,
                  hatch=_HATCHES.get(segment.name))  # fmt: skip
        room = width / 100 * size.width * 0.9
        if len(segment.name) * _PIXELS_A_LETTER + 8 < room and segment.name not in _HATCHES:
            ink = COLOURS.ink if segment.name in _DARK else COLOURS.onbar
            axes.text(start + width / 2, row, segment.name, ha="center", va="center", color=ink)
        start += width
    axes.text(0, row - 0.38, _words(device, size), ha="left", va="center", weight="bold")
    return start


def _words(device: DeviceMemory, size: Size) -> str:
    name = shortened(device.device, 12 if size.narrow else 30)
    if device.available_bytes is None:
        return f"{name}: {units.gib(device.total_bytes)}, what is available is unknown"
    told = f"{name}: {units.gib(device.total_bytes)} of {units.gib(device.available_bytes)}"
    headroom = device.headroom_bytes
    return f"{told}, does not fit" if headroom is not None and headroom < 0 else told


def _patch(name: str) -> Patch:
    return Patch(facecolor=getattr(COLOURS, name), edgecolor=COLOURS.muted if name in _DARK else COLOURS.paper,
                 hatch=_HATCHES.get(name), label=name)  # fmt: skip
