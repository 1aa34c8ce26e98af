"""Small models for timing: the first layers of real ones at their real sizes, with a short vocabulary, in one type.

A head of 150,000 tokens would be most of such a model and is the same matrix product everywhere, so of the vocabulary
only so much is left that the head is a usual part of it.
"""

import msgspec

from planner import catalogue
from planner.gguf.ggml_types import TYPES
from planner.types.model import Layout

__all__ = ["small_model"]

VOCABULARY = 8192
_LARGE = 30_000


def small_model(name: str, layers: int, kind: str) -> Layout:
    """The first ``layers`` of a model of the catalogue, every weight that a quantizer would touch in ``kind``."""
    known = catalogue.load()
    layout = known.layout(known.model(name), layers)
    tensors = []
    for tensor in layout.tensors:
        dims = (tensor.dims[0], VOCABULARY) if len(tensor.dims) == 2 and tensor.dims[1] > _LARGE else tensor.dims
        fits = tensor.type == "BF16" and len(dims) > 1 and dims[0] % TYPES[kind].block == 0
        tensors.append(msgspec.structs.replace(tensor, dims=dims, type=kind if fits else tensor.type))
    metadata = {**layout.metadata, f"{layout.architecture}.vocab_size": VOCABULARY}
    return msgspec.structs.replace(layout, tensors=tuple(tensors), metadata=metadata)
