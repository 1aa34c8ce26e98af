"""Draws configurations at random: a model or a slice of it, a quantization, and every setting that changes memory.

Equal seeds give equal draws. Architectures are drawn first, so that those of few models count as much as those of many.
Giants come as slices: one layer of each kind and some more, and for half of them fewer routed experts, so that a
layer is small enough to be loaded many times. What the engine derives from a layer's place (a hybrid whose every fourth
layer attends) is kept by taking the beginning of the model.
"""

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from planner import catalogue
from planner.gguf.ggml_types import tensor_bytes
from planner.measure.slices import kinds_of_layers
from planner.types.model import Layout, Model
from planner.types.settings import CACHE_TYPES, Settings

__all__ = ["Case", "Draw", "Part", "flops"]

_CONTEXTS = (
    256, 512, 1000, 1024, 2048, 3000, 4096, 6000, 8192, 12288, 16384, 24576, 32768, 49152, 65536, 98304, 131072
)  # fmt: skip
_UBATCHES = (32, 64, 100, 128, 256, 512, 512, 512, 768, 1024, 2048, 4096)
_EXPERTS = (16, 32, 64)
_WHOLE_LAYERS_AT_MOST = 128


class Part(NamedTuple):
    """A model, or what is left of it: the original ``layers`` kept, ``experts`` routed ones in each (``None``: all)."""

    model: str
    layers: tuple[int, ...] | None = None
    experts: int | None = None

    def shape(self, catalogued: catalogue.Catalogue) -> Model:
        """The model with that many experts."""
        model = catalogued.model(self.model)
        if self.experts is None:
            return model
        return msgspec.structs.replace(model, shape={**model.shape, "n_expert": self.experts})

    def layout(self, catalogued: catalogue.Catalogue) -> Layout:
        """Its metadata and unquantized tensors."""
        return catalogued.layout(self.shape(catalogued), self.layers)


class Case(NamedTuple):
    """One configuration: the model or part, its quantization and what differs from the default settings."""

    part: Part
    quantization: str
    changes: dict[str, object]

    @property
    def settings(self) -> Settings:
        """The whole settings."""
        return msgspec.convert(self.changes, Settings)

    @property
    def row(self) -> dict[str, object]:
        """As it is recorded; :meth:`from_row` reads it again."""
        return {**self.part._asdict(), "quantization": self.quantization, "settings": self.changes}

    @staticmethod
    def from_row(row: dict[str, object]) -> "Case":
        """The configuration of a recorded row."""
        layers = msgspec.convert(row["layers"], tuple[int, ...] | None)
        part = Part(str(row["model"]), layers, msgspec.convert(row["experts"], int | None))
        return Case(part, str(row["quantization"]), msgspec.convert(row["settings"], dict[str, object]))


