"""Which part of a model a tensor belongs to, by llama.cpp's names for it and by the kind of its layer.

The mistake it prevents is one heap called "weights": experts may stay in RAM, an embedding is only looked up in, a
delta-net layer keeps no cache. The kind of a layer is read off its tensors and off the caches that the engine made for
it, so a new mixture of known layers needs no rule here. Names that are not known count as ``other``, never as nothing.
"""

import re
from collections.abc import Iterable, Mapping

from planner.engine.holdings import HeldCache
from planner.types.explanation import PartName

__all__ = ["layer_kinds", "layer_of", "part_of"]

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
# Inside a layer the first that matches; attention itself bears the kind of its layer.
_INSIDE: tuple[tuple[re.Pattern[str], PartName], ...] = (
    (re.compile(r"_(?:ch)?exps\b"), "routed-experts"),
    (re.compile(r"_shexp\b"), "shared-experts"),
    (re.compile(r"^(?:ffn_gate_inp|ffn_gate_tid2eid|(?:ffn_)?exp_probs_b)"), "routers"),
    (re.compile(r"norm"), "norms"),
    (re.compile(r"^indexer"), "indexer"),
    (re.compile(r"^hc_|_res_score\b"), "connections"),
    (re.compile(r"^ple_"), "lookup"),
    (re.compile(r"^(?:ffn_|channel_mix_)"), "feed-forward"),
)
_OUTSIDE: tuple[tuple[re.Pattern[str], PartName], ...] = (
    (re.compile(r"norm"), "norms"),
    (re.compile(r"^output\."), "head"),
    (re.compile(r"^(?:token_embd|position_embd|token_types)"), "embedding"),
    (re.compile(r"^per_layer_"), "lookup"),
    (re.compile(r"^output_(?:hc_|res_score)"), "connections"),
)
_RECURRENT = ("ssm_", "time_mix_", "shortconv.")
_LATENT = ("attn_kv_a_mqa", "attn_kv_b", "attn_k_b", "attn_v_b")
_MTP = "nextn."


def layer_of(name: str) -> int | None:
    """The number of the layer that a tensor belongs to; ``None`` outside the layers."""
    match = _BLOCK.match(name)
    return None if match is None else int(match[1])


def layer_kinds(names: Iterable[str], caches: Iterable[HeldCache]) -> dict[int, PartName]:
    """What each layer has for attention: full, window, latent (MLA), recurrent; ``mtp`` for a drafting block."""
    kinds: dict[int, PartName] = {}
    held = {kind: _layers(caches, kind) for kind in ("attention", "window")}
    for name in names:
        match = _BLOCK.match(name)
        if match is None:
            continue
        layer, found = int(match[1]), _told_by(match[2])
        default: PartName = "window-attention" if layer in held["window"] - held["attention"] else "attention"
        known = kinds.setdefault(layer, default)
        if found is not None and known != "mtp":
            kinds[layer] = found
    return kinds


def part_of(name: str, kinds: Mapping[int, PartName]) -> PartName:
    """The part of the model that a tensor belongs to; ``kinds`` as :func:`layer_kinds` tells them."""
    match = _BLOCK.match(name)
    if match is None:
        return _outside(name)
    kind = kinds.get(int(match[1]), "attention")
    return "mtp" if kind == "mtp" else _inside(match[2], kind)


def _inside(name: str, kind: PartName) -> PartName:
    if name.startswith(("attn_", *_RECURRENT)) and "norm" not in name and "_res_" not in name:
        return kind
    return next((part for pattern, part in _INSIDE if pattern.search(name)), "other")


def _outside(name: str) -> PartName:
    return next((part for pattern, part in _OUTSIDE if pattern.search(name)), "other")


def _told_by(name: str) -> PartName | None:
    """What one tensor tells of its layer; most tell nothing."""
    if name.startswith(_MTP):
        return "mtp"
    if name.startswith(_RECURRENT):
        return "recurrent-attention"
    return "latent-attention" if name.startswith(_LATENT) else None


def _layers(caches: Iterable[HeldCache], kind: str) -> set[int]:
    return {layer for cache in caches if cache.kind == kind for layer in cache.layers or ()}
