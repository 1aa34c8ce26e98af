"""The phantoms that a calibration times: which kinds of work each of them tells apart, and how long they may take.

Each is a few layers of a catalogue architecture in sizes that real models have. The mistakes it prevents: weights that
fit into the last-level cache and seem faster than any real model's, two types in one phantom whose costs no sample
tells apart, and minutes spent on long prompts of slow types where one layer says as much as twenty.
Pure: a catalogue in, layouts out.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from planner.catalogue import Catalogue
from planner.gguf.ggml_types import TYPES, tensor_bytes
from planner.types.measurement import Test
from planner.types.model import Layout, Model
from planner.types.settings import CacheType

__all__ = ["COMMON_TYPES", "REFERENCE", "WEIGHT_TYPES", "Probe", "probes", "reference_layout"]

COMMON_TYPES = ("Q4_K", "Q6_K", "Q8_0", "Q4_0", "Q5_K", "IQ4_XS", "Q3_K", "Q2_K", "BF16", "Q5_0")
"""Types that the usual quantizations are made of, the most usual first."""
WEIGHT_TYPES = (
    *COMMON_TYPES, "IQ4_NL", "MXFP4", "F16", "Q4_1", "Q5_1", "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS",
    "IQ1_M", "IQ1_S",
)  # fmt: skip
"""Every type that a quantization of the catalogue gives to a weight."""
_REFERENCE_TYPE = "Q8_0"
REFERENCE = f"{_REFERENCE_TYPE.lower()}-few"
"""The probe that stands for the machine itself: a usual type, read from RAM."""
_EXPERT_TYPES = ("Q4_K", "Q8_0", "Q6_K", "Q4_0")
"""Types of experts that are timed: one of each way in which kernels work. What experts of the others take is told from
their products of all tokens (``costs_priors``)."""
_HEAD_TYPES = ("Q6_K", "Q8_0")
_WIDE_TYPES = ("Q4_K", "Q8_0")
_STRIP_TYPE = "Q6_K"

_CACHE_MULTIPLE = 3.0
_COMMON_MULTIPLE = 4.0
_CODEBOOK_MULTIPLE = 1.2
"""How often the weights of a phantom for few columns fill the last-level cache: what a cache keeps of three times its
size is seen where a kernel is as fast as RAM, and never where it looks up codebooks."""
_VISITED_MULTIPLE = 1.5
_MOST_EXPERT_BYTES = 400 << 20
_MOST_LAYERS = 24
_THIN_ANSWER = 8
_VOCABULARY = 512
_DEEP = 3072
_TOGETHER = 8
"""Sequences that a phantom whose few columns are timed has room for: steps of so many answers use one graph again and
again, while each prompt builds its own."""
_STEPS = 1
_ANSWER = 2
"""Tokens of an answer: each takes as long in one of sixteen tokens as in one of one, and many short ones are of more
moments than few long ones."""
_PLAIN = {"n_vocab": _VOCABULARY, "tied": True}


class Probe(NamedTuple):
    """One phantom to time: layout, context (of ``parallel`` sequences), tests, and how important it is (0 first)."""

    label: str
    layout: Layout
    tests: tuple[Test, ...]
    context_tokens: int = 1024
    cache_type: CacheType = "f16"
    rank: int = 0
    parallel: int = 1


def probes(known: Catalogue, *, cache_bytes: int, quick: bool = False) -> tuple[Probe, ...]:
    """The phantoms of a calibration in the order of their importance; ``cache_bytes`` is the last-level cache."""
    design = _Design(known, cache_bytes)
    found = [*design.structures(), *design.types(COMMON_TYPES[:6] if quick else WEIGHT_TYPES)]
    found += design.experts(_EXPERT_TYPES[:2] if quick else _EXPERT_TYPES)
    found += design.heads(_HEAD_TYPES[:1] if quick else _HEAD_TYPES)
    found += design.wide(_WIDE_TYPES[:1] if quick else _WIDE_TYPES)
    found.append(design.strips(_STRIP_TYPE))
    return tuple(sorted(found, key=lambda each: each.rank))


def reference_layout(known: Catalogue, *, cache_bytes: int) -> Layout:
    """The phantom that stands for the machine itself: usual layers that no cache of ``cache_bytes`` holds."""
    (few, _) = _Design(known, cache_bytes).types((_REFERENCE_TYPE,))
    return few.layout


class _Design:
    """Probes made of one catalogue for one size of the last-level cache."""

    def __init__(self, known: Catalogue, cache_bytes: int) -> None:
        self._known = known
        self._cache_bytes = cache_bytes

    def types(self, types: tuple[str, ...]) -> list[Probe]:
        """For each type a phantom that is read from RAM, for few columns, and one layer of it for many."""
        found: list[Probe] = []
        for kind in types:
            # Of the last layer a prompt passes through the attention alone: two are the fewest that say something.
            two = self._dense(kind, n_layer=2)
            few_rank, many_rank = _ranks(kind)
            multiple = _COMMON_MULTIPLE if few_rank == 1 else _CACHE_MULTIPLE
            if kind.startswith(("IQ1", "IQ2", "IQ3")):
                multiple = _CODEBOOK_MULTIPLE
            layers = min(_MOST_LAYERS, max(2, math.ceil(2 * multiple * self._cache_bytes / _bytes(two))))
            few = self._dense(kind, n_layer=layers)
            found.append(Probe(f"{kind.lower()}-few", few, _steps(), rank=few_rank, parallel=_TOGETHER))
            found.append(Probe(f"{kind.lower()}-many", two, _tests(0, 0, 32, 256), rank=many_rank))
        return found

    def experts(self, types: tuple[str, ...]) -> list[Probe]:
        """Layers of experts in each type, a quarter of them visited by a token, and those alone more than the cache.

        Else the experts that two tokens in a row have in common are still in the cache, and few of real ones are. For
        many tokens eight experts do, two of them visited: eight and 48 times, as by prompts of real models.
        """
        found = []
        for kind in types:
            few = _steps(2, 8)
            found.append(Probe(f"{kind.lower()}-experts", self._visited(kind), few, rank=3, parallel=_TOGETHER))
            many = self._mixture(kind, n_layer=2, n_expert=8, n_expert_used=2)
            found.append(Probe(f"{kind.lower()}-experts-many", many, _tests(0, 0, 32, 192), rank=3))
        return found

    def _visited(self, kind: str) -> Layout:
        """Two or more layers whose visited experts are once and a half the cache; few large ones, many small ones."""
        for n_expert in (32, 16):
            two = self._mixture(kind, n_layer=2, n_expert=n_expert, n_expert_used=n_expert // 4)
            if _bytes(two) <= _MOST_EXPERT_BYTES:
                break
        layers = math.ceil(2 * 4 * _VISITED_MULTIPLE * self._cache_bytes / _bytes(two))
        most = max(2, 2 * _MOST_EXPERT_BYTES // _bytes(two))
        return self._mixture(kind, n_layer=min(most, max(2, layers)), n_expert=n_expert, n_expert_used=n_expert // 4)

    def _mixture(self, kind: str, **shape: int) -> Layout:
        return self._layout(self._model("qwen3-30b-a3b", {**_PLAIN, "n_head": 8, "n_head_kv": 2, **shape}), kind)

    def heads(self, types: tuple[str, ...]) -> list[Probe]:
        """Heads that share the embedding's table, as small models have them, for one sequence and for several."""
        shape = {"n_layer": 1, "n_embd": 1024, "n_ff": 1024, "n_head": 8, "n_head_kv": 2, "tied": True}
        model = self._model("qwen3-0.6b", shape)
        return [
            Probe(f"{kind.lower()}-head", self._layout(model, kind), _steps(), rank=1 + place, parallel=_TOGETHER)
            for place, kind in enumerate(types)
        ]

    def wide(self, types: tuple[str, ...]) -> list[Probe]:
        """Two layers as wide as those of large models: with the narrow ones they tell a product from its bytes."""
        shape = {"n_layer": 2, "n_embd": 4096, "n_ff": 6144, "n_head": 32, "n_head_kv": 8, **_PLAIN}
        model = self._model("qwen3-8b", shape)
        few = (*_steps(2, 4), *_tests(0, 0, 128))
        return [
            Probe(f"{kind.lower()}-wide", self._layout(model, kind), few, rank=1, parallel=_TOGETHER) for kind in types
        ]

    def strips(self, kind: str) -> Probe:
        """Rows that kernels of several columns read in the shortest strips: they tell what one costs."""
        layout = self._dense(kind, n_layer=16, n_embd=1280, n_ff=1280)
        return Probe(f"{kind.lower()}-strips", layout, _together(8), rank=2, parallel=_TOGETHER)

    def structures(self) -> list[Probe]:
        """What is not weights: the call and its operations, attention of several shapes, recurrent states, the head.

        Where depth is timed, weights and cache together are several times the last-level cache: in a real model the
        weights of one token push the cache of the context out before the next token needs it.
        """
        # So thin that its weights, which stay in the cache, are next to nothing.
        thin = {"n_layer": 24, "n_embd": 128, "n_ff": 256, "n_head": 2, "n_head_kv": 1, "head_dim": 64, **_PLAIN}
        answers = (*_tests(0, _ANSWER), *_tests(1024, _ANSWER), *_tests(2048, _ANSWER))
        prompts = (*_tests(0, 0, 512), *_tests(1024, 0, 256))
        return [
            Probe(
                "thin",
                self._layout(self._model("qwen3-0.6b", thin), "Q8_0"),
                (*_steps(2, 8, answer=_THIN_ANSWER), *_tests(0, 0, 32, 512)),
                parallel=_TOGETHER,
            ),
            Probe("attention-128", self._attending(16, heads=32, kv_heads=8), answers, _DEEP),
            Probe("attention-256", self._attending(10, heads=16, kv_heads=4, width=256), answers, _DEEP, rank=2),
            Probe("attention-all", self._attending(6, heads=16, kv_heads=16), answers[2:], _DEEP, rank=2),
            Probe("attention-two", self._attending(32, heads=16, kv_heads=2), answers[1:], _DEEP, rank=1),
            Probe("attention-short", self._attending(12, heads=16, kv_heads=16, width=64), answers[2:], _DEEP, rank=2),
            Probe(
                "attention-64", self._attending(48, heads=14, kv_heads=2, width=64, n_ff=1024), answers, _DEEP, rank=1
            ),
            Probe("prompt-128", self._attending(2, heads=32, kv_heads=8), prompts, _DEEP, rank=1),
            Probe("hybrid", self._hybrid(), (*_steps(4), *_tests(0, 0, 32, 128)), rank=2, parallel=_TOGETHER),
            Probe("prompt-256", self._attending(2, heads=16, kv_heads=4, width=256), prompts, _DEEP, rank=2),
            Probe("prompt-64", self._attending(2, heads=14, kv_heads=2, width=64), prompts[:1], _DEEP, rank=2),
            Probe("latent", self._latent(8), answers, _DEEP, rank=2),
            Probe("prompt-latent", self._latent(2), prompts[:1], _DEEP, rank=2),
            Probe("attention-q8_0", self._attending(16, heads=32, kv_heads=8), answers[1:], _DEEP, "q8_0", 4),
            Probe("prompt-q8_0", self._attending(2, heads=32, kv_heads=8), _tests(512, 0, 64), _DEEP, "q8_0", 4),
        ]

    def _attending(self, n_layer: int, *, heads: int, kv_heads: int, width: int = 128, n_ff: int = 512) -> Layout:
        """Layers that do little but attend."""
        shape = {"n_layer": n_layer, "n_embd": 512, "n_ff": n_ff, "n_head": heads, "n_head_kv": kv_heads}
        return self._layout(self._model("qwen3-1.7b", {**shape, "head_dim": width, **_PLAIN}), "Q8_0")

    def _dense(self, kind: str, *, n_layer: int, n_embd: int = 2048, n_ff: int = 3072) -> Layout:
        shape = {"n_layer": n_layer, "n_embd": n_embd, "n_ff": n_ff, "n_head": 8, "n_head_kv": 4, **_PLAIN}
        return self._layout(self._model("qwen3-1.7b", shape), kind)

    def _hybrid(self) -> Layout:
        """One period of Qwen3.5: three layers with a state, one that attends."""
        return self._layout(self._model("qwen3.5-4b", {"n_layer": 4, "n_ff": 1024, **_PLAIN}), "Q8_0")

    def _latent(self, n_layer: int) -> Layout:
        shape = {
            "n_layer": n_layer,
            "n_expert": 4,
            "n_expert_used": 2,
            "n_ff": 1024,
            "n_ff_exp": 512,
            "n_vocab": _VOCABULARY,
        }
        return self._layout(self._model("deepseek-v2-lite", shape), "Q8_0")

    def _model(self, name: str, shape: Mapping[str, int | bool]) -> Model:
        model = self._known.model(name)
        return msgspec.structs.replace(model, shape={**model.shape, **shape})

    def _layout(self, model: Model, kind: str) -> Layout:
        return _typed(self._known.layout(model), kind)


