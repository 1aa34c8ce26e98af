"""A model of the catalogue's kind made from any GGUF header: what the file proves, and what is only known by its name.

Counts come from tensors. Where a model comes from is a guess from names, made only when the number of parameters agrees
as well, and the guess is written into ``notes``: the mistake it prevents is taking a stranger's file for the famous
model whose name it bears.
"""

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from planner.catalogue import Catalogue
from planner.errors import BadInputError
from planner.types.header import Header
from planner.types.model import License, Model, Shape, TensorSpec

__all__ = ["Count", "Origin", "count_parameters", "find_origin", "model_from_header"]

_BLOCK = re.compile(r"blk\.(\d{1,4})\.")
_ROUTED = re.compile(r"_(?:ch)?exps\.")
_INTEGERS = {"I8", "I16", "I32", "I64"}
# Constants that a converter bakes in: frequencies, and the scales of types that need one beside the blocks.
_CONSTANTS = re.compile(r"^rope_(?:freqs|factors)|\.(?:input_)?scale$")
_EMBEDDING, _HEAD, _LOOKUP = "token_embd.weight", "output.weight", "per_layer_token_embd.weight"
_COMMERCIAL = {"apache-2.0": "Apache-2.0", "mit": "MIT"}
_ENDINGS = ("-gguf", "-instruct", "-chat", "-it")
_EVERY_USE = ("chat", "code", "reasoning", "documents")


class Count(NamedTuple):
    """Parameters of the text trunk, those that a token passes through, those of an MTP block, and of lookup tables.

    ``lookup`` is part of ``total`` and not of ``active``; ``mtp`` is in neither.
    """

    total: int
    active: int
    mtp: int
    lookup: int


class Origin(NamedTuple):
    """The catalogue's model that a file comes from, whether it is that very model, and what says so."""

    model: Model
    exact: bool
    how: str


def count_parameters(header: Header) -> Count:
    """Parameters counted from the tensors, as the catalogue counts them.

    Of routed experts a token passes ``expert_used_count`` of ``expert_count``; the input embedding is only looked up
    in when there is a head of its own. Tables of indices and constants of the converter are no parameters.
    """
    trunk = header.block_count - (header.number("nextn_predict_layers") or 0)
    experts, used = header.number("expert_count") or 0, header.number("expert_used_count") or 0
    untied = any(tensor.name == _HEAD for tensor in header.tensors)
    total = mtp = lookup = routed = idle = 0
    for tensor in _counted(header.tensors):
        size = math.prod(tensor.dims)
        block = _BLOCK.match(tensor.name)
        if block is not None and int(block[1]) >= trunk:
            mtp += size
            continue
        total += size
        if _ROUTED.search(tensor.name):
            routed += size
        elif tensor.name == _LOOKUP:
            lookup += size
        elif tensor.name == _EMBEDDING and untied:
            idle += size
    share = used / experts if experts else 1.0
    # Without experts nothing is routed: the catalogue then counts every parameter as active, lookups aside.
    active = round(total - lookup - idle - routed * (1 - share)) if routed else total - lookup
    return Count(total, active, mtp, lookup)


def model_from_header(header: Header, *, id: str, known: Catalogue | None = None) -> Model:  # noqa: A002 - the field's name
    """The model that ``header`` describes, under ``id``; facts of the model it was converted from where one is found.

    Raises BadInputError (code ``bad-gguf``) for a header that lacks what every language model has.
    """
    context = header.number("context_length")
    if header.kind != "model" or not header.block_count or context is None:
        what = f"its type is {header.kind!r}" if header.kind != "model" else "it has no layers or no context length"
        raise BadInputError(
            f"{header.name}: no language model: {what}", hint="name the model's own file", code="bad-gguf"
        )
    count = count_parameters(header)
    origin = find_origin(header, known) if known is not None else None
    own = _from_file(header, count, id=id, context=context)
    if origin is None:
        return own
    return _with_origin(own, origin)


def _counted(tensors: Iterable[TensorSpec]) -> Iterator[TensorSpec]:
    return (tensor for tensor in tensors if tensor.type not in _INTEGERS and not _CONSTANTS.search(tensor.name))


