"""What a reference names, as text: the files in it, and what the header of the one that was meant says.

The words come from strangers, so everything passes :func:`planner.render.untrusted.cleaned` before it is laid out.
"""

from collections.abc import Iterator, Sequence

from planner import units
from planner.render.layout import INDENT, bullets, columns, facts, labelled, paragraph, section
from planner.render.style import PLAIN, Style
from planner.render.text import finish, tokens
from planner.render.untrusted import cleaned
from planner.types.inspection import Contents, FileSet, Inspection, Share

__all__ = ["inspection_text", "size_words"]

_HUBS = {"hf": "Hugging Face", "ms": "ModelScope", "url": "address", "local": "this disk"}
_GROUPS = {
    "embedding": "token embedding",
    "attention": "attention",
    "feed-forward": "feed-forward",
    "experts": "routed experts",
    "mtp": "MTP block",
    "head": "output head",
    "other": "other",
}
_KINDS = {"mmproj": "vision", "mtp": "MTP block", "draft": "draft model", "adapter": "LoRA", "imatrix": "imatrix"}
_LABEL_WIDTH = 16


def inspection_text(inspection: Inspection, style: Style = PLAIN) -> str:
    """The listing and, where a header was read, its facts and tables."""
    told = cleaned(inspection)
    contents = told.contents
    title = told.name if contents is None else contents.title or contents.name
    lines = [*(style.heading(line) for line in paragraph(title, indent="")), *_repository(told, style), ""]
    if contents is None:
        lines += section("Models", _models([each for each in told.files if each.kind == "model"]), style)
    else:
        lines += _facts(contents)
        lines += section("Tensor types", _shares(contents.tensor_types, {}), style)
        lines += section("Where the bytes are", _shares(contents.tensor_groups, _GROUPS), style)
    lines += section("Beside it", _others([each for each in told.files if each.kind != "model"]), style)
    warnings = contents.warnings if contents is not None else ()
    lines += section(style.warn("Warnings"), bullets([*told.notes, *warnings], style), style)
    if contents is None:
        lines += paragraph(_next(told), indent="")
    return finish(lines)


def size_words(file: FileSet) -> str:
    """The size of a set, or ``?`` where nobody tells it."""
    return "?" if file.size_bytes is None else units.gib(file.size_bytes)


def _repository(told: Inspection, style: Style) -> list[str]:
    pinned = f"commit {told.commit[:12]}" if told.commit else None
    gated = "gated: access has to be asked for" if told.gated else None
    licence = f"licence {told.license}" if told.license else None
    bases = f"from {', '.join(told.base_models)}" if told.base_models else None
    # A lone file's name, and that of a listing's heading, stands there already.
    name = told.name if told.contents is not None and told.name != told.contents.name else None
    first = facts([_HUBS[told.hub], name, pinned, gated], style)
    second = facts([licence, bases], style)
    return [line for fact in (first, second) if fact for line in paragraph(fact)]


def _models(files: Sequence[FileSet]) -> list[str]:
    rows = [
        (each.quantization or "?", size_words(each), _parts(each), "yes" if each.on_disk else "no", each.name)
        for each in files
    ]
    return columns(("quantization", "size", "parts", "here", "file"), rows, right=(1,))


def _others(files: Sequence[FileSet]) -> list[str]:
    rows = [(_KINDS.get(each.kind, each.kind), size_words(each), _parts(each), each.name) for each in files]
    return columns(("for", "size", "parts", "file"), rows, right=(1,)) if rows else []


def _parts(file: FileSet) -> str:
    return str(file.parts) if file.complete else f"{file.parts} of {file.parts + len(file.missing)}"


def _next(told: Inspection) -> str:
    """How to ask for one: by a quantization that only one has, else by a file."""
    models = [each for each in told.files if each.kind == "model"]
    labels = [each.quantization for each in models]
    whole = [each for each in models if each.complete]
    by_label = next((each.quantization for each in whole if labels.count(each.quantization) == 1), None)
    by_file = next((each.name for each in whole if each.parts == 1), None)
    start = "No header was read. One of them in full:"
    if told.hub in {"hf", "ms"} and by_label is not None:
        return f"{start} planner inspect {told.hub}:{told.name}:{by_label}"
    if told.hub in {"hf", "ms"} and by_file is not None:
        return f"{start} planner inspect {told.hub}:{told.name}/{by_file}"
    return f"{start} name its file, or its quantization with --quant."


