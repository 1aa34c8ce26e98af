"""What the engine holds beside its buffers for a context: graphs' metadata, the scheduler's tables, caches' cells.

None of it is in a log line. For most models it is 2 MiB; but a hybrid's graph is planned for 40 nodes (Kimi K3: 160)
for each token of a micro-batch, so with 4,096 of them the metadata of one graph takes 70 MiB (270), and the engine
keeps two or three. The mistake it prevents is a constant.

Rules of ``src/llama-context.cpp`` (``sched_reserve``, ``process_ubatch``), ``src/llama-graph.cpp``
(``llm_graph_result::reset``), ``src/llama-kv-cells.h`` and ``ggml/src/ggml-backend.cpp`` (``ggml_backend_sched_new``)
of llama.cpp at commit 0c1e57098; the sizes in them are asked from the engine.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from typing import Any

from llama import Engine  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["structures"]

_MAX_NODES = "_ZNK13llama_context15graph_max_nodesEj"
_TENSORS = "_ZNK11llama_model9n_tensorsEv"
_CELLS = re.compile(r"size = .*\( *(\d+) cells, +\d+ layers, +\d+/(\d+) seqs\)")
# A cell's position, place in a picture and token, shift, and one bit for each of 256 sequences.
_CELL_BYTES = 4 + 12 + 4 + 32
# Every cache knows for each sequence that there could be (256) which positions it has: a tree's head each.
_STREAM_BYTES = 256 * 48
# Name, shape and place of a tensor: in the file's table, in the model's, and in two maps by name.
_TENSOR_BYTES = 2048
_SPLIT_INPUTS, _OBJECT_BYTES = 30, 32  # GGML_SCHED_MAX_SPLIT_INPUTS, struct ggml_object
_KEPT_GRAPHS = 2
"""The one planned with, and the one that ran last; a prompt of several micro-batches leaves another behind."""


def structures(eng: Engine, model: Any, context: Any, lines: Sequence[str]) -> dict[str, Any]:
    """``structures_bytes``, ``graph_bytes`` (metadata of one graph) and ``vocabulary_tokens`` of a context.

    ``structures_bytes`` counts two graphs; both are ``None`` where this build does not tell its limit of nodes.
    ``scheduler_bytes`` is what the scheduler asks for in case that several devices take part; it stays unwritten.
    """
    vocabulary = int(eng.api.llama_vocab_n_tokens(eng.api.llama_model_get_vocab(model)))
    try:
        nodes = getattr(eng.llama, _MAX_NODES)
        hashed, overhead = eng.ggml.ggml_hash_size, eng.ggml.ggml_graph_overhead_custom
        tensor = eng.ggml.ggml_tensor_overhead
        tensors = getattr(eng.llama, _TENSORS)
    except AttributeError:
        return {"structures_bytes": None, "graph_bytes": None, "scheduler_bytes": 0, "vocabulary_tokens": vocabulary}
    nodes.restype, nodes.argtypes = ctypes.c_uint32, [ctypes.c_void_p, ctypes.c_uint32]
    hashed.restype, hashed.argtypes = ctypes.c_size_t, [ctypes.c_size_t]
    overhead.restype, overhead.argtypes = ctypes.c_size_t, [ctypes.c_size_t, ctypes.c_bool]
    tensor.restype, tensor.argtypes = ctypes.c_size_t, []
    tensors.restype, tensors.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    tokens = min(int(eng.api.llama_n_ctx(context)), int(eng.api.llama_n_ubatch(context)))
    most = int(nodes(context, tokens))
    graph = most * int(tensor()) + int(overhead(most, False))
    # Per place of the scheduler's table: the key, its backend, its copy, and a bit that it is used.
    scheduler = int(hashed(most)) * (8 + 4 + 8) + int(hashed(most)) // 8
    found = [match for line in lines if (match := _CELLS.search(line))]
    cells = sum(int(match[1]) * int(match[2]) * _CELL_BYTES + int(match[2]) * _STREAM_BYTES for match in found)
    copies = most * _SPLIT_INPUTS * 2 * (int(tensor()) - _OBJECT_BYTES)
    held = _KEPT_GRAPHS * graph + scheduler + cells + int(tensors(model)) * _TENSOR_BYTES + 4 * vocabulary
    return {
        "structures_bytes": held,
        "graph_bytes": graph,
        "scheduler_bytes": copies,
        "vocabulary_tokens": vocabulary,
    }
