"""Times llama.cpp the way llama-bench defines it: what counts is decode and synchronise, nothing around it.

``prompt`` is one series of ``llama_decode`` calls over random tokens in batches of ``n_batch``; ``generate`` is one
token after another, each synchronised. Only the last token of a batch asks for logits; there is no tokenizer and no
sampler in it. Several models may be open at once under labels, so that the parent can interleave candidates and
slices and a drift of the machine hits all alike. The mistake it prevents is a depth that is not there: after every
repetition the cache is brought back to the depth asked for and its length is checked.

Runs in the child: standard library and ``llama_cpp`` only, Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import Refused
from llama import engine
from zerostate import HEADER_BYTES, zero_state

__all__ = ["close", "open_model", "run"]

Emit = Callable[[dict[str, Any]], None]

_SEED_TOKENS = 2  # the shortest sequence whose saved state shows how cells repeat
_FILL_CHUNK = 512  # tokens between two looks at the clock while a depth is computed


@dataclass
class _Session:
    """One open model with one context; ``random`` gives the same tokens in every run of the same seed."""

    model: Any
    context: Any
    memory: Any
    vocabulary: int
    context_tokens: int
    batch: int
    seed: int
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.reseed()

    def reseed(self) -> None:
        """Start the token sequence anew."""
        self.random = random.Random(self.seed)  # noqa: S311 - token ids, no secret

    def used(self) -> int:
        """Tokens of sequence 0 in the cache."""
        return int(engine().api.llama_memory_seq_pos_max(self.memory, 0)) + 1


_sessions: dict[str, _Session] = {}


def open_model(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Load ``path`` under ``settings`` as ``label``; takes the place of an older model of that label.

    Answers ``load_ns``, ``vocabulary`` and ``context_tokens`` (of one sequence).
    """
    label = str(args.get("label", "model"))
    _free(label)
    api = engine().api
    begin = time.perf_counter_ns()
    model = engine().load_model(args["path"], args["settings"], no_alloc=False)
    try:
        context = engine().make_context(model, args["settings"])
    except BaseException:
        api.llama_model_free(model)
        raise
    loaded = time.perf_counter_ns() - begin
    session = _Session(
        model=model,
        context=context,
        memory=api.llama_get_memory(context),
        vocabulary=int(api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))),
        context_tokens=int(api.llama_n_ctx_seq(context)),
        batch=int(api.llama_n_batch(context)),
        seed=int(args.get("seed", 1)),
    )
    _sessions[label] = session
    if session.vocabulary <= 0:
        _free(label)
        raise Refused("the model names no vocabulary size, so no token can be timed")
    emit({"stage": "open", "label": label, "done": 1, "of": 1})
    return {"load_ns": loaded, "vocabulary": session.vocabulary, "context_tokens": session.context_tokens}