def _facts(contents: Contents) -> list[str]:
    lines: list[str] = []
    for label, texts in _pairs(contents):
        lines += labelled(f"{INDENT}{label}", [text for text in texts if text], width=_LABEL_WIDTH)
    return [*lines, ""]


def _pairs(contents: Contents) -> Iterator[tuple[str, Sequence[str | None]]]:
    yield "file", [_file(contents)]
    yield "taken for", [_taken_for(contents)]
    yield "architecture", [_architecture(contents)]
    yield "parameters", [*_parameters(contents)]
    yield "quantization", [_quantization(contents)]
    yield "context", [None if contents.context_native is None else f"{tokens(contents.context_native)} tokens"]
    yield "tokenizer", [_tokenizer(contents)]
    if contents.chat_template_sha256 is not None:
        size = f"{tokens(contents.chat_template_bytes)} bytes, " if contents.chat_template_bytes is not None else ""
        yield "chat template", [f"{size}sha256 {contents.chat_template_sha256}"]
    yield "says of itself", [*_words(contents)]


def _file(contents: Contents) -> str:
    size = "size unknown" if contents.file_bytes is None else units.gib(contents.file_bytes)
    split = f" in {contents.parts} parts" if contents.parts > 1 else ""
    header, data = _small(contents.header_bytes), units.gib(contents.data_bytes)
    return f"{contents.name}, {size}{split}: header {header}, data {data} (GGUF version {contents.gguf_version})"


def _taken_for(contents: Contents) -> str:
    if contents.taken_for is None:
        return "no model of the catalogue: only what the header proves is known"
    if contents.conversion:
        return f"{contents.taken_for}: {contents.taken_for_why}, and the number of parameters is equal"
    return f"made from {contents.taken_for}: {contents.taken_for_why}"


def _architecture(contents: Contents) -> str:
    layers = f"{contents.layers} layers"
    parts = [
        f"{contents.architecture}, {layers}",
        f"{contents.layers_mtp} more for MTP" if contents.layers_mtp else None,
        f"width {contents.embedding}" if contents.embedding is not None else None,
        f"{contents.heads} heads" if contents.heads is not None else None,
        f"{contents.heads_kv} for K and V" if contents.heads_kv is not None else None,
        f"{contents.experts} experts, {contents.experts_used or '?'} used" if contents.experts is not None else None,
    ]
    return ", ".join(part for part in parts if part)


def _parameters(contents: Contents) -> Iterator[str]:
    yield f"{units.count(contents.parameters)} ({contents.parameters:,}), counted from the tensors"
    if contents.parameters_active < contents.parameters:
        yield f"{units.count(contents.parameters_active)} of them active for each token"
    if contents.parameters_mtp is not None:
        yield f"{units.count(contents.parameters_mtp)} more in the block that predicts further tokens (MTP)"


def _quantization(contents: Contents) -> str:
    named = contents.quantization or "no name"
    recipe = "" if contents.file_type is None else f", file type {contents.file_type}"
    recipe += f" ({contents.recipe})" if contents.recipe is not None else ""
    matrix = ", with an importance matrix" if contents.imatrix else ""
    by = f", by {contents.quantized_by}" if contents.quantized_by else ""
    return f"{named}, {contents.bits_per_weight:.2f} bits per weight{recipe}{matrix}{by}"


def _tokenizer(contents: Contents) -> str | None:
    names = "/".join(name for name in (contents.tokenizer, contents.pre_tokenizer) if name)
    size = f"{tokens(contents.vocab_size)} tokens" if contents.vocab_size is not None else None
    return ", ".join(part for part in (names, size) if part) or None


def _words(contents: Contents) -> Iterator[str]:
    """What nobody checked: the publisher's words about licence, languages and origin."""
    if contents.license:
        yield f"licence {contents.license}"
    if contents.organization:
        yield f"by {contents.organization}"
    if contents.languages:
        yield f"languages {', '.join(contents.languages)}"
    if contents.base_models:
        yield f"made from {', '.join(contents.base_models)}"


def _shares(shares: Sequence[Share], names: dict[str, str]) -> list[str]:
    rows = [
        (names.get(share.name, share.name), str(share.tensors), _small(share.size_bytes), units.percent(share.share))
        for share in shares
    ]
    return columns(("", "tensors", "size", "share"), rows, right=(1, 2, 3))


def _small(size_bytes: int) -> str:
    """Bytes as everywhere, and in KiB where a tenth of a MiB says nothing."""
    return f"{size_bytes / 1024:.1f} KiB" if 0 < size_bytes < 1 << 19 else units.gib(size_bytes)
