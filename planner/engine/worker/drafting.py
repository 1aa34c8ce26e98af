"""Plans the second context, in which a model drafts for itself with its block for multi-token prediction.

llama-server makes it on the same weights, with a cache for that block alone, samples in the graph, and keeps the hidden
state of every token of a batch in the first context. The mistake to prevent is planning the first context alone: the
second takes compute buffers of its own, about as large.

Source: ``common/speculative.cpp`` and ``llama_context::output_reserve`` of llama.cpp at commit 0c1e57098.
"""

from __future__ import annotations

import ctypes
from typing import Any

from breakdown import breakdown
from errors import Refused
from llama import Engine  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["drafting", "drafts_itself", "keep_hidden_states"]

_CANDIDATES = 10  # the top-k of the drafts' sampler
_HIDDEN = "_Z26llama_set_embeddings_nextnP13llama_contextbb"
_RESERVE = "_ZN13llama_context13sched_reserveEv"


def drafts_itself(eng: Engine, model: Any) -> None:
    """Raise :class:`Refused` unless the model has a block that predicts further tokens."""
    count = getattr(eng.llama, "llama_model_n_layer_nextn", None)
    if count is None:
        raise Refused("this llama.cpp build cannot draft with a model's own block")
    count.restype, count.argtypes = ctypes.c_int32, [ctypes.c_void_p]
    if count(model) < 1:
        raise Refused("the model has no block for multi-token prediction; draft with another model or not at all")


def keep_hidden_states(eng: Engine, context: Any, settings: dict[str, Any]) -> int:
    """Let the first context hand its hidden states to the drafting one; the bytes of its output buffer from then on.

    Logits of each sequence's token and its drafts, and the hidden state of every token of a batch.
    """
    _hidden_states(eng, context, masked=False)
    model = eng.api.llama_get_model(context)
    batch = int(eng.api.llama_n_batch(context))
    outputs = min(batch, int(settings.get("parallel", 1)) * (1 + int(settings.get("draft_tokens", 3))))
    return 4 * (_vocabulary(eng, model) * outputs + int(eng.api.llama_model_n_embd_out(model)) * batch)


def drafting(eng: Engine, model: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The buffers of the second context under its own settings, as :func:`memory.ask` answers them."""
    drafts_itself(eng, model)
    eng.take_lines()
    try:
        context = eng.make_context(model, settings, drafting=True)
    except Refused as refusal:
        return {"refused": str(refusal)}
    sequences = int(settings.get("parallel", 1))
    chains = [_sampler(eng, context, sequence) for sequence in range(sequences)]
    try:
        _hidden_states(eng, context, masked=True)
        if any(chains):
            eng.take_lines()
            reserve = getattr(eng.llama, _RESERVE)
            reserve.restype, reserve.argtypes = None, [ctypes.c_void_p]
            reserve(context)
        lines = eng.take_lines()
        vocabulary, width = _vocabulary(eng, model), int(eng.api.llama_model_n_embd_out(model))
        # With sampling in the graph: logits, probabilities, candidates and the token that was drawn.
        floats = vocabulary * (4 if any(chains) else 1) + (1 if any(chains) else 0) + width
        return {
            "buffers": breakdown(eng, context, lines),
            "output_bytes": 4 * floats * sequences,
            "work_bytes": None,
            "log": [line.strip() for line in lines if " size = " in line],
        }
    finally:
        eng.api.llama_free(context)
        for chain in chains:
            if chain:
                eng.api.llama_sampler_free(chain)


def _sampler(eng: Engine, context: Any, sequence: int) -> Any:
    """The drafts' sampler in the graph of one sequence, ``None`` where the device cannot do it."""
    chain = eng.api.llama_sampler_chain_init(eng.api.llama_sampler_chain_default_params())
    eng.api.llama_sampler_chain_add(chain, eng.api.llama_sampler_init_top_k(_CANDIDATES))
    if eng.api.llama_set_sampler(context, sequence, chain):
        return chain
    eng.api.llama_sampler_free(chain)
    return None


def _hidden_states(eng: Engine, context: Any, *, masked: bool) -> None:
    function = getattr(eng.llama, _HIDDEN, None)
    if function is None:
        raise Refused("this llama.cpp build cannot draft with a model's own block")
    function.restype, function.argtypes = None, [ctypes.c_void_p, ctypes.c_bool, ctypes.c_bool]
    function(context, True, masked)


def _vocabulary(eng: Engine, model: Any) -> int:
    return int(eng.api.llama_vocab_n_tokens(eng.api.llama_model_get_vocab(model)))
