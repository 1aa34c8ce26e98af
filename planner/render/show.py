"""One model as text: every fact the catalogue has, what it rests on, and what nobody knows.

The mistake it prevents is a number without its meaning: a published count that covers a vision tower stands beside the
count of what llama.cpp loads, and a fact that was read nowhere says so.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from planner import units
from planner.render.layout import INDENT, columns, facts, labelled, paragraph, section
from planner.render.style import PLAIN, WIDTH, Style
from planner.render.text import finish, tokens
from planner.types.model import KnownModel, License, Model
from planner.types.quality import Capability

__all__ = ["show_text"]

_THINKS = {
    "none": "answers at once",
    "hybrid": "can think before it answers, or answer at once",
    "always": "always thinks before it answers",
}
_COUNTS = {
    "text": "the text model",
    "text+mtp": "the text model and the MTP block",
    "text+mtp+vision": "the text model, the MTP block and the vision part",
    "text-without-embeddings": "the text model without its embeddings",
    "text-without-lookup": "the text model without its lookup table",
}
_COMMERCIAL = {
    True: "allows commercial use",
    False: "no commercial use without a further agreement",
    None: "not confirmed to allow commercial use",
}


def show_text(model: Model | KnownModel, capabilities: Iterable[Capability] = (), *, style: Style = PLAIN) -> str:
    """The facts about one model, its indices, notes and sources; for one that is only known, the reason first."""
    names = facts([model.vendor, f"family {model.family}", model.id], style)
    lines = [style.heading(model.name), f"{INDENT}{names}", ""]
    if isinstance(model, Model):
        pairs = [*_plannable(model), *_common(model)]
    else:
        lines += [*paragraph(f"Known, not plannable: {model.reason}."), ""]
        pairs = [*_known(model), *_common(model)]
    for label, texts in pairs:
        lines += labelled(f"{INDENT}{label}", texts, width=16)
    lines.append("")
    lines += section(
        "Capability, 0 to 100, with the interval that holds four times out of five",
        _indices(capabilities, style),
        style,
    )
    lines += section("Notes", paragraph(model.notes) if model.notes else [], style)
    lines += section("Sources", _sources(model.sources, style), style)
    return finish(lines)


_CAPABILITY = "Capability, 0 to 100, with the interval that holds four times out of five"
_ORIGINS = {
    "measured": "scores of this model",
    "related": "its other scores, or its siblings'",
    "inferred": "its size, age and mode",
}


def _indices(capabilities: Iterable[Capability], style: Style) -> list[str]:
    """A line for each task group and mode; see docs/quality.md."""
    rows = [
        (
            each.group,
            "thinking" if each.thinking else "at once",
            f"{each.index:.0f}",
            f"{each.low:.0f}{style.dash}{each.high:.0f}",
            _ORIGINS[each.origin],
        )
        for each in capabilities
    ]
    return columns(("for", "answers", "index", "interval", "from"), rows, right=(2,)) if rows else []


def _plannable(model: Model) -> Iterator[tuple[str, Sequence[str]]]:
    yield "parameters", [*_parameters(model)]
    if model.vision is not None:
        size = [units.count(model.vision.parameters) if model.vision.parameters else None]
        size.append(f"{units.gib(model.vision.mmproj_bytes)} in F16" if model.vision.mmproj_bytes else None)
        told = ", ".join(part for part in size if part)
        yield "vision", [f"{told} ({model.vision.note})" if told else model.vision.note]
    yield "context", [_context(model)]
    yield "thinking", [_THINKS[model.thinking], *_thinking(model)]
    yield "languages", [_languages(model)]
    yield "used for", [", ".join(model.uses)]
    yield "architecture", [f"{model.architecture}: {_shape(model)}"]
    yield "confidence", [f"{model.confidence}: {_CONFIDENCE[model.confidence]}"]


_CONFIDENCE = {
    "high": "two sources agree on the shape, and its count is the published one",
    "medium": "one source short of sure, or only a rounded count to compare with",
}


def _known(model: KnownModel) -> Iterator[tuple[str, Sequence[str]]]:
    if model.parameters_published is not None:
        yield "parameters", [f"{units.count(round(model.parameters_published))} by its label"]
    if model.context_native is not None:
        yield "context", [f"{tokens(model.context_native)} tokens"]
    if model.architecture is not None:
        yield "architecture", [model.architecture]


def _common(model: Model | KnownModel) -> Iterator[tuple[str, Sequence[str]]]:
    unread = isinstance(model, Model) and model.released is not None and not model.released_verified
    yield "released", [(model.released or "unknown") + (" (not read in a source about this model)" if unread else "")]
    yield "licence", [*_license(model.license)] if model.license is not None else ["unknown"]
    hubs = [("Hugging Face", model.hf_repo), ("ModelScope", model.modelscope_id)]
    yield "hubs", [f"{hub} {repo}" for hub, repo in hubs if repo is not None] or ["none is known"]


def _parameters(model: Model) -> Iterator[str]:
    yield f"{units.count(model.parameters)} ({model.parameters:,}), computed from the shape"
    if model.parameters_active < model.parameters:
        yield f"{units.count(model.parameters_active)} of them active for each token"
    if model.lookup_parameters is not None:
        yield f"{units.count(model.lookup_parameters)} of them a table of which a token reads a few rows"
    if model.mtp_parameters is not None:
        yield f"{units.count(model.mtp_parameters)} more in the block that predicts further tokens (MTP)"
    if model.parameters_published is not None:
        yield f"{units.count(round(model.parameters_published))} published, for {_COUNTS[model.published_counts]}"


def _context(model: Model) -> str:
    native = f"{tokens(model.context_native)} tokens"
    if model.context_extended is None:
        return native
    return f"{native}, {tokens(model.context_extended)} when stretched (YaRN)"


def _thinking(model: Model) -> Iterator[str]:
    if model.thinking_tokens is not None:
        yield f"about {tokens(model.thinking_tokens)} tokens before an answer"
    if model.thinking_note is not None:
        yield model.thinking_note


def _languages(model: Model) -> str:
    known = "which ones no source lists" if model.languages is None else ", ".join(model.languages)
    if model.languages_claimed is not None:
        known = f"{model.languages_claimed} claimed; {known}"
    return f"{known} ({model.languages_note})" if model.languages_note else known


def _license(terms: License) -> Iterator[str]:
    read = "read in a source about this model" if terms.verified else "not read in a source about this model"
    yield f"{terms.id}: {_COMMERCIAL[terms.commercial]}; {read}"
    if terms.note is not None:
        yield terms.note
    if terms.allows is not None:
        yield f"allows: {'; '.join(terms.allows)}"
    if terms.asks:
        yield f"asks: {'; '.join(terms.asks)}"
    if terms.source is not None:
        yield f"text: {terms.source}"


def _shape(model: Model) -> str:
    """The shape as the profile gives it; a list of one number per layer is told by its length."""

    def word(value: float | bool | tuple[int, ...]) -> str:
        if isinstance(value, tuple):
            return str(list(value)) if len(value) <= _SHORT_LIST else f"[{len(value)} numbers]"
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value:.10g}"

    return ", ".join(f"{name} {word(value)}" for name, value in model.shape.items())


_SHORT_LIST = 4


def _sources(sources: Sequence[str], style: Style) -> list[str]:
    """Each source as an item; an address is never broken, however long, so that it can be copied."""
    lead = f"{INDENT}{style.bullet} "
    return [line for source in sources for line in _unbroken(source, lead)]


def _unbroken(text: str, lead: str) -> list[str]:
    return textwrap.wrap(
        text,
        width=WIDTH,
        initial_indent=lead,
        subsequent_indent=INDENT * 2,
        break_on_hyphens=False,
        break_long_words=False,
    )
