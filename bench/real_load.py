"""The referee: loads a model for real in a process of its own and prints what was allocated and what stayed resident.

It shares no code with the estimator. Reads one JSON object on stdin: ``path``, ``settings`` (field names of
``planner.types.settings.Settings``), ``run`` (false: load only). Prints one JSON object: the engine's own buffer
lines, resident bytes before anything was loaded and after one full micro-batch of prompt plus 32 generated tokens, and
the peak; or ``refused`` with the engine's last words.
"""

import ctypes
import json
import re
import sys
from pathlib import Path

import llama_cpp.llama_cpp as api

LOAD_MODES = {"none": 0, "mmap": 1, "mlock": 2, "mmap+mlock": 3, "dio": 4}
CACHE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
FLASH = {"auto": -1, "off": 0, "on": 1}
LAZY = {"off": 0, "auto": 1, "on": 2}
LINE = re.compile(
    r"(\S+) +(model buffer|KV buffer|RS buffer|DSV4 \S+ state buffer|compute buffer|output buffer) size = +([\d.]+) MiB"
)


def held() -> dict[str, int]:
    """What this process holds: its proportional share, all of its pages, and those that belong to no file."""
    with Path("/proc/self/smaps_rollup").open(encoding="ascii") as file:
        lines = dict(line.split()[:2] for line in file if line[0] in "PRA" and line.endswith("kB\n"))
    return {name: int(lines[f"{name.capitalize()}:"]) * 1024 for name in ("pss", "rss", "anonymous")}


def peak_bytes() -> int:
    """Highest resident set size so far (VmHWM)."""
    with Path("/proc/self/status").open(encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def model_of(request: dict) -> object:
    """The loaded model, or NULL."""
    settings = request["settings"]
    params = api.llama_model_default_params()
    params.load_mode = LOAD_MODES[settings["load_mode"]]
    params.lazy_mode = LAZY[settings["lazy_mode"]]
    params.use_extra_bufts = settings["repack"]
    return api.llama_model_load_from_file(request["path"].encode(), params)


def context_of(model: object, settings: dict) -> object:
    """The context, or NULL."""
    params = api.llama_context_default_params()
    params.n_ctx = settings["context_tokens"]
    params.n_batch = settings["batch"]
    params.n_ubatch = settings["ubatch"]
    params.n_seq_max = settings["parallel"]
    params.n_outputs_max = settings["outputs_max"]
    params.kv_unified = settings["kv_unified"]
    params.swa_full = settings["swa_full"]
    params.type_k = CACHE_TYPES[settings["cache_type_k"]]
    params.type_v = CACHE_TYPES[settings["cache_type_v"]]
    params.flash_attn_type = FLASH[settings["flash_attention"]]
    params.n_threads = settings["threads"]
    params.n_threads_batch = settings["threads_batch"]
    return api.llama_init_from_model(model, params)


def run(context: object, settings: dict) -> None:
    """One full micro-batch of prompt, then 32 tokens."""
    per_sequence = api.llama_n_ctx_seq(context)
    tokens = min(settings["ubatch"], settings["batch"], per_sequence - 32)
    ids = (api.llama_token * tokens)(*[7 + (i * 7919) % 30000 for i in range(tokens)])
    if api.llama_decode(context, api.llama_batch_get_one(ids, tokens)) != 0:
        sys.exit("the prompt could not be processed")
    for step in range(32):
        one = (api.llama_token * 1)(11 + step * 31)
        if api.llama_decode(context, api.llama_batch_get_one(one, 1)) != 0:
            sys.exit("a token could not be generated")


def main() -> None:
    """Load, run, report."""
    request = json.load(sys.stdin)
    lines: list[str] = []

    @api.llama_log_callback
    def keep(_level: int, text: bytes, _user: object) -> None:
        lines.append(text.decode("utf-8", "replace"))

    api.llama_log_set(keep, ctypes.c_void_p(0))
    api.llama_backend_init()
    told: dict[str, object] = {"before": held()}
    model = model_of(request)
    told["loaded"], told["peak_loaded"] = held(), peak_bytes()
    context = context_of(model, request["settings"]) if model else None
    if not context:
        print(json.dumps({"refused": "".join(lines[-3:]).strip()}))
        return
    told["created"] = held()
    if request.get("run", True):
        run(context, request["settings"])
    log = "".join(lines)
    buffers: dict[str, float] = {}
    counts: dict[str, int] = {}
    for match in LINE.finditer(log):
        # The engine's breakdown has caches and states in one number, its log in several lines.
        kind = match[2].removesuffix(" buffer")
        kind = kind if kind in ("model", "compute", "output") else "context"
        key = f"{match[1]} {kind}"
        buffers[key] = buffers.get(key, 0.0) + float(match[3])
        counts[key] = counts.get(key, 0) + 1
    told.update(buffers_mib=buffers, lines=counts, after=held(), peak=peak_bytes())
    told["log"] = [line.strip() for line in log.splitlines() if re.search("max_nodes|graph.*nodes = ", line)]
    print(json.dumps(told))


if __name__ == "__main__":
    main()
