"""The referee: loads a model for real in a process of its own and prints what was allocated and what stayed resident.

It shares no code with the estimator. Reads one JSON object on stdin: ``path``, ``settings`` (field names of
``planner.types.settings.Settings``), ``run`` (false: load only). Prints one JSON object: the engine's own buffer
lines, PSS before anything was loaded and after one full micro-batch of prompt plus 32 generated tokens, and the peak.
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
LINE = re.compile(r"(\S+) +(model buffer|KV buffer|RS buffer|compute buffer|output buffer) size = +([\d.]+) MiB")


def pss_bytes() -> int:
    """Proportional set size of this process."""
    with Path("/proc/self/smaps_rollup").open(encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))


def peak_bytes() -> int:
    """Highest resident set size so far (VmHWM)."""
    with Path("/proc/self/status").open(encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def main() -> None:
    """Load, run, report."""
    request = json.load(sys.stdin)
    settings = request["settings"]
    lines: list[str] = []

    @api.llama_log_callback
    def keep(_level: int, text: bytes, _user: object) -> None:
        lines.append(text.decode("utf-8", "replace"))

    api.llama_log_set(keep, ctypes.c_void_p(0))
    api.llama_backend_init()
    before = pss_bytes()
    model_params = api.llama_model_default_params()
    model_params.load_mode = LOAD_MODES[settings["load_mode"]]
    model_params.use_extra_bufts = settings["repack"]
    model = api.llama_model_load_from_file(request["path"].encode(), model_params)
    params = api.llama_context_default_params()
    params.n_ctx = settings["context_tokens"]
    params.n_batch = settings["batch"]
    params.n_ubatch = settings["ubatch"]
    params.n_seq_max = settings["parallel"]
    params.n_outputs_max = settings["outputs_max"]
    params.kv_unified = settings["kv_unified"]
    params.type_k = CACHE_TYPES[settings["cache_type_k"]]
    params.type_v = CACHE_TYPES[settings["cache_type_v"]]
    params.flash_attn_type = FLASH[settings["flash_attention"]]
    params.n_threads = settings["threads"]
    params.n_threads_batch = settings["threads_batch"]
    context = api.llama_init_from_model(model, params) if model else None
    if not context:
        sys.exit("the engine refused: " + "".join(lines[-3:]))
    if request.get("run", True):
        tokens = min(settings["ubatch"], settings["context_tokens"] - 33)
        ids = (api.llama_token * tokens)(*[7 + (i * 7919) % 30000 for i in range(tokens)])
        if api.llama_decode(context, api.llama_batch_get_one(ids, tokens)) != 0:
            sys.exit("the prompt could not be processed")
        for step in range(32):
            one = (api.llama_token * 1)(11 + step * 31)
            if api.llama_decode(context, api.llama_batch_get_one(one, 1)) != 0:
                sys.exit("a token could not be generated")
    buffers: dict[str, float] = {}
    for match in LINE.finditer("".join(lines)):
        key = f"{match[1]} {match[2].removesuffix(' buffer')}"
        buffers[key] = buffers.get(key, 0.0) + float(match[3])
    print(json.dumps({"buffers_mib": buffers, "before": before, "after": pss_bytes(), "peak": peak_bytes()}))


if __name__ == "__main__":
    main()
