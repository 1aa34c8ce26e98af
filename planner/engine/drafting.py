"""Knows what llama-server makes of its settings for whoever drafts: the model's own block, or a second model.

The mistake it prevents: planning the drafts with the main context's cache type, outputs or layers. Source:
``common_base_params_to_speculative`` and ``common_speculative_init_result`` of llama.cpp at commit 0c1e57098.
"""

import msgspec

from planner.types.settings import Settings

__all__ = ["draft_model", "second_context"]

_PADDING = 256
"""The engine rounds a context up to a multiple of this (``llama_context``'s constructor)."""


def second_context(settings: Settings) -> Settings:
    """Settings of the context in which a model's own block drafts, on the weights of the first.

    As many tokens as the first context has in the end, one output for each sequence, and a cache type of its own.
    """
    return msgspec.structs.replace(
        settings,
        context_tokens=_padded(settings),
        cache_type_k=settings.draft_cache_type_k,
        cache_type_v=settings.draft_cache_type_v,
        outputs_max=settings.parallel,
    )


def draft_model(settings: Settings) -> Settings:
    """Settings under which a second, small model is loaded to draft: layers of its own, nothing moved by name."""
    return msgspec.structs.replace(
        second_context(settings),
        speculation="none",
        gpu_layers=settings.draft_gpu_layers,
        tensor_overrides=(),
        cpu_moe_layers=0,
    )


def _padded(settings: Settings) -> int:
    """Tokens of the whole context after the engine has rounded it, each sequence's share for itself."""
    whole = _up(settings.context_tokens)
    return whole if settings.kv_unified else _up(whole // settings.parallel) * settings.parallel


def _up(tokens: int) -> int:
    return -(-tokens // _PADDING) * _PADDING
