"""What a language model is: shape, names, licence, sources. Sizes come from shapes, never from names."""

import math
from typing import Literal

from planner.types import Record

__all__ = [
    "Languages",
    "Layout",
    "License",
    "MetadataValue",
    "Model",
    "Quantization",
    "Shape",
    "TensorSpec",
    "Thinking",
]

Shape = dict[str, int | float | bool]
"""Symbolic dimensions of an architecture's tensor layout (``n_layer``, ``n_embd`` …) and their values."""

Thinking = Literal["none", "hybrid", "always"]
Languages = str
MetadataValue = str | int | float | bool | tuple[int | float | bool, ...]
"""A GGUF metadata value: integers are written as u32, floats as f32, tuples as arrays (one entry per layer)."""


class License(Record, frozen=True, kw_only=True):
    """A licence by name and what it says about commercial use; ``None`` is "not read in a source"."""

    id: str
    commercial: bool | None
    note: str | None = None


class Model(Record, frozen=True, kw_only=True):
    """One model of the catalogue.

    ``parameters`` is the count computed from the shape (text trunk, no MTP block, no vision tower) and equals the
    published one; ``parameters_active`` the share a token passes through (equal to ``parameters`` when dense).
    ``generation`` orders generations inside the mission's families: a larger number is newer.
    """

    id: str
    name: str
    family: str
    vendor: str
    architecture: str
    shape: Shape
    parameters: int
    parameters_active: int
    parameters_published: float | None
    generation: float
    released: str | None
    context_native: int
    context_extended: int | None
    license: License
    languages: Languages | None
    thinking: Thinking
    uses: tuple[str, ...]
    hf_repo: str | None
    modelscope_id: str | None
    confidence: Literal["high", "medium", "low"]
    sources: tuple[str, ...]
    notes: str | None = None


class Quantization(Record, frozen=True, kw_only=True):
    """A recipe that ``llama_model_quantize`` offers (``Q4_K_M``), with a published measure of what it loses.

    ``kld`` is the mean Kullback–Leibler divergence against the unquantized model on the reference model named in
    ``kld_source``; ``None`` where nobody published one.
    """

    name: str
    ftype: int
    bits_per_weight: float
    kld: float | None
    kld_source: str | None
    needs_imatrix: bool = False
    moe_only: bool = False
    kld_without_imatrix: float | None = None
    note: str | None = None


class TensorSpec(Record, frozen=True, kw_only=True):
    """One tensor of a phantom: its GGUF name, ``dims`` in ggml order (fastest first) and ggml type name."""

    name: str
    dims: tuple[int, ...]
    type: str


class Layout(Record, frozen=True, kw_only=True):
    """What a phantom needs: the exact metadata and every tensor of a model, or of a slice of its layers.

    ``layers`` are the original indices of the layers that are kept, in order: block ``k`` of the phantom is block
    ``layers[k]`` of the model. ``elements`` counts every number in the file, as the engine's own count does; it
    exceeds :attr:`Model.parameters` by constants that the converter bakes in (``rope_freqs.weight``).
    """

    architecture: str
    metadata: dict[str, MetadataValue]
    tensors: tuple[TensorSpec, ...]
    layers: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Numbers in all tensors; equals ``llama_model_n_params``."""
        return sum(math.prod(tensor.dims) for tensor in self.tensors)

    def origin_of(self, name: str) -> str:
        """The name that tensor ``name`` of this layout has in the whole model (``blk.1.…`` → ``blk.40.…``)."""
        if not name.startswith("blk."):
            return name
        _, block, rest = name.split(".", 2)
        return f"blk.{self.layers[int(block)]}.{rest}"
