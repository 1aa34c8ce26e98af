"""An explained estimate as a table of 80 columns: every part of every device in MiB, and what it is made of.

The mistake it prevents: a table whose rounded numbers do not add up. Each column of hundredths of a MiB is rounded
together with its total, the largest remainders up, so that a reader with a pencil finds no cent missing.
"""

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from planner.render.layout import INDENT
from planner.render.style import PLAIN, Style
from planner.render.text import finish, settings_lines, tokens
from planner.render.untrusted import cleaned
from planner.types.explanation import DeviceParts, Explanation, Form, Part, PartName, Section

__all__ = ["explanation_text"]

_WIDTH = 80
_NAMES = 34
_NUMBERS = 13
_HUNDREDTH = (1 << 20) / 100

_SECTIONS: dict[Section, str] = {
    "weights": "weights",
    "cache": "cache of the context",
    "compute": "compute buffers",
    "overhead": "overhead",
}
_FORMS: dict[Form, str] = {
    "mapped": "mapped from the file",
    "private": "read into buffers",
    "repacked": "repacked",
}
_LABELS: dict[PartName, str] = {
    "embedding": "token embedding",
    "tied-embedding": "token embedding and head",
    "lookup": "lookup tables",
    "attention": "attention",
    "window-attention": "attention, window",
    "latent-attention": "attention, latent",
    "recurrent-attention": "recurrent (delta net)",
    "indexer": "indexer",
    "feed-forward": "feed-forward",
    "routed-experts": "routed experts",
    "shared-experts": "shared experts",
    "routers": "routers",
    "norms": "norms",
    "connections": "hyper-connections",
    "other": "other tensors",
    "head": "output head",
    "head-copy": "output head, copy of table",
    "mtp": "multi-token prediction",
    "padding": "padding",
    "shared-pages": "pages that two count, once",
    "attention-cache": "attention",
    "window-cache": "sliding window",
    "recurrent-cache": "recurrent state",
    "indexer-cache": "indexer",
    "compressed-cache": "compressed",
    "compressor-cache": "compressor state",
    "unknown-cache": "of unknown kind",
    "compute": "of the graph",
    "pinned-compute": "of the graph, pinned",
    "output": "output buffer",
    "work": "work space of the kernels",
    "process": "idle engine process",
    "engine-structures": "engine structures",
    "driver": "driver context (allowance)",
    "process-and-driver": "process and driver",
    "companions": "second context, projector",
    "server": "server's own",
    "margin": "margin",
    "unaccounted": "not accounted for",
}


