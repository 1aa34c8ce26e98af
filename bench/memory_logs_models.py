"""From a published log to the model it loaded: its layout, and the type of each tensor where that can be known.

The mistake it prevents is a comparison of two different files: a name like Q4_K_M says little about a dynamic mix, so
the types count as known only where they give the very counts that the log prints, and the file's size.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from memory_logs_records import Log, ModelEntry, Told

from planner.catalogue import Catalogue
from planner.catalogue.architectures import read_architecture
from planner.engine.oracle import Oracle
from planner.errors import PlannerError
from planner.gguf.ggml_types import tensor_bytes
from planner.types.metadata import GgufValue
from planner.types.model import Layout, License, Model, Quantization, TensorSpec

__all__ = ["File", "Models", "UnknownModelError"]

_HERE = Path(__file__).parent
_GIB = 1 << 30
_DIMENSIONS = ("n_layer", "n_embd", "n_vocab", "n_head")


class UnknownModelError(Exception):
    """The log's model cannot be laid out; the text says why."""


class File(NamedTuple):
    """The tensors of a log's file. ``types`` says where their types come from.

    ``"recipe"``: llama-quantize's own, and the log's counts agree. ``"mix"``: worked out from the counts, tensor by
    tensor. ``"mix, in total"``: the same, but the counts leave open which layers have which. ``"assumed"``: not known;
    only what does not depend on them is compared.
    """

    model_id: str
    architecture: str
    layout: Layout
    types: str

    @property
    def weights_known(self) -> bool:
        """Whether the bytes of single tensors are known, so that each device can be compared."""
        return self.types in {"recipe", "mix"}

    @property
    def total_known(self) -> bool:
        """Whether the bytes of all tensors together are known."""
        return self.types != "assumed"


class Models:
    """Finds models and files of logs, each once; ``oracle`` makes the dry runs of quantizing."""

    def __init__(self, known: Catalogue, told: Told, oracle: Oracle) -> None:
        self._known, self._told, self._oracle = known, told, oracle
        self._files: dict[tuple[object, ...], File] = {}

    def file(self, log: Log) -> File:
        """The file that ``log`` loaded. Raises :class:`UnknownModelError`."""
        counts = tuple(sorted((log.tensor_type_counts or {}).items()))
        key = (
            log.model_normalised,
            log.quant,
            log.gguf_file,
            counts,
            log.id if self._told.of(log).get("quant") else None,
        )
        if key not in self._files:
            self._files[key] = self._find(log)
        return self._files[key]

    def _find(self, log: Log) -> File:
        model_id, key, layout = self._layout(log)
        layout = _as_converted(layout, log)
        mix = self._told.mix(log)
        if mix is not None:
            typed = _retyped(layout, {each.name: mix.type_of(each.name, each.type) for each in layout.tensors})
            if not _agrees(typed, log):
                raise UnknownModelError(
                    f"the mix of {mix.file} does not give the counts and the size that the log prints"
                )
            return File(model_id, layout.architecture, typed, "mix" if mix.exact else "mix, in total")
        nearest: Layout | None = None
        if _agrees(layout, log):
            return File(model_id, layout.architecture, layout, "recipe")
        recipe_told = self._told.of(log).get("quant") is not None
        for recipe in self._recipes(log):
            typed = self._oracle.typed_layout(f"{key}-{len(layout.tensors)}", lambda: layout, recipe)
            if recipe_told or _agrees(typed, log):
                return File(model_id, layout.architecture, typed, "recipe")
            nearest = nearest or typed
        return File(model_id, layout.architecture, nearest or layout, "assumed")

    def _layout(self, log: Log) -> tuple[str, str, Layout]:
        """Id, shape key and unquantized layout of the model of ``log``."""
        for entry in self._told.models:
            if log.model_normalised in entry.names:
                model = _bare(entry)
                folder = _HERE / "data" / "architectures"
                path = folder / f"{entry.architecture}.toml"
                if not path.exists():
                    path = _HERE.parent / "profiles" / "architectures" / path.name
                architecture = read_architecture(path)
                return model.id, architecture.shape_key(model), architecture.layout(model)
        model = self._catalogued(log)
        vocabulary = log.dimension("n_vocab")
        if vocabulary and model.size("n_vocab") != vocabulary:  # a fine-tune that cut the table to its tokens
            model = msgspec.structs.replace(model, shape={**model.shape, "n_vocab": vocabulary})
        return model.id, self._known.shape_key(model), self._known.layout(model)

    def _catalogued(self, log: Log) -> Model:
        named = str(self._told.of(log).get("model") or re.sub(r"[ -]MTP.*| \(.*", "", log.model_normalised))
        try:
            return self._known.model(named)
        except PlannerError as error:
            alike = [each for each in self._known.models.values() if _same_shape(each, log)]
            if alike and log.arch:
                return alike[0]
            raise UnknownModelError(f"{log.model_normalised} is not in the catalogue: {error}") from error

    def _recipes(self, log: Log) -> Iterator[Quantization]:
        """The recipe that the log's label names, without and with an importance matrix."""
        printed = str(self._told.of(log).get("quant") or log.quant or "")
        label = re.sub(r"^(\w+) - Medium$", r"\1_M", printed).replace(" - Small", "_S").split(" ")[0]
        recipes = self._known.quantizations
        if label in recipes:
            yield recipes[label]
            if recipes[label].ftype is not None and not recipes[label].needs_imatrix:
                # Kept by name, so the variant needs one of its own.
                yield msgspec.structs.replace(recipes[label], name=f"{label}+imatrix", needs_imatrix=True)
        elif "Q4_K_M" in recipes:
            yield recipes["Q4_K_M"]