def close(args: dict[str, Any], _emit: Emit) -> dict[str, Any]:
    """Free the model of ``label``, or all of them when no label is given; answers the labels that were closed."""
    labels = [str(args["label"])] if "label" in args else list(_sessions)
    return {"closed": [label for label in labels if _free(label)]}


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Time one test on the open model ``label``.

    ``kind`` (prompt or generate), ``tokens``, ``depth``, ``threads``, ``threads_batch``, ``repetitions``,
    ``budget_s`` (of timed work), ``fill`` (zeros or decode) and ``fill_budget_s``. Answers ``samples_ns`` and
    ``tokens_timed``: the budget may end the first repetition early, the others then time as many tokens; at least
    one repetition is always timed. ``samples_ns`` is empty when the depth could not be reached; ``depth_reached``
    and ``filled_by`` say how far it came and by what means.
    """
    session = _session(str(args.get("label", "model")))
    kind, tokens, depth = str(args["kind"]), int(args["tokens"]), int(args.get("depth", 0))
    _check(session, kind, tokens, depth)
    threads = int(args.get("threads", 1))
    engine().api.llama_set_n_threads(session.context, threads, int(args.get("threads_batch", threads)))
    budget_ns = int(float(args["budget_s"]) * 1e9) if args.get("budget_s") is not None else None
    session.reseed()
    try:
        filled = _go_to(session, depth, str(args.get("fill", "zeros")), float(args.get("fill_budget_s", 600.0)), emit)
        samples: list[int] = []
        if session.used() == depth:
            _wake(session, depth)
            once = _prompt if kind == "prompt" else _generate
            for repetition in range(int(args.get("repetitions", 1))):
                left = None if budget_ns is None else budget_ns - sum(samples)
                if samples and left is not None and left < samples[-1]:
                    break
                tokens, elapsed = once(session, tokens, None if samples else left)
                samples.append(elapsed)
                emit({"stage": "run", "done": repetition + 1, "of": int(args.get("repetitions", 1))})
                filled = _go_to(session, depth, filled, float(args.get("fill_budget_s", 600.0)), emit) or filled
        return {
            "samples_ns": samples,
            "tokens_timed": tokens if samples else 0,
            "depth_reached": session.used(),
            "filled_by": filled,
        }
    finally:
        _rest()


def _check(session: _Session, kind: str, tokens: int, depth: int) -> None:
    if kind not in ("prompt", "generate"):
        raise Refused(f"unknown kind of test: {kind}")
    if tokens < 1 or depth < 0:
        raise Refused(f"a test needs at least one token and a depth from zero on, not {tokens} at {depth}")
    # One more than the test itself: the untimed token that wakes the threads.
    if depth + max(tokens, 1) > session.context_tokens:
        raise Refused(f"{depth} + {tokens} tokens do not fit in a context of {session.context_tokens}")


def _prompt(session: _Session, tokens: int, budget_ns: int | None) -> tuple[int, int]:
    """Tokens processed and nanoseconds of a prompt; ends between two batches when the budget is used up."""
    batches = [_tokens(session, min(session.batch, tokens - at)) for at in range(0, tokens, session.batch)]
    done = 0
    begin = time.perf_counter_ns()
    for batch in batches:
        _decode(session, batch)
        done += len(batch)
        if budget_ns is not None and time.perf_counter_ns() - begin > budget_ns:
            break
    engine().api.llama_synchronize(session.context)
    return done, time.perf_counter_ns() - begin


def _generate(session: _Session, tokens: int, budget_ns: int | None) -> tuple[int, int]:
    """Tokens decoded one at a time and their nanoseconds; ends after the token that used up the budget."""
    one = [_tokens(session, 1) for _ in range(tokens)]
    synchronize, context = engine().api.llama_synchronize, session.context
    done = 0
    begin = time.perf_counter_ns()
    for token in one:
        _decode(session, token)
        synchronize(context)
        done += 1
        if budget_ns is not None and time.perf_counter_ns() - begin > budget_ns:
            break
    return done, time.perf_counter_ns() - begin


def _tokens(session: _Session, count: int) -> ctypes.Array[ctypes.c_int32]:
    return (ctypes.c_int32 * count)(*(session.random.randrange(session.vocabulary) for _ in range(count)))


def _decode(session: _Session, tokens: ctypes.Array[ctypes.c_int32]) -> None:
    api = engine().api
    # llama_batch_get_one continues the sequence and asks for the logits of the last token only.
    status = api.llama_decode(session.context, api.llama_batch_get_one(tokens, len(tokens)))
    if status != 0:
        raise Refused(f"llama_decode returned {status} for {len(tokens)} tokens at depth {session.used()}")


def _wake(session: _Session, depth: int) -> None:
    """Decode one token untimed, so that the threads exist and the first repetition is like the others."""
    _decode(session, _tokens(session, 1))
    engine().api.llama_synchronize(session.context)
    _go_to(session, depth, "zeros", 600.0, lambda _event: None)


def _go_to(session: _Session, depth: int, fill: str, fill_budget_s: float, emit: Emit) -> str:
    """Bring the cache to exactly ``depth`` tokens if the budget allows; answers by what means it was filled."""
    api = engine().api
    if session.used() == depth:
        return ""
    if 0 < depth < session.used() and api.llama_memory_seq_rm(session.memory, 0, depth, -1) and session.used() == depth:
        return ""
    api.llama_memory_clear(session.memory, False)
    if depth == 0:
        return ""
    if fill != "decode" and depth > _FILL_CHUNK and _restore_zeros(session, depth):
        return "zeros"
    _compute(session, depth, fill_budget_s, emit)
    return "decode"


def _compute(session: _Session, depth: int, fill_budget_s: float, emit: Emit) -> None:
    """Process random tokens up to ``depth``; stops short when the next chunk would overrun the budget."""
    begin = time.monotonic()
    while session.used() < depth:
        _decode(session, _tokens(session, min(_FILL_CHUNK, session.batch, depth - session.used())))
        spent = time.monotonic() - begin
        emit({"stage": "fill", "done": session.used(), "of": depth})
        if session.used() < depth and spent * (1 + _FILL_CHUNK / session.used()) > fill_budget_s:
            return


def _restore_zeros(session: _Session, depth: int) -> bool:
    """Give the cache ``depth`` tokens of zeros; False, with an empty cache, where the engine's layout is unknown."""
    api = engine().api
    _decode(session, _tokens(session, _SEED_TOKENS))
    size = int(api.llama_state_seq_get_size(session.context, 0))
    saved = (ctypes.c_uint8 * size)()
    written = int(api.llama_state_seq_get_data(session.context, saved, size, 0))
    state = zero_state(bytes(saved), _SEED_TOKENS, depth) if written == size > HEADER_BYTES else None
    api.llama_memory_clear(session.memory, False)
    if state is None:
        return False
    with state:
        view = (ctypes.c_uint8 * len(state)).from_buffer(state)
        read = int(api.llama_state_seq_set_data(session.context, view, len(state), 0))
        del view  # the mapping cannot be closed while something points into it
        size = len(state)
    if read == size and session.used() == depth:
        return True
    api.llama_memory_clear(session.memory, False)
    return False


def _session(label: str) -> _Session:
    if label not in _sessions:
        raise Refused(f"no model is open under the label {label!r}")
    return _sessions[label]


def _free(label: str) -> bool:
    session = _sessions.pop(label, None)
    if session is None:
        return False
    api = engine().api
    api.llama_free(session.context)
    api.llama_model_free(session.model)
    return True


_pause: list[Any] | None = None


def _rest() -> None:
    """End the OpenMP threads of this process, so that actively waiting ones do not spin while another child is timed.

    ``omp_pause_resource_all`` is OpenMP 5.0; without it (or without OpenMP) nothing happens. The next decode starts
    them again.
    """
    global _pause  # noqa: PLW0603 - looked up once for each process
    if _pause is None:
        _pause = _openmp_pauses()
    for pause in _pause:
        pause(1)  # omp_pause_soft: the settings stay


def _openmp_pauses() -> list[Any]:
    """The pause function of every OpenMP runtime that this process has loaded."""
    if not sys.platform.startswith("linux"):
        return []
    found: list[Any] = []
    with contextlib.suppress(OSError):
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if re.search(r"/lib[gi]?omp[^/]*\.so", line)}
        for path in sorted(paths):
            with contextlib.suppress(OSError, AttributeError):
                function = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY).omp_pause_resource_all
                function.argtypes, function.restype = [ctypes.c_int], ctypes.c_int
                found.append(function)
    return found
