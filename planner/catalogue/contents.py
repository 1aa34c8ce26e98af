"""What a header's tensors are made of: bytes by type, and by the part of the model that they belong to.

Where the bytes are decides what can be moved and what a token reads: experts may stay in RAM, the embedding is only
looked up in. The mistake it prevents is judging a file by the one type in its name; a Q4_K_M is a third something else.
"""

import math
import re
from collections.abc import Callable, Iterable

from planner.gguf.ggml_types import tensor_bytes
from planner.types.header import Header
from planner.types.inspection import Share
from planner.types.model import TensorSpec

__all__ = ["GROUPS", "bits_per_weight", "group_of", "shares_by_group", "shares_by_type"]

GROUPS = ("embedding", "attention", "feed-forward", "experts", "mtp", "head", "other")
"""The groups in the order in which they are told.

``attention`` holds what stands in its place (recurrent states, indexers), ``feed-forward`` also routers and shared
experts, which every token passes; ``experts`` are the routed ones, ``mtp`` the blocks that predict further tokens.
"""

_BLOCK = re.compile(r"blk\.(\d{1,4})\.(.+)")
_ROUTED = re.compile(r"_(?:ch)?exps\.")
_OUTSIDE = {
    "token_embd.weight": "embedding",
    "per_layer_token_embd.weight": "embedding",
    "position_embd.weight": "embedding",
    "output.weight": "head",
    "output.bias": "head",
}
_ATTENTION = ("attn_", "ssm_", "indexer", "shortconv", "time_mix")
_FEED_FORWARD = ("ffn_", "exp_probs_b", "channel_mix")


def shares_by_type(header: Header) -> tuple[Share, ...]:
    """The tensors by ggml type, the one with most bytes first."""
    shares = _shares(header.tensors, lambda tensor: tensor.type)
    return tuple(sorted(shares, key=lambda share: (-share.size_bytes, share.name)))


def shares_by_group(header: Header) -> tuple[Share, ...]:
    """The tensors by the part of the model, in the order of :data:`GROUPS`; empty groups are left out."""
    trunk = header.block_count - (header.number("nextn_predict_layers") or 0)
    shares = _shares(header.tensors, lambda tensor: group_of(tensor.name, trunk))
    return tuple(sorted(shares, key=lambda share: GROUPS.index(share.name)))


def group_of(name: str, trunk: int) -> str:
    """The group of a tensor by llama.cpp's name of it; blocks from number ``trunk`` on predict further tokens."""
    match = _BLOCK.match(name)
    if match is None:
        return _OUTSIDE.get(name, "other")
    if int(match[1]) >= trunk:
        return "mtp"
    if _ROUTED.search(name):
        return "experts"
    if match[2].startswith(_ATTENTION):
        return "attention"
    return "feed-forward" if match[2].startswith(_FEED_FORWARD) else "other"


def bits_per_weight(header: Header) -> float:
    """Bits of the tensors over the numbers in them, those of norms and tables included; 0 for a file without any."""
    values = sum(math.prod(tensor.dims) for tensor in header.tensors)
    bits = 8 * sum(tensor_bytes(tensor.type, tensor.dims) for tensor in header.tensors)
    return bits / values if values else 0.0


def _shares(tensors: Iterable[TensorSpec], name_of: Callable[[TensorSpec], str]) -> list[Share]:
    sums: dict[str, tuple[int, int, int]] = {}
    for tensor in tensors:
        name = name_of(tensor)
        count, values, size = sums.get(name, (0, 0, 0))
        more = (math.prod(tensor.dims), tensor_bytes(tensor.type, tensor.dims))
        sums[name] = (count + 1, values + more[0], size + more[1])
    total = sum(size for _, _, size in sums.values())
    return [
        Share(name=name, tensors=count, values=values, size_bytes=size, share=size / total if total else 0.0)
        for name, (count, values, size) in sums.items()
    ]