def _from_file(header: Header, count: Count, *, id: str, context: int) -> Model:  # noqa: A002 - as above
    """The model with nothing but what the file itself says."""
    facts = header.facts
    licence = (facts.license or "").casefold()
    return Model(
        id=id,
        name=facts.name or header.name,
        family="unknown",
        vendor=facts.organization or "unknown",
        architecture=header.architecture,
        shape=_shape(header),
        parameters=count.total,
        parameters_active=count.active,
        parameters_published=None,
        mtp_parameters=count.mtp or None,
        lookup_parameters=count.lookup or None,
        generation=0.0,
        released=None,
        context_native=context,
        context_extended=None,
        license=License(
            id=_COMMERCIAL.get(licence, facts.license or "unknown"), commercial=True if licence in _COMMERCIAL else None
        ),
        languages=tuple(sorted({language.casefold() for language in facts.languages})) or None,
        thinking="none",
        uses=_EVERY_USE,
        hf_repo=None,
        modelscope_id=None,
        confidence="medium",
        sources=(f"the header of {header.name}",),
        notes="read from its header; origin, generation, uses and thinking are not known and count as plain",
    )


def _shape(header: Header) -> Shape:
    """What planning needs beside the tensors: the layers, and of how many experts a token passes how many."""
    named = {"n_expert": header.number("expert_count"), "n_expert_used": header.number("expert_used_count")}
    return {"n_layer": header.block_count, **{name: value for name, value in named.items() if value}}


def _with_origin(own: Model, origin: Origin) -> Model:
    """What the file proves, over what is known of the model it comes from."""
    source = origin.model
    if not origin.exact:
        notes = f"{origin.how}; family and generation are those of {source.id}, all else is from the header"
        return msgspec.structs.replace(
            own, family=source.family, vendor=source.vendor, generation=source.generation, notes=notes
        )
    return msgspec.structs.replace(
        source,
        id=own.id,
        shape=own.shape,
        mtp_parameters=own.mtp_parameters,
        lookup_parameters=own.lookup_parameters,
        context_native=own.context_native,
        languages=source.languages or own.languages,
        confidence="medium",
        sources=own.sources + source.sources,
        notes=f"taken for a conversion of {source.id}: {origin.how}, and the number of parameters is equal",
    )


def find_origin(header: Header, known: Catalogue) -> Origin | None:
    """The catalogue's model that this file was converted or made from: by its own name, else by the base it names."""
    facts = header.facts
    count = count_parameters(header)
    # Published counts leave lookup tables out, and some files hold a second copy of a head that is the embedding.
    head = sum(math.prod(tensor.dims) for tensor in header.tensors if tensor.name == _HEAD)
    counts = {count.total, count.total - count.lookup, count.total - head}
    equal = [
        model
        for model in known.models.values()
        if model.architecture == header.architecture and model.parameters in counts
    ]
    by_name = {name: model for model in equal for name in _names(model)}
    for said, how in (
        (facts.name, "general.name"),
        (_joined(facts.basename, facts.size_label, facts.finetune), "general.basename"),
        (_joined(facts.basename, facts.size_label), "general.basename"),
    ):
        found = by_name.get(_plain(said)) if said else None
        if said and found is not None:
            return Origin(found, exact=True, how=f"{how} says {said!r}")
    if len(facts.base_models) != 1:
        return None
    base = "/".join(facts.base_models[0].rstrip("/").split("/")[-2:]).casefold()
    for model in equal:
        if base in {(model.hf_repo or "").casefold(), (model.modelscope_id or "").casefold()}:
            # A file without a name of its own that states a base is a repackaging; with another name it is a child.
            exact = facts.name is None and facts.finetune is None
            return Origin(model, exact=exact, how=f"general.base_model says {base!r}")
    return None


def _names(model: Model) -> Iterator[str]:
    for name in (model.id, model.name, model.hf_repo, model.modelscope_id):
        if name:
            yield _plain(name)


def _joined(*words: str | None) -> str | None:
    return "-".join(word for word in words if word) if words[0] else None


def _plain(name: str) -> str:
    """A name as publishers mean it: no organisation, no case, no ``-Instruct`` and the like, one kind of separator."""
    short = re.sub(r"[\s_]+", "-", name.rsplit("/", 1)[-1].strip().casefold())
    for ending in _ENDINGS:
        short = short.removesuffix(ending)
    return short
