"""The referee of the memory tests: loads a model for real, runs it, and prints what its contexts hold.

It shares no code with the worker: parameters are set here, field by field, and sizes come from the engine's log and
from the allocations that it makes on the CPU. Reads ``{"path", "settings"}`` on stdin, prints one JSON object.
"""

import ctypes
import json
import re
import sys

import llama_cpp.llama_cpp as api

request = json.load(sys.stdin)
told = request["settings"]
lines = []
TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}
SCALING = {"none": 0, "yarn": 2}


@api.llama_log_callback
def keep(_level, text, _user):
    """The whole log."""
    lines.append(text.decode("utf-8", "replace"))


api.llama_log_set(keep, ctypes.c_void_p(0))
api.llama_backend_init()
model_params = api.llama_model_default_params()
model_params.load_mode = 0
model_params.use_extra_bufts = told["repack"]
model_params.lazy_mode = {"off": 0, "auto": 1, "on": 2}[told["lazy_mode"]]
model_params.load_mtp = told["speculation"] == "draft-mtp"
model = api.llama_model_load_from_file(request["path"].encode(), model_params)


def context(**changes):
    """A context with the settings, and with ``changes`` in it."""
    params = api.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = told["context_tokens"], told["batch"], told["ubatch"]
    params.n_seq_max, params.n_outputs_max = told["parallel"], told["outputs_max"]
    params.kv_unified, params.swa_full = told["kv_unified"], told["swa_full"]
    params.type_k, params.type_v = TYPES[told["cache_type_k"]], TYPES[told["cache_type_v"]]
    params.flash_attn_type = {"auto": -1, "off": 0, "on": 1}[told["flash_attention"]]
    params.n_threads = params.n_threads_batch = told["threads"]
    params.n_rs_seq = told["draft_tokens"] if told["speculation"] == "draft-mtp" else 0
    if "yarn" in request:
        params.rope_scaling_type = SCALING["yarn"]
        params.rope_freq_scale, params.yarn_orig_ctx = 1 / request["yarn"][0], request["yarn"][1]
    for name, value in changes.items():
        setattr(params, name, value)
    made = api.llama_init_from_model(model, params)
    if not made:
        sys.exit("refused: " + "".join(lines[-3:]))
    return made


def mib(pattern):
    """The sum of a kind of size in the log since it was last cleared."""
    return sum(float(size) for size in re.findall(pattern + r" = +([\d.]+) MiB", "".join(lines)))


def sizes():
    """Weights, cache and compute in MiB, as the log has them; what is logged again replaces what was planned first."""
    text = "".join(lines)
    computed = re.findall(r"compute buffer size = +([\d.]+) MiB", text)
    cache = sum(float(size) for size in re.findall(r"(?:KV|RS) buffer size = +([\d.]+) MiB", text))
    return {"cache": cache, "compute": float(computed[-1]) if computed else 0.0}


def decode(where, tokens, outputs, first, width=0):
    """One batch of sequence 0, the last ``outputs`` of its tokens asked for; with ``width`` hidden states go in."""
    batch = api.llama_batch_init(tokens, width, told["parallel"])
    batch.n_tokens = tokens
    if width:
        batch.token = (ctypes.c_int32 * tokens)()
        ctypes.memset(batch.embd, 0, 4 * tokens * width)
    for index in range(tokens):
        batch.token[index], batch.pos[index] = 7 + index, first + index
        batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
        batch.logits[index] = index >= tokens - outputs
    if api.llama_decode(where, batch) != 0:
        sys.exit("a batch could not be processed")


libllama = api._lib
answer = {"weights": mib("model buffer size")}
lines.clear()
first = context()
answer.update(sizes())
answer["output"] = mib("output buffer size")
lines.clear()

plan, reserve = libllama.ggml_graph_plan, libllama["_Z19llama_graph_reserveP13llama_contextjjj"]


class Plan(ctypes.Structure):
    """ggml_cplan, whose first field is the size of the work space."""

    _fields_ = [("work_size", ctypes.c_size_t), ("rest", ctypes.c_uint64 * 8)]


plan.restype, plan.argtypes = Plan, [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
reserve.restype, reserve.argtypes = ctypes.c_void_p, [ctypes.c_void_p, *[ctypes.c_uint32] * 3]

if told["speculation"] == "draft-mtp":
    hidden = libllama["_Z26llama_set_embeddings_nextnP13llama_contextbb"]
    hidden.restype, hidden.argtypes = None, [ctypes.c_void_p, ctypes.c_bool, ctypes.c_bool]
    second = context(
        ctx_type=1,
        type_k=TYPES[told["draft_cache_type_k"]],
        type_v=TYPES[told["draft_cache_type_v"]],
        n_ctx=api.llama_n_ctx(first),
        n_outputs_max=told["parallel"],
        n_outputs_max_per_seq=1,
        n_rs_seq=0,
        ctx_other=first,
    )
    drafts = sizes()
    for sequence in range(told["parallel"]):
        chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_top_k(10))
        if not api.llama_set_sampler(second, sequence, chain):
            sys.exit("no sampler in the graph")
    hidden(first, True, False)
    hidden(second, True, True)
    # Only allocations on the CPU from here on: what a batch makes the engine reserve anew, and its output buffers.
    buffer_type = libllama.ggml_backend_cpu_buffer_type
    buffer_type.restype = ctypes.c_void_p
    table = (ctypes.c_void_p * 2).from_address(buffer_type())
    allocate_type = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    allocate, asked = allocate_type(table[1]), []

    def noted(kind, size):
        """Allocate, and remember how much."""
        asked.append(size)
        return allocate(kind, size)

    hook = allocate_type(noted)
    table[1] = ctypes.cast(hook, ctypes.c_void_p)
    decode(first, told["ubatch"], 1, 0)
    verified = told["parallel"] * (1 + told["draft_tokens"])
    decode(first, verified, verified, told["ubatch"])
    answer["output_bytes"] = max(asked)
    asked.clear()
    lines.clear()
    decode(second, told["ubatch"], 1, 0, api.llama_model_n_embd_out(model))
    answer["drafts"] = {**drafts, "compute": sizes()["compute"], "output_bytes": asked[-1]}
    lines.clear()

tokens = min(told["ubatch"], api.llama_n_ctx(first))
graph = reserve(first, tokens, told["parallel"], tokens)
answer["work_bytes"] = plan(graph, told["threads"], None).work_size
sys.stdout.write(json.dumps(answer))
