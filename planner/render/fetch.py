"""What a fetch brought and what a clean removes, in words: where the files lie, that they are right, what travelled."""

from planner import units
from planner.render.layout import bullets, section
from planner.render.style import PLAIN, Style
from planner.render.text import finish
from planner.render.untrusted import cleaned
from planner.types.receipt import CleanReport, Fetched, Receipt

__all__ = ["clean_text", "fetched_text"]


def fetched_text(fetched: Fetched, style: Style = PLAIN) -> str:
    """The files with their hashes, where they came from, and how much travelled for them."""
    told = cleaned(fetched)
    receipt = told.receipt
    lines = [style.heading(f"{receipt.model} {receipt.quantization} is here and verified"), ""]
    lines.append(f"from {_origin(receipt)}")
    for file in receipt.files:
        check = "as the hub names it" if file.compared else "the hub names none"
        lines += [file.local_path, f"  {units.gib(file.size_bytes)}, sha256 {file.sha256} ({check})"]
    lines += ["", _traffic(told)]
    lines += section("Notes", bullets(told.notes, style), style)
    return finish(lines)


def clean_text(report: CleanReport, style: Style = PLAIN) -> str:
    """What is or would be gone, kind by kind, and what stays."""
    told = cleaned(report)
    if not told.leftovers:
        lines = ["Nothing to remove."]
    else:
        verb = "Removed" if told.removed else "Would remove"
        lines = [style.heading(f"{verb} {units.gib(told.size_bytes)}"), ""]
        for each in told.leftovers:
            many = f", {each.files:,} files" if each.files != 1 else ""
            lines.append(f"{each.what} ({units.gib(each.size_bytes)}{many}): {each.path}")
        if not told.removed:
            lines += ["", "Add --yes to remove it."]
    lines += section("Kept", bullets(told.kept, style), style)
    return finish(lines)


def _origin(receipt: Receipt) -> str:
    if receipt.repo is None:
        return "this disk"
    at = f" at commit {receipt.commit}" if receipt.commit else ""
    return f"{receipt.hub}:{receipt.repo}{at}"


def _traffic(fetched: Fetched) -> str:
    if not fetched.received_bytes:
        return "Nothing had to be transferred."
    resumed = f", {units.gib(fetched.resumed_bytes)} were here from before" if fetched.resumed_bytes else ""
    return f"{units.gib(fetched.received_bytes)} were transferred{resumed}."
