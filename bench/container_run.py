"""Runs one deployment to the last byte of its promise, and says how it went: the referee of :mod:`container`.

Reads one JSON object on stdin: ``path``, ``settings``, ``tokenizer_bytes`` (what a phantom lacks), ``fill`` (whether
to fill the whole context with tokens). Loads, writes every cell of the cache, decodes a full micro-batch with all
logits and 32 tokens, and prints seconds, major page faults while decoding, and the peak. Shares no code with planner's
estimates.
"""

import json
import mmap
import resource
import sys
import time

import llama_cpp.llama_cpp as api
from real_load import context_of, held, model_of, peak_bytes

_GENERATED = 32


def decode(context: object, ids: list[int], first: int, *, every_logit: bool) -> None:
    """Decode tokens of sequence 0 at positions from ``first`` on; ends the process where that fails."""
    batch = api.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for place, token in enumerate(ids):
        batch.token[place], batch.pos[place] = token, first + place
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
        batch.logits[place] = every_logit or place == len(ids) - 1
    failed = api.llama_decode(context, batch)
    api.llama_batch_free(batch)
    if failed:
        sys.exit(f"a batch of {len(ids)} tokens at {first} could not be decoded")


def main() -> None:
    """Load, fill, decode, report."""
    request = json.load(sys.stdin)
    settings = request["settings"]
    tokenizer = mmap.mmap(-1, max(4096, request["tokenizer_bytes"]))
    tokenizer.write(b"\1" * len(tokenizer))
    api.llama_backend_init()
    started = time.monotonic()
    model = model_of(request)
    context = context_of(model, settings) if model else None
    if not context:
        sys.exit("the engine refuses to load it")
    loaded = time.monotonic()
    api.llama_memory_clear(api.llama_get_memory(context), True)
    per_sequence = api.llama_n_ctx_seq(context)
    tokens = max(1, min(settings["ubatch"], settings["batch"], per_sequence - _GENERATED))
    ids = [7 + (i * 7919) % 30000 for i in range(tokens)]
    position = 0
    while True:
        decode(context, ids, position, every_logit=settings["outputs_max"] == 0)
        position += tokens
        if not request["fill"] or position + tokens > per_sequence - _GENERATED:
            break
    filled, faults = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    for step in range(_GENERATED):
        decode(context, [11 + step * 31], position + step, every_logit=True)
    print(
        json.dumps(
            {
                "load_s": round(loaded - started, 2),
                "prompt_s": round(filled - loaded, 2),
                "generate_s": round(time.monotonic() - filled, 2),
                "tokens": position + _GENERATED,
                "major_faults_while_generating": resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults,
                "peak": peak_bytes(),
                **held(),
            }
        )
    )


if __name__ == "__main__":
    main()
