"""A compute buffer that holds whatever build of llama.cpp runs the plan, on a card that is not here.

The mistake it prevents: a promise to the byte, made by one build and kept by another. Where the card is here the engine
that answers is the engine that runs, and nothing is added.

Source: published load logs of mainline builds of 2024 to 2026 (``bench/memory_logs.py``): no device of theirs is above
this, but for the causes listed with the results.
"""

from planner.types.settings import Settings

__all__ = ["compute_bound_bytes", "host_logits_bytes"]

_SHARE = 0.10
_CONSTANT_BYTES = 16 << 20
_PIPELINE_COPIES = 4


def compute_bound_bytes(compute_bytes: int, settings: Settings, *, devices: int) -> int:
    """The safe bound of a compute buffer of ``compute_bytes`` with the engine that was asked, on one of ``devices``.

    Other builds keep the attention mask in F32 and a second time in F16: two bytes more for each copy of it (a pipeline
    of several cards has four) and two for the other. The share and the constant are for graphs in another order.
    """
    pipeline = (
        devices > 1
        and settings.split_mode == "layer"
        and settings.gpu_layers == -1
        and settings.kv_offload
        and not settings.tensor_overrides
        and not settings.cpu_moe_layers
    )
    copies = _PIPELINE_COPIES if pipeline else 1
    cells = settings.context_tokens if settings.kv_unified else settings.context_tokens // settings.parallel
    mask = settings.ubatch * cells
    return round(compute_bytes * (1 + _SHARE)) + (2 * copies + 2) * mask + _CONSTANT_BYTES


def host_logits_bytes(vocabulary_tokens: int, settings: Settings) -> int:
    """What a host's bound takes in addition where the head's weights lie in RAM beside a card.

    Today a card multiplies a head that it does not hold (it copies the weights over for a long prompt) and keeps the
    logits of the micro-batch; builds of early 2025 made them on the host: one F32 for each word and token.
    """
    return 4 * vocabulary_tokens * settings.ubatch