def _bare(entry: ModelEntry) -> Model:
    """A model that is only a shape: nothing else of it is asked."""
    return Model(
        id=entry.names[0].lower(),
        name=entry.names[0],
        family="",
        vendor="",
        architecture=entry.architecture,
        shape=entry.shape,
        parameters=0,
        parameters_active=0,
        parameters_published=None,
        generation=0.0,
        released=None,
        context_native=entry.context_native,
        context_extended=None,
        license=License(id="unknown"),
        languages=None,
        thinking="none",
        uses=(),
        hf_repo=None,
        modelscope_id=None,
        confidence="medium",
        sources=(),
    )


def _same_shape(model: Model, log: Log) -> bool:
    told = {name: log.dimension(name) for name in _DIMENSIONS}
    return model.architecture == log.arch and all(
        value == model.size(name) for name, value in told.items() if value and model.size(name)
    )


def _retyped(layout: Layout, types: dict[str, str]) -> Layout:
    tensors = (TensorSpec(name=each.name, dims=each.dims, type=types[each.name]) for each in layout.tensors)
    return msgspec.structs.replace(layout, tensors=tuple(tensors))


def _agrees(layout: Layout, log: Log) -> bool:
    """Whether a layout has the counts of types that the log prints, and rounds to its file size."""
    if not log.tensor_type_counts:
        return False
    counts = Counter(each.type.lower() for each in layout.tensors)
    if counts != {kind.lower(): count for kind, count in log.tensor_type_counts.items()}:
        return False
    size = sum(tensor_bytes(each.type, each.dims) for each in layout.tensors)
    return log.file_size_gib is None or abs(size / _GIB - log.file_size_gib) <= 0.006


def _as_converted(layout: Layout, log: Log) -> Layout:
    """The layout as the log's converter wrote it: before April 2025 DeepSeek's key-value projection was one tensor."""
    counts = log.tensor_type_counts or {}
    tensors = log.n_tensors or sum(counts.values())
    if layout.architecture == "deepseek2" and tensors and tensors < len(layout.tensors):
        return _unsplit(layout)
    if layout.architecture == "gpt-oss":
        kind = next((each.upper() for each in ("f16", "bf16", "q8_0") if counts.get(each)), "BF16")
        return _retyped(layout, {each.name: kind if each.type == "BF16" else each.type for each in layout.tensors})
    return layout


def _unsplit(layout: Layout) -> Layout:
    """``attn_k_b`` and ``attn_v_b`` as the one ``attn_kv_b`` of old files, whose cache holds whole heads."""
    joined: list[TensorSpec] = []
    heads = 0
    nope = value = rank = 0
    for each in layout.tensors:
        if each.name.endswith("attn_k_b.weight"):
            nope, rank, heads = each.dims
        elif each.name.endswith("attn_v_b.weight"):
            value = each.dims[1]
            name = each.name.replace("attn_v_b", "attn_kv_b")
            joined.append(TensorSpec(name=name, dims=(rank, heads * (nope + value)), type=each.type))
        else:
            joined.append(each)
    prefix = f"{layout.architecture}.attention."
    metadata = {key: value for key, value in layout.metadata.items() if not key.endswith("_length_mla")}
    rope = layout.metadata[f"{layout.architecture}.rope.dimension_count"]
    rotated = rope.value if isinstance(rope, GgufValue) else rope
    assert isinstance(rotated, int)
    metadata |= {f"{prefix}head_count_kv": heads, f"{prefix}key_length": nope + rotated, f"{prefix}value_length": value}
    return msgspec.structs.replace(layout, metadata=metadata, tensors=tuple(joined))
