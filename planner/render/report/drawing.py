"""A chart drawn by matplotlib as an SVG that belongs to a page: themed by its style sheet, read aloud, reached by keys.

matplotlib writes colours into ``style`` attributes, which a strict content security policy forbids and no dark theme
can change, and gives every chart the same ids. Here each colour becomes a class of the page's style sheet, ids are the
chart's own, and groups that were named become links that the Tab key reaches. The mistake it prevents is a drawing
that only a mouse and a white page can read.

Strangers' words in a chart are never mathematics (``parse_math``) and never markup (the writer escapes them).
"""

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, cast
from xml.etree import ElementTree as ET

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

__all__ = ["COLOURS", "Link", "Palette", "Size", "draw", "shortened"]

_SVG = "http://www.w3.org/2000/svg"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
_HIT_RADIUS = "13"
_COORDINATES = {"d", "x", "y", "cx", "cy", "width", "height", "transform"}
_LONG_NUMBER = re.compile(r"-?[0-9]+\.[0-9]+")


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of the light theme by their role; a page's style sheet may give each role another one."""

    paper: str = "#ffffff"
    ink: str = "#1f2328"
    muted: str = "#59636e"
    grid: str = "#d1d9e0"
    accent: str = "#0550ae"
    other: str = "#6e7781"
    warn: str = "#b42318"
    weights: str = "#0b5cad"
    cache: str = "#0b7285"
    compute: str = "#7d3fc8"
    overhead: str = "#8a5a00"
    server: str = "#1a7f3c"
    reserve: str = "#848d97"
    free: str = "#f6f8fa"
    onbar: str = "#fefefe"


COLOURS = Palette()
_ROLES = {getattr(COLOURS, role): role for role in Palette.__slots__}

_RULES: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.size": 12,
    "text.color": COLOURS.ink,
    "axes.labelcolor": COLOURS.ink,
    "axes.edgecolor": COLOURS.muted,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": COLOURS.grid,
    "xtick.color": COLOURS.muted,
    "ytick.color": COLOURS.muted,
    "xtick.labelcolor": COLOURS.ink,
    "ytick.labelcolor": COLOURS.ink,
    "legend.frameon": False,
    "legend.labelcolor": COLOURS.ink,
    "hatch.linewidth": 1.2,
}


@dataclass(frozen=True, slots=True)
class Size:
    """A width for a screen, with the name that the style sheet shows or hides it by, and the height in CSS pixels."""

    name: str
    width: int
    height: int

    @property
    def narrow(self) -> bool:
        """Whether words must be short: the chart is for a phone."""
        return self.width < 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A mark that can be reached: where it leads, what it says aloud, and its class."""

    href: str
    words: str
    classes: str = ""


@dataclass(slots=True)
class _Sink:
    """The text that matplotlib writes; bytes are refused, which tells it to write text."""

    pieces: list[str] = field(default_factory=list)

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("text, not bytes")
        self.pieces.append(text)
        return len(text)

    def seek(self, place: int) -> None:
        """Nothing: matplotlib knows a file by this method and never calls it on text."""


def draw(
    paint: Callable[[Figure, Size], None],
    size: Size,
    *,
    prefix: str,
    label: str,
    links: Mapping[str, Link] | None = None,
) -> Markup:
    """The chart that ``paint`` draws on an empty figure, as an ``<svg>`` element for an HTML page.

    One unit of the figure is one CSS pixel. ``prefix`` begins every id, ``label`` is what the chart says aloud,
    ``links`` are the groups (by their gid) that become links, in the order of the Tab key.
    """
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update({**_RULES, "svg.hashsalt": prefix})
        # A stranger's script may lack a glyph in the font that measures it; the browser has others.
        warnings.filterwarnings("ignore", message=r"(?s).*Glyph .* missing from")
        warnings.filterwarnings("ignore", message=".*constrained_layout not applied")
        figure = Figure(figsize=(size.width / 72, size.height / 72), dpi=72, facecolor="none", layout="constrained")
        paint(figure, size)
        sink = _Sink()
        figure.savefig(
            cast("IO[str]", sink), format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    return Markup(_themed("".join(sink.pieces), size, prefix=prefix, label=label, links=links or {}))  # noqa: S704 - made here, by an XML writer


def shortened(text: str, most: int) -> str:
    """The text, cut with an ellipsis where a chart has no room for it; tables always have the whole."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _themed(text: str, size: Size, *, prefix: str, label: str, links: Mapping[str, Link]) -> str:
    root = ET.fromstring(text)  # noqa: S314 - matplotlib's own output, made in this process
    for parent in list(root.iter()):
        for child in list(parent):
            if _name(child) in {"style", "metadata"}:
                parent.remove(child)
    reached = [(link, _taken(root, gid)) for gid, link in links.items()]
    hidden = ET.Element(f"{{{_SVG}}}g", {"aria-hidden": "true"} if links else {})
    hidden.extend(list(root))
    for child in list(root):
        root.remove(child)
    root.append(hidden)
    root.extend(_linked(group, link) for link, group in reached if group is not None)
    _rename(root, prefix)
    for element in root.iter():
        _restyle(element)
    root.attrib.clear()
    root.attrib.update(
        {
            "class": f"chart {size.name}",
            "viewBox": f"0 0 {size.width} {size.height}",
            "role": "group" if links else "img",
            "aria-label": label,
        }
    )
    return _plain(root)


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _taken(root: ET.Element, gid: str) -> ET.Element | None:
    """The group of that gid, taken out of its place."""
    for parent in root.iter():
        for child in list(parent):
            if child.get("id") == gid:
                parent.remove(child)
                return child
    return None