def explanation_text(explanation: Explanation, style: Style = PLAIN) -> str:
    """Where each MiB of an estimate comes from, device by device; nothing is wider than 80 columns."""
    told = cleaned(explanation)
    candidate = told.estimate
    lines = [style.heading(f"{candidate.model} {candidate.quantization}, where each MiB comes from")]
    for line in settings_lines(candidate.settings, style):
        lines += textwrap.wrap(line, _WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
    available = {row.device: row.available_bytes for row in candidate.memory}
    shown = _shares([device.total_bytes for device in told.devices])
    for device, hundredths in zip(told.devices, shown, strict=True):
        lines += ["", *_device(device, hundredths, available.get(device.device), style)]
    if len(told.devices) > 1:
        lines += ["", *_line(style.heading("all devices".ljust(_NAMES)), sum(shown))]
    if told.not_loaded:
        lines += ["", f"{INDENT}left in the file, not loaded"]
        sizes = [part.size_bytes for part in told.not_loaded]
        for part, hundredths in zip(told.not_loaded, _shares(sizes), strict=True):
            lines += _line(_label(_LABELS[part.name], 2), hundredths, _detail(part, style))
    for reason in candidate.reasons:
        if reason.code == "engine-changed":
            lines += ["", *textwrap.wrap(reason.text, _WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)]
    return finish(lines)


def _device(device: DeviceParts, hundredths: int, available: int | None, style: Style) -> Iterator[str]:
    """The table of one device: its total, each section with its parts."""
    room = "" if available is None else f"of {_number(round(available / _HUNDREDTH))} available"
    yield from _line(style.heading(device.device.ljust(_NAMES)), hundredths, [f"MiB {room}".rstrip()])
    sections = [
        (name, parts) for name in _SECTIONS if (parts := [part for part in device.parts if part.section == name])
    ]
    totals = _shares([_sum(parts) for _, parts in sections], hundredths)
    for (name, parts), total in zip(sections, totals, strict=True):
        if name == "weights":
            yield from _weights(parts, total, style)
        else:
            yield from _line(_label(_SECTIONS[name], 1), total)
            yield from _parts(parts, total, style, indent=2)


def _weights(parts: Sequence[Part], total: int, style: Style) -> Iterator[str]:
    """The weights by form; where there is only one, its name stands beside the total."""
    forms = list(dict.fromkeys(part.form for part in parts))
    if len(forms) == 1:
        yield from _line(_label(_SECTIONS["weights"], 1), total, [_form(forms[0])])
        yield from _parts(parts, total, style, indent=2)
        return
    yield from _line(_label(_SECTIONS["weights"], 1), total)
    by_form = [[part for part in parts if part.form == form] for form in forms]
    for form, members, share in zip(forms, by_form, _shares([_sum(each) for each in by_form], total), strict=True):
        beside = "beside the mapped file" if form == "repacked" and "mapped" in forms else ""
        yield from _line(_label(_form(form), 2), share, [beside])
        yield from _parts(members, share, style, indent=3)


def _form(form: Form | None) -> str:
    return "" if form is None else _FORMS[form]


def _parts(parts: Sequence[Part], total: int, style: Style, *, indent: int) -> Iterator[str]:
    for part, hundredths in zip(parts, _shares([part.size_bytes for part in parts], total), strict=True):
        exact = () if hundredths else (f"{tokens(part.size_bytes)} bytes",)
        yield from _line(_label(_LABELS[part.name], indent), hundredths, (*exact, *_detail(part, style)))


def _detail(part: Part, style: Style) -> tuple[str, ...]:
    """What a part is made of: tensors by type, layers, cells, the engine's name of a buffer."""
    pieces = [*_types(part, style), *_extent(part, style), part.buffer]
    return tuple(piece for piece in pieces if piece)


def _types(part: Part, style: Style) -> Iterator[str]:
    """Tensors by type; the bytes of each only where they do not stand beside it already."""
    for kind in part.types:
        size = f" {_number(round(kind.size_bytes / _HUNDREDTH))}" if len(part.types) > 1 else ""
        yield f"{kind.tensors} {style.times} {kind.type}{size}"


def _extent(part: Part, style: Style) -> Iterator[str]:
    """The layers of some tensors; the cells of a cache times its layers times bytes."""
    count = len(part.layers)
    if part.cells is not None and count:
        streams = f"{part.streams} {style.times} " if (part.streams or 1) > 1 else ""
        cells, layers = "cell" if part.cells == 1 else "cells", "layer" if count == 1 else "layers"
        yield f"{streams}{tokens(part.cells)} {cells} {style.times} {count} {layers}"
        if part.cell_bytes is not None:
            yield f"{tokens(part.cell_bytes)} bytes each"
    elif count:
        yield _ranges(part.layers, style)


def _ranges(layers: Sequence[int], style: Style) -> str:
    """Layer numbers in few words: ``layers 0–2, 5``, by their step ``layers 3–31 by 4``, or ``24 layers of 0–30``."""
    if len(layers) > 2:
        steps = {after - before for before, after in itertools.pairwise(layers)}
        if len(steps) == 1 and steps != {1}:
            return f"layers {layers[0]}{style.dash}{layers[-1]} by {steps.pop()}"
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][-1] == layer - 1:
            runs[-1][1:] = [layer]
        else:
            runs.append([layer])
    if len(runs) > 4:
        return f"{len(layers)} layers of {layers[0]}{style.dash}{layers[-1]}"
    named = ", ".join(style.dash.join(str(layer) for layer in run) for run in runs)
    return f"layer {named}" if len(layers) == 1 else f"layers {named}"


def _label(text: str, indent: int) -> str:
    return f"{INDENT * indent}{text}".ljust(_NAMES)


def _line(label: str, hundredths: int, pieces: Sequence[str] = ()) -> list[str]:
    """One row; pieces of detail that do not fit beside the number go below it, whole where they can."""
    lead = f"{label}{_number(hundredths).rjust(_NUMBERS)}"
    width = _WIDTH - _NAMES - _NUMBERS - len(INDENT)
    rows = [""]
    for piece in pieces:
        joined = f"{rows[-1]}, {piece}" if rows[-1] else piece
        if len(joined) < width or not rows[-1]:
            rows[-1] = joined
        else:
            rows[-1] += ","
            rows.append(piece)
    first, *rest = [line for row in rows for line in textwrap.wrap(row, width, break_on_hyphens=False) or [""]]
    gap = " " * (_NAMES + _NUMBERS) + INDENT
    return [f"{lead}{INDENT}{first}".rstrip(), *(gap + line for line in rest)]


def _number(hundredths: int) -> str:
    """Hundredths of a MiB as MiB: ``4,789.19``."""
    sign = "-" if hundredths < 0 else ""
    return f"{sign}{abs(hundredths) // 100:,}.{abs(hundredths) % 100:02}"


def _sum(parts: Iterable[Part]) -> int:
    return sum(part.size_bytes for part in parts)


def _shares(sizes: Sequence[int], total: int | None = None) -> list[int]:
    """Bytes as hundredths of a MiB that sum to ``total`` hundredths (default: their own rounded sum)."""
    goal = round(sum(sizes) / _HUNDREDTH) if total is None else total
    shares = [int(size // _HUNDREDTH) for size in sizes]
    order = sorted(range(len(sizes)), key=lambda index: sizes[index] / _HUNDREDTH - shares[index], reverse=True)
    for index in order[: max(0, goal - sum(shares))]:
        shares[index] += 1
    return shares
