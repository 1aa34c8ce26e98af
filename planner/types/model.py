"""What a language model is: shape, names, licence, sources. Sizes come from shapes, never from names."""

from typing import Literal

from planner.types import Record

__all__ = ["Languages", "License", "Model", "Quantization", "Shape", "TensorSpec", "Thinking"]

Shape = dict[str, int | float | bool]
"""Symbolic dimensions of an architecture's tensor layout (``n_layer``, ``n_embd`` …) and their values."""

Thinking = Literal["none", "hybrid", "always"]
Languages = str


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
    note: str | None = None


class TensorSpec(Record, frozen=True, kw_only=True):
    """One tensor of a phantom: its GGUF name, ``dims`` in ggml order (fastest first) and ggml type name."""

    name: str
    dims: tuple[int, ...]
    type: str