def _ranks(kind: str) -> tuple[int, int]:
    """How important a type is for few columns and for many: answers of all usual types come before prompts of most."""
    if kind not in COMMON_TYPES:
        return 5, 6
    place = COMMON_TYPES.index(kind)
    return (1, 1 if place < 3 else 2) if place < 6 else (2, 4)


def _typed(layout: Layout, kind: str) -> Layout:
    """The layout with every weight in one type; what quantizing leaves alone keeps its own."""
    tensors = tuple(
        msgspec.structs.replace(each, type=kind)
        if each.type == "BF16" and len(each.dims) > 1 and each.dims[0] % TYPES[kind].block == 0
        else each
        for each in layout.tensors
    )
    return msgspec.structs.replace(layout, tensors=tensors)


def _bytes(layout: Layout) -> int:
    return sum(tensor_bytes(each.type, each.dims) for each in layout.tensors)


def _steps(*together: int, answer: int = _ANSWER) -> tuple[Test, ...]:
    """Answers of one sequence and of several at once, each a few tokens long."""
    return (Test(kind="generate", tokens=answer), *_together(*together or (2, 4, 8)))


def _together(*counts: int) -> tuple[Test, ...]:
    return tuple(Test(kind="generate", tokens=_STEPS, sequences=count) for count in counts)


def _tests(depth: int, answer: int, *prompts: int) -> tuple[Test, ...]:
    generate = (Test(kind="generate", tokens=answer, depth=depth),) if answer else ()
    return (*generate, *(Test(kind="prompt", tokens=tokens, depth=depth) for tokens in prompts))