class Draw:
    """Random configurations of ``catalogued``, of these ``architectures`` only if any are named.

    ``max_flops`` bounds the work of one micro-batch, so that hundreds of them run within minutes.
    """

    def __init__(
        self, catalogued: catalogue.Catalogue, seed: int, *, max_flops: float, architectures: Sequence[str] = ()
    ) -> None:
        self._catalogued = catalogued
        self._random = random.Random(seed)  # noqa: S311 - a draw, no secret
        self._max_flops = max_flops
        self._models: dict[str, list[Model]] = {}
        for model in catalogued.models.values():
            if not architectures or model.architecture in architectures:
                self._models.setdefault(model.architecture, []).append(model)
        self._queue: list[str] = []
        self._last = ""

    def case(self, least_bytes: int, most_bytes: int) -> Case:
        """The next configuration whose weights would take between the two at 4.5 bits each, or little more."""
        if not self._queue:
            self._queue = sorted(self._models)
            self._random.shuffle(self._queue)
        self._last = self._queue.pop()
        model = self._random.choice(self._models[self._last])
        target = math.exp(self._random.uniform(math.log(least_bytes), math.log(most_bytes)))
        part = self._part(model, int(target * 16 / 4.5))
        quantization = self._random.choice(list(self._catalogued.quantizations))
        return Case(part, quantization, self._settings(part))

    def again(self) -> None:
        """The next configuration is of the same architecture as the last one."""
        self._queue.append(self._last)

    def _part(self, model: Model, target_bytes: int) -> Part:
        """The whole where it is small enough, else one layer of each kind, then more of them up to ``target_bytes``."""
        whole = Part(model.id)
        layout = whole.layout(self._catalogued)
        if _bytes(layout) <= target_bytes and len(layout.layers) <= _WHOLE_LAYERS_AT_MOST:
            return whole
        kept = self._cover(layout)
        experts = self._fewer_experts(model)
        part, full = Part(model.id, kept, experts), Part(model.id, kept)
        if self._random.random() < 0.5 and _bytes(full.layout(self._catalogued)) <= target_bytes:
            part = full
        while True:
            grown = Part(model.id, self._grown(layout, part.layers or ()), part.experts)
            if grown == part or _bytes(grown.layout(self._catalogued)) > target_bytes:
                return part
            part = grown

    def _fewer_experts(self, model: Model) -> int | None:
        count, used = model.shape.get("n_expert"), model.shape.get("n_expert_used")
        if not isinstance(count, int) or not isinstance(used, int) or count <= _EXPERTS[0]:
            return None
        fitting = [each for each in _EXPERTS if used <= each < count]
        return self._random.choice(fitting) if fitting else None

    def _cover(self, layout: Layout) -> tuple[int, ...]:
        """One layer of each kind; the beginning where a layer's place tells the engine what it is."""
        kinds = [tuple((suffix, dims) for suffix, dims, _ in kind) for kind in kinds_of_layers(layout)]
        first = {kind: index for index, kind in reversed(list(enumerate(kinds)))}
        if any(key.endswith(("full_attention_interval", "compress_ratios")) for key in layout.metadata):
            return tuple(range(max(first.values()) + 1))
        return tuple(sorted(first.values()))

    def _grown(self, layout: Layout, kept: tuple[int, ...]) -> tuple[int, ...]:
        """One layer more, or a period where the place counts; the same when there is none."""
        total = len(layout.layers)
        predicting = layout.metadata.get(f"{layout.architecture}.nextn_predict_layers", 0)
        trunk = total - (predicting if isinstance(predicting, int) else 0)
        if kept == tuple(range(len(kept))):
            more = tuple(range(min(trunk, len(kept) + len(kept))))
            return more if len(more) > len(kept) else kept
        missing = [each for each in range(trunk) if each not in kept]
        return tuple(sorted((*kept, self._random.choice(missing)))) if missing else kept

    def _settings(self, part: Part) -> dict[str, object]:
        """Every setting that means something on a CPU, the usual values more often than the odd ones."""
        pick, chance = self._random.choice, self._random.random
        changes: dict[str, object] = {"context_tokens": pick(_CONTEXTS), "threads": pick((1, 2))}
        changes["threads_batch"] = changes["threads"]
        changes |= self._cache_settings()
        if chance() < 0.5:
            changes["parallel"] = self._random.randint(2, 8)
        changes["ubatch"] = self._ubatch(part)
        if chance() < 0.4:
            changes["batch"] = pick((64, 256, 512, 1024, 4096))
        if chance() < 0.4:
            changes["outputs_max"] = pick((changes.get("parallel", 1), 8, 8, 64, 512))
        changes["load_mode"] = pick(("mmap", "mmap", "none", "none", "mlock", "mmap+mlock", "dio"))
        if chance() < 0.3:
            changes["repack"] = False
        return changes

    def _cache_settings(self) -> dict[str, object]:
        """Cache types, flash attention, what of the cache is shared and kept; now and then what the engine refuses."""
        pick, chance = self._random.choice, self._random.random
        changes: dict[str, object] = {}
        if chance() < 0.35:
            changes["kv_unified"] = True
        if chance() < 0.25:
            changes["swa_full"] = True
        if chance() < 0.6:
            changes["cache_type_k"] = changes["cache_type_v"] = pick(CACHE_TYPES)
        if chance() < 0.3:
            changes["cache_type_v"] = pick(CACHE_TYPES)
        if chance() < 0.4:
            changes["flash_attention"] = pick(("on", "off"))
        if changes.get("flash_attention") == "off" and chance() < 0.8:
            changes["cache_type_v"] = pick(("f16", "bf16", "f32"))  # without flash attention no other is allowed
            if chance() < 0.6:
                changes["cache_type_k"] = changes["cache_type_v"]
        return changes

    def _ubatch(self, part: Part) -> int:
        work = flops(part.layout(self._catalogued))
        fitting = [each for each in _UBATCHES if each * work <= self._max_flops]
        return self._random.choice(fitting) if fitting else _UBATCHES[0]


def flops(layout: Layout) -> float:
    """Operations for one token of a prompt: two for each weight that it passes through."""
    shape = layout.metadata
    count, used = (shape.get(f"{layout.architecture}.{key}", 0) for key in ("expert_count", "expert_used_count"))
    share = used / count if isinstance(count, int) and isinstance(used, int) and count else 1.0
    total = 0.0
    for tensor in layout.tensors:
        if tensor.name.startswith("blk.") and len(tensor.dims) > 1:
            total += 2.0 * math.prod(tensor.dims) * (share if "exps" in tensor.name else 1.0)
    return total


def _bytes(layout: Layout) -> int:
    return sum(tensor_bytes(tensor.type, tensor.dims) for tensor in layout.tensors)
