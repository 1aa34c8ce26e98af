"""A header as a phantom's layout: the very tensors, types and metadata of that file, or of a slice of its layers.

No architecture is known here. A slice keeps some blocks, numbers them anew and cuts what has one entry per layer; the
mistake it prevents is a layer count that stays behind in one of the keys, so that the engine looks for layers that
are gone. Pure: headers in, layouts out.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from planner.types.header import Header
from planner.types.metadata import GgufValue
from planner.types.model import Layout, MetadataValue, TensorSpec

__all__ = ["header_layout", "header_shape_key"]

_BLOCK: Final = re.compile(r"blk\.(\d{1,4})\.(.+)", re.DOTALL)
_TOKENIZER: Final = ("tokenizer.", "split.")
_VOCABULARY: Final = "tokenizer.ggml.model"
_KEPT_OF_TOKENIZER: Final = frozenset({"tokenizer.ggml.token_type_count"})  # a dimension of BERT's embeddings
_COUNTED_FROM_THE_FRONT: Final = ("leading_dense_block_count", "hash_layer_count")
_COUNTED_FROM_THE_END: Final = ("nextn_predict_layers",)
_SHARED: Final = "attention.shared_kv_layers"
_NOT_PER_LAYER: Final = re.compile(r"rope\.dimension_sections$|^general\.")
_INTERVAL, _RECURRENT = "full_attention_interval", "attention.recurrent_layers"
_LISTED: Final = {"ple.layers": "per_layer_token_embd.weight"}  # layers by number → the table that they alone read
_CANNOT_BE_CUT: Final = ("target_layers", "decoder_block_count")


def header_layout(header: Header, layers: Sequence[int] | None = None) -> Layout:
    """Metadata and tensors of ``header``, with a vocabulary of equal size but without words.

    ``layers`` are the original indices of the blocks to keep, ascending (one may repeat); ``None`` keeps the file as it
    is. Raises ValueError for layers that the file does not have, and for a file whose layers cannot be told apart.
    """
    metadata = _metadata(header)
    everything = range(header.block_count)
    if layers is None:
        return Layout(
            architecture=header.architecture, metadata=metadata, tensors=header.tensors, layers=tuple(everything)
        )
    kept = tuple(layers)
    if not kept or list(kept) != sorted(kept) or kept[0] < 0 or kept[-1] >= len(everything):
        raise ValueError(f"layers must be ascending indices below {len(everything)}, not {kept}")
    uncut = [name for name in _CANNOT_BE_CUT if f"{header.architecture}.{name}" in metadata]
    if uncut:
        raise ValueError(f"{header.architecture}.{uncut[0]} names single layers: this model cannot be cut")
    cut = _cut(header, metadata, kept)
    unread = {table for name, table in _LISTED.items() if _is_empty(cut.get(f"{header.architecture}.{name}"))}
    tensors = tuple(tensor for tensor in _cut_tensors(header.tensors, kept) if tensor.name not in unread)
    return Layout(architecture=header.architecture, metadata=cut, tensors=tensors, layers=kept)


def header_shape_key(header: Header, layers: Sequence[int] | None = None) -> str:
    """A key that is equal for headers (or slices) of which the engine gives the same sizes and speeds.

    It hashes the architecture's own metadata and every tensor's name, shape and type; what a file says about its name,
    licence or importance matrix changes nothing.
    """
    layout = header_layout(header, layers)
    own = sorted(
        (key, value)
        for key, value in layout.metadata.items()
        if key.startswith(f"{header.architecture}.") or key in _KEPT_OF_TOKENIZER
    )
    content = [layout.architecture, header.alignment, [(k, repr(v)) for k, v in own], layout.tensors]
    return "gguf-" + hashlib.blake2b(msgspec.json.encode(content), digest_size=12).hexdigest()


def _metadata(header: Header) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for key, value in header.metadata.items():
        if key == _VOCABULARY:
            metadata[key] = GgufValue(type="str", value="no_vocab")
        elif key in _KEPT_OF_TOKENIZER or not key.startswith(_TOKENIZER):
            metadata[key] = value
    metadata.setdefault(_VOCABULARY, GgufValue(type="str", value="no_vocab"))
    if header.vocab_size is not None:
        metadata[f"{header.architecture}.vocab_size"] = GgufValue(type="u32", value=header.vocab_size)
    return metadata


def _cut(header: Header, metadata: dict[str, MetadataValue], kept: tuple[int, ...]) -> dict[str, MetadataValue]:
    """The metadata of a slice: counts of layers counted again, arrays with one entry per layer cut."""
    whole = header.block_count
    trunk = whole - (header.number("nextn_predict_layers") or 0)
    counts = _counts(header, kept, trunk)
    cut: dict[str, MetadataValue] = {}
    for key, value in metadata.items():
        name = key.removeprefix(f"{header.architecture}.")
        if not isinstance(value, GgufValue):
            cut[key] = value
        elif name in counts and isinstance(value.value, int):
            cut[key] = GgufValue(type=value.type, value=counts[name])
        elif name in _LISTED and isinstance(value.value, tuple):
            listed = tuple(place for place, layer in enumerate(kept) if layer in value.value)
            cut[key] = GgufValue(type=value.type, value=listed)
        elif isinstance(value.value, tuple) and value.type != "[str]" and not _NOT_PER_LAYER.search(name):
            cut[key] = _cut_array(value, value.value, kept, whole, trunk)
        else:
            cut[key] = value
    interval = header.number(_INTERVAL)
    recurrent = f"{header.architecture}.{_RECURRENT}"
    if interval and recurrent not in cut:
        # The engine derives the kind of a layer from its number, which a slice changes; this key says it outright.
        pattern = tuple(layer < trunk and (layer + 1) % interval != 0 for layer in kept)
        cut[recurrent] = GgufValue(type="[bool]", value=pattern)
    return cut


def _counts(header: Header, kept: tuple[int, ...], trunk: int) -> dict[str, int]:
    """Every count of layers that a header may hold, for a slice."""
    counts = {"block_count": len(kept)}
    for name in _COUNTED_FROM_THE_FRONT:
        counts[name] = sum(layer < (header.number(name) or 0) for layer in kept)
    for name in _COUNTED_FROM_THE_END:
        counts[name] = sum(layer >= trunk for layer in kept)
    counts[_SHARED] = sum(trunk - (header.number(_SHARED) or 0) <= layer < trunk for layer in kept)
    return counts


def _is_empty(value: MetadataValue | None) -> bool:
    return isinstance(value, GgufValue) and value.value == ()


def _cut_array(
    value: GgufValue, entries: tuple[str | float, ...], kept: tuple[int, ...], whole: int, trunk: int
) -> GgufValue:
    if len(entries) == whole:
        return GgufValue(type=value.type, value=tuple(entries[layer] for layer in kept))
    if len(entries) == trunk:
        return GgufValue(type=value.type, value=tuple(entries[layer] for layer in kept if layer < trunk))
    return value


def _cut_tensors(tensors: Sequence[TensorSpec], kept: tuple[int, ...]) -> list[TensorSpec]:
    found: list[TensorSpec] = []
    places: dict[int, list[int]] = {}
    for place, layer in enumerate(kept):
        places.setdefault(layer, []).append(place)
    for tensor in tensors:
        match = _BLOCK.fullmatch(tensor.name)
        if match is None:
            found.append(tensor)
            continue
        found += [
            TensorSpec(name=f"blk.{place}.{match[2]}", dims=tensor.dims, type=tensor.type)
            for place in places.get(int(match[1]), ())
        ]
    return found