def _linked(group: ET.Element, link: Link) -> ET.Element:
    """The group as a link with a round area around its mark that is large enough to hit."""
    group.tag = f"{{{_SVG}}}a"
    group.attrib.clear()
    group.attrib.update({"href": link.href, "aria-label": link.words, "class": f"point {link.classes}".strip()})
    mark = next((each for each in group.iter() if _name(each) == "use"), None)
    if mark is not None:
        place = {"cx": mark.get("x", "0"), "cy": mark.get("y", "0"), "r": _HIT_RADIUS, "class": "hit"}
        group.insert(0, ET.Element(f"{{{_SVG}}}circle", place))
    return group


def _rename(root: ET.Element, prefix: str) -> None:
    """Ids that something refers to get the chart's prefix; all others go."""
    referred: set[str] = set()
    for element in root.iter():
        for value in element.attrib.values():
            referred.update(part.partition(")")[0] for part in value.split("url(#")[1:])
        if _name(element) == "use":
            referred.add((element.get(_XLINK_HREF) or "").removeprefix("#"))
    for element in root.iter():
        identity = element.get("id")
        if identity in referred:
            element.set("id", f"{prefix}-{identity}")
        elif identity is not None:
            del element.attrib["id"]
        for key, value in list(element.attrib.items()):
            if "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{prefix}-"))
        target = element.attrib.pop(_XLINK_HREF, None)
        if target is not None:
            element.set("href", f"#{prefix}-{target.removeprefix('#')}")


def _restyle(element: ET.Element) -> None:
    """Style properties as presentation attributes, which no policy forbids, and known colours as classes."""
    style = element.attrib.pop("style", "")
    found = dict(part.strip().split(": ", 1) for part in style.split(";") if ": " in part)
    found.pop("font-family", None)
    for key in ("fill", "stroke"):
        given = element.attrib.pop(key, None)
        if given is not None:
            found.setdefault(key, given)
    if _name(element) == "text":
        found.setdefault("fill", COLOURS.ink)
    classes = [element.get("class", "")]
    for key, value in found.items():
        if key in {"fill", "stroke"} and value.startswith("#"):
            classes.append(f"{key[0]}-{_ROLES[value]}")
        else:
            element.set(key, value)
    told = " ".join(name for name in classes if name)
    if told:
        element.set("class", told)
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    for key in _COORDINATES & element.attrib.keys():
        element.set(key, _LONG_NUMBER.sub(_rounded, " ".join(element.attrib[key].split())))


def _rounded(match: re.Match[str]) -> str:
    """A coordinate to a hundredth of a pixel: more digits would be half of the page."""
    return f"{float(match.group()):.2f}".rstrip("0").rstrip(".")


def _plain(root: ET.Element) -> str:
    """The element as text without namespaces: HTML knows ``svg`` by name."""
    for element in root.iter():
        element.tag = _name(element)
        if not (element.text or "").strip():
            element.text = None
        element.tail = None
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)
