"""Runs one deployment to the last byte of its promise, and says how it went: the referee of :mod:`container`.

Reads one JSON object on stdin: ``path``, ``settings``, ``tokenizer_bytes`` (what a phantom lacks), ``prompt_tokens``
(at most a micro-batch; fewer where a large model would compute for minutes), ``promise_bytes`` (what the plan says it
takes). Loads, writes every cell of the cache, decodes the prompt, then takes memory of its own until the process holds
the promise to the last byte (what a server would keep, what a longer prompt would touch), and decodes 32 tokens with
it. Prints seconds, major page faults while decoding, and the peak. Shares no code with planner's estimates.
"""

import json
import mmap
import resource
import sys
import time

import llama_cpp.llama_cpp as api
from real_load import context_of, held, model_of, peak_bytes

_GENERATED = 32


def touched(size: int) -> mmap.mmap:
    """Memory of that size with every page written, without a second copy of it on the way."""
    memory = mmap.mmap(-1, max(mmap.PAGESIZE, size))
    for start in range(0, len(memory), mmap.PAGESIZE):
        memory[start] = 1
    return memory


def decode(context: object, ids: list[int], first: int) -> None:
    """Decode tokens of sequence 0 at positions from ``first`` on; ends the process where that fails.

    Only the last one's logits are asked for, as a server does: more of them would grow the output buffer beyond what
    the engine reserved.
    """
    batch = api.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for place, token in enumerate(ids):
        batch.token[place], batch.pos[place] = token, first + place
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
        batch.logits[place] = place == len(ids) - 1
    failed = api.llama_decode(context, batch)
    api.llama_batch_free(batch)
    if failed:
        sys.exit(f"a batch of {len(ids)} tokens at {first} could not be decoded")


def main() -> None:
    """Load, fill, decode, report."""
    request = json.load(sys.stdin)
    settings = request["settings"]
    tokenizer = touched(request["tokenizer_bytes"])
    api.llama_backend_init()
    started = time.monotonic()
    model = model_of(request)
    context = context_of(model, settings) if model else None
    if not context:
        sys.exit("the engine refuses to load it")
    loaded = time.monotonic()
    api.llama_memory_clear(api.llama_get_memory(context), True)
    per_sequence = api.llama_n_ctx_seq(context)
    tokens = max(1, min(settings["ubatch"], settings["batch"], request["prompt_tokens"], per_sequence - _GENERATED))
    decode(context, [7 + (i * 7919) % 30000 for i in range(tokens)], 0)
    before = held()
    missing = request["promise_bytes"] - before["pss"]
    ballast = touched(missing)
    filled, faults = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    for step in range(_GENERATED):
        decode(context, [11 + step * 31], tokens + step)
    print(
        json.dumps(
            {
                "load_s": round(loaded - started, 2),
                "prompt_s": round(filled - loaded, 2),
                "generate_s": round(time.monotonic() - filled, 2),
                "ballast": len(ballast),
                "tokenizer": len(tokenizer),
                "tokens": tokens + _GENERATED,
                "held_before_ballast": before["pss"],
                "major_faults_while_generating": resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults,
                "peak": peak_bytes(),
                **held(),
            }
        )
    )


if __name__ == "__main__":
    main()
