"""What a language model is: shape, names, licence, sources. Sizes come from shapes, never from names."""

import math
from typing import Literal

from planner.types import Record
from planner.types.metadata import GgufValue

__all__ = [
    "Counted",
    "KnownModel",
    "Layout",
    "License",
    "MetadataValue",
    "Model",
    "Quantization",
    "Shape",
    "TensorSpec",
    "Thinking",
    "Vision",
]

Shape = dict[str, int | float | bool | tuple[int, ...]]
"""Symbolic dimensions of an architecture's tensor layout (``n_layer``, ``n_embd`` …) and their values.

A tuple holds one number per layer (``compress_ratios``) or the layers that something is in (``full_attn_layers``).
"""

Thinking = Literal["none", "hybrid", "always"]
Counted = Literal["text", "text+mtp", "text+mtp+vision", "text-without-embeddings", "text-without-lookup"]
"""What a published parameter count covers; publishers do not agree, and a name says nothing about it."""
MetadataValue = str | int | float | bool | tuple[int | float | bool, ...] | GgufValue
"""A GGUF metadata value: integers are written as u32, floats as f32, tuples as arrays (one entry per layer); a
:class:`~planner.types.metadata.GgufValue` is written as the type it names."""


class License(Record, frozen=True, kw_only=True):
    """A licence by name and what it says about commercial use; ``None`` is "not read in a source".

    ``commercial`` is true where selling what the model makes needs no further agreement (``note`` tells the limits).
    ``verified``: whether a source was read that names this licence for this very model, not only for its family.
    ``allows`` and ``asks`` say in short what its text (at ``source``) gives and wants; ``None`` where nobody tells it.
    """

    id: str
    commercial: bool | None = None
    verified: bool = False
    note: str | None = None
    allows: tuple[str, ...] | None = None
    asks: tuple[str, ...] | None = None
    source: str | None = None


class Vision(Record, frozen=True, kw_only=True):
    """The part that sees: a file of its own beside the model's (mmproj), loaded only when pictures are wanted.

    ``mmproj_bytes`` is that file in F16. ``note`` says whether it was published or computed from ``parameters``.
    """

    parameters: int | None = None
    mmproj_bytes: int | None = None
    note: str


class Model(Record, frozen=True, kw_only=True):
    """One model of the catalogue.

    ``parameters`` is the count computed from the shape (text trunk, no MTP block, no vision tower);
    ``parameters_active`` the share a token passes through (equal to ``parameters`` when dense). The published count may
    cover more or less: ``published_counts`` says what. ``mtp_parameters`` is the block that predicts further tokens
    (``None``: there is none, or nobody says); ``lookup_parameters`` the part of ``parameters`` that is a table of which
    a token reads a few rows.
    ``generation`` orders generations over all families: a larger number is newer.
    ``released_verified`` and ``license.verified`` are true where the fact was read in a source about this very model.
    ``languages`` are the ISO 639-1 codes (639-3 where there is none) that a source names, ``languages_claimed`` the
    number its publisher claims, dialects included: a list shorter than the claim may not be the whole list
    (:meth:`speaks`).
    ``thinking_tokens`` is the usual number of tokens before an answer where somebody measured it; ``thinking_note``
    says what that was, and the limits that a publisher gives.
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
    published_counts: Counted = "text"
    mtp_parameters: int | None = None
    lookup_parameters: int | None = None
    vision: Vision | None = None
    generation: float
    released: str | None
    released_verified: bool = False
    context_native: int
    context_extended: int | None
    license: License
    languages: tuple[str, ...] | None
    languages_claimed: int | None = None
    languages_note: str | None = None
    thinking: Thinking
    thinking_tokens: int | None = None
    thinking_note: str | None = None
    uses: tuple[str, ...]
    hf_repo: str | None
    modelscope_id: str | None
    confidence: Literal["high", "medium"]
    sources: tuple[str, ...]
    notes: str | None = None

    def size(self, name: str) -> int | None:
        """A whole number of the shape by its name (``n_layer``); ``None`` when the shape has no such number."""
        value = self.shape.get(name)
        return int(value) if isinstance(value, int | float) else None

    def speaks(self, language: str) -> bool | None:
        """Whether a source names the language (a code as in ``languages``); ``None`` when the list may be longer."""
        if self.languages is not None and language.casefold() in self.languages:
            return True
        complete = self.languages is not None and (self.languages_claimed or 0) <= len(self.languages)
        return False if complete else None


class KnownModel(Record, frozen=True, kw_only=True):
    """A model that exists but cannot be planned: its shape is not known well enough, or the engine cannot run it.

    ``reason`` is the sentence that says why; nothing is computed for such a model.
    """

    id: str
    name: str
    family: str
    vendor: str
    architecture: str | None
    parameters_published: float | None
    released: str | None
    context_native: int | None
    license: License | None
    hf_repo: str | None
    modelscope_id: str | None
    sources: tuple[str, ...]
    reason: str
    notes: str | None = None


class Quantization(Record, frozen=True, kw_only=True):
    """A recipe that ``llama_model_quantize`` offers (``Q4_K_M``), with a published measure of what it loses.

    ``ftype`` is the recipe's number; ``None`` says that a file's own header tells the type of each tensor. ``kld`` is
    the mean Kullback–Leibler divergence against the unquantized model on the reference model named in ``kld_source``;
    ``None`` where nobody published one.
    """

    name: str
    ftype: int | None
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
