"""What files hold and what a header says, for ``planner inspect``: listed first, and read only where one was meant.

The mistake it prevents is a download of forty headers to answer "which quantizations are there?".
"""

from pathlib import Path

import msgspec

from planner import catalogue, hub
from planner.catalogue.contents import bits_per_weight, shares_by_group, shares_by_type
from planner.catalogue.headers import count_parameters, find_origin
from planner.engine.child import EngineChild
from planner.engine.headers import read_header
from planner.errors import UsageError
from planner.types.artifact import Artifact, Reference, Repository
from planner.types.header import Header
from planner.types.inspection import Contents, Inspection, file_set

__all__ = ["inspect"]


def inspect(model: str, *, quantization: str | None = None, engine_python: str | None = None) -> Inspection:
    """The files that ``model`` names and, where that is one model, what its header says.

    Raises :class:`UsageError` for a name of the catalogue or an unknown one, what :func:`planner.hub.find` raises for
    files that are not there or not permitted, BadInputError (code ``bad-gguf``) for a broken header.
    """
    known = catalogue.load()
    reference = _reference(model, quantization, known)
    found = hub.find(reference)
    models = found.models
    notes = list(found.notes)
    if found.listed_at is not None:
        notes.append(f"the listing is of {found.listed_at}: the network may not be used")
    contents = None
    if len(models) == 1:
        with EngineChild(engine_python) as child:
            contents = _contents(_read(models[0], child), models[0], known)
    return Inspection(
        reference=reference.text,
        hub=found.hub,
        name=found.name,
        page=found.page,
        commit=found.commit,
        gated=found.gated,
        license=found.licence,
        base_models=found.base_models,
        files=tuple(file_set(artifact) for artifact in _all_files(found)),
        contents=contents,
        notes=tuple(notes),
    )


def _reference(model: str, quantization: str | None, known: catalogue.Catalogue) -> Reference:
    reference = hub.parse_reference(model)
    if reference is None:
        name = known.find(model.partition(":")[0]).id
        raise UsageError(
            f"{name} is a name of the catalogue and no file",
            hint=f"planner show {name} tells what is known about it; inspect takes hf:owner/repo, a path or an address",
            code="not-a-file",
        )
    if quantization is None:
        return reference
    if reference.quantization is not None:
        raise UsageError(f"{reference.text} names a quantization already", hint="leave out --quant")
    return msgspec.structs.replace(reference, quantization=quantization)


def _all_files(found: Repository) -> tuple[Artifact, ...]:
    """The models first, then what lies beside them."""
    return (*found.models, *(artifact for artifact in found.artifacts if artifact.kind != "model"))


def _read(artifact: Artifact, child: EngineChild) -> Header:
    files = hub.header_files(artifact)
    sizes = [each.file_bytes for each in files]
    return read_header(child, [Path(each.path) for each in files], file_bytes=sizes, name=artifact.name)


def _contents(header: Header, artifact: Artifact, known: catalogue.Catalogue) -> Contents:
    facts, count = header.facts, count_parameters(header)
    origin = find_origin(header, known)
    layers_mtp = header.number("nextn_predict_layers") or 0
    recipes = {recipe.ftype: recipe.name for recipe in known.quantizations.values()}
    template = header.long.get("tokenizer.chat_template")
    pre = header.metadata.get("tokenizer.ggml.pre")
    return Contents(
        name=header.name,
        quantization=artifact.quantization,
        title=facts.name,
        kind=header.kind,
        architecture=header.architecture,
        parameters=count.total,
        parameters_active=count.active,
        parameters_mtp=count.mtp or None,
        layers=header.block_count - layers_mtp,
        layers_mtp=layers_mtp,
        context_native=header.number("context_length"),
        embedding=header.number("embedding_length"),
        heads=_in_every_layer(header, "attention.head_count"),
        heads_kv=_in_every_layer(header, "attention.head_count_kv"),
        experts=header.number("expert_count") or None,
        experts_used=header.number("expert_used_count") or None,
        vocab_size=header.vocab_size,
        tokenizer=header.tokenizer_model,
        pre_tokenizer=pre.value if pre is not None and isinstance(pre.value, str) else None,
        chat_template_sha256=header.chat_template_sha256,
        chat_template_bytes=template.length if template is not None else None,
        license=facts.license,
        organization=facts.organization,
        languages=facts.languages,
        base_models=facts.base_models,
        quantized_by=facts.quantized_by,
        imatrix=facts.imatrix,
        file_type=facts.file_type,
        recipe=recipes.get(facts.file_type) if facts.file_type is not None else None,
        bits_per_weight=bits_per_weight(header),
        header_bytes=header.header_bytes,
        data_bytes=header.data_bytes,
        file_bytes=header.file_bytes if header.file_bytes is not None else artifact.size_bytes,
        parts=header.parts,
        gguf_version=header.version,
        alignment=header.alignment,
        tensor_types=shares_by_type(header),
        tensor_groups=shares_by_group(header),
        taken_for=origin.model.id if origin is not None else None,
        taken_for_why=origin.how if origin is not None else None,
        conversion=origin is not None and origin.exact,
        warnings=(*header.warnings, *_warnings(header)),
    )


def _warnings(header: Header) -> tuple[str, ...]:
    """Why this file could not be planned, where that is plain from the header."""
    if header.kind != "model":
        return (f"its type is {header.kind!r}: it is no language model and cannot be planned",)
    if not header.block_count or header.number("context_length") is None:
        return ("it names no layers or no context length, so it cannot be planned",)
    return ()


def _in_every_layer(header: Header, key: str) -> int | None:
    """A number that holds for all layers; ``None`` where it differs from layer to layer, or is not told."""
    found = header.metadata.get(f"{header.architecture}.{key}")
    if found is None:
        return None
    values = set(found.value) if isinstance(found.value, tuple) else {found.value}
    value = values.pop() if len(values) == 1 else None
    return value if type(value) is int else None
