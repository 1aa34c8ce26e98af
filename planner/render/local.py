"""The models that are on this machine as text: which program holds what, and whether all of it is there."""

from collections.abc import Sequence

from planner.render.documents import LocalDocument, LocalEntry
from planner.render.inspect import size_words
from planner.render.layout import INDENT, blocks, bullets, paragraph, section
from planner.render.style import PLAIN, Style
from planner.render.text import finish
from planner.render.untrusted import cleaned

__all__ = ["local_text", "shortened"]

_SOURCES = {
    "huggingface": "Hugging Face",
    "modelscope": "ModelScope",
    "llama.cpp": "llama.cpp",
    "lm-studio": "LM Studio",
    "ollama": "Ollama",
}
_LONGEST_PATH = 90


def local_text(document: LocalDocument, *, home: str = "", style: Style = PLAIN) -> str:
    """Each model in two lines, what it is and where it lies; ``home`` is written ``~``."""
    told = cleaned(document)
    lines = _table(told.models, home, style) if told.models else ["No model on this machine is all of that."]
    if told.unrecognised:
        files = "1 file" if told.unrecognised == 1 else f"{told.unrecognised} files"
        lines += ["", *paragraph(f"Left out, because nobody knows which model it is: {files}.", indent="")]
    lines += ["", *section(style.warn("Not looked at"), bullets(told.notes, style), style)]
    usable = next((each.files.path for each in told.models if each.files.complete and each.files.path), None)
    if usable is not None:
        lines += paragraph("The best of them for this machine: planner plan --local", indent="")
    return finish(lines)


def shortened(path: str, home: str, most: int = _LONGEST_PATH) -> str:
    """A path with ``~`` for the home folder and, where it is long, ``…`` for folders in its middle."""
    inside = bool(home) and path.startswith(f"{home.rstrip('/')}/")
    short = f"~{path[len(home.rstrip('/')) :]}" if inside else path
    if len(short) <= most:
        return short
    first, *middle, last = short.split("/")
    while middle and len("/".join([first, *middle, "…", last])) > most:
        middle.pop()
    return "/".join([first, *middle, "…", last])


def _table(entries: Sequence[LocalEntry], home: str, style: Style) -> list[str]:
    header = ("held by", "quantization", "size", "complete", "catalogue", "repository or name")
    head, *rows = blocks(header, [_row(each) for each in entries], right=(2,))
    lines = [style.faint(line) for line in head]
    for each, row in zip(entries, rows, strict=True):
        lines += row
        if each.files.path:
            lines.append(style.faint(f"{INDENT * 2}{shortened(each.files.path, home)}"))
    return lines


def _row(entry: LocalEntry) -> tuple[str, ...]:
    files = entry.files
    return (
        _SOURCES[entry.source],
        files.quantization or "?",
        size_words(files),
        "yes" if files.complete else f"lacks {len(files.missing)}",
        entry.model or "?",
        entry.repo or entry.name,
    )
