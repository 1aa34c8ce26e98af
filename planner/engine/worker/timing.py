"""Times llama.cpp the way llama-bench defines it: what counts is decode and synchronise, nothing around it.

``prompt`` is one series of ``llama_decode`` calls over random tokens in batches of ``n_batch``; ``generate`` is one
token after another, each synchronised; ``mixed`` is a prompt and then an answer, timed as one. Only the last token of a
prompt's batch asks for logits; there is no tokenizer and no sampler in it. Several sequences are decoded together as
llama-batched-bench does it. Several models may be open at once under labels, so that the parent can interleave
candidates and slices and a drift of the machine hits all alike.

Runs in the child: standard library and ``llama_cpp`` only, Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import batches
from depth import Session, decode, following, go_to
from errors import Refused
from llama import engine

__all__ = ["close", "open_model", "run"]

Emit = Callable[[dict[str, Any]], None]


class _Test(NamedTuple):
    """One test: ``tokens`` of each sequence, of which ``prompt_tokens`` are read and the rest written."""

    kind: str
    tokens: int
    prompt_tokens: int
    depth: int
    sequences: int


_sessions: dict[str, Session] = {}


def open_model(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Load ``path`` under ``settings`` as ``label``; takes the place of an older model of that label.

    Answers ``load_ns``, ``vocabulary``, ``context_tokens`` (of one sequence), and what llama-bench tells of a model:
    ``model_type``, ``model_size`` (bytes) and ``model_n_params``.
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
    session = Session(
        model=model,
        context=context,
        memory=api.llama_get_memory(context),
        vocabulary=int(api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))),
        context_tokens=int(api.llama_n_ctx_seq(context)),
        cells=int(api.llama_n_ctx(context)),
        sequences=int(api.llama_n_seq_max(context)),
        batch=int(api.llama_n_batch(context)),
        seed=int(args.get("seed", 1)),
    )
    _sessions[label] = session
    if session.vocabulary <= 0:
        _free(label)
        raise Refused("the model names no vocabulary size, so no token can be timed")
    emit({"stage": "open", "label": label, "done": 1, "of": 1})
    described = ctypes.create_string_buffer(256)
    api.llama_model_desc(model, described, len(described))
    return {
        "load_ns": loaded,
        "vocabulary": session.vocabulary,
        "context_tokens": session.context_tokens,
        "model_type": described.value.decode("utf-8", "replace"),
        "model_size": int(api.llama_model_size(model)),
        "model_n_params": int(api.llama_model_n_params(model)),
    }


def close(args: dict[str, Any], _emit: Emit) -> dict[str, Any]:
    """Free the model of ``label``, or all of them when no label is given; answers the labels that were closed."""
    labels = [str(args["label"])] if "label" in args else list(_sessions)
    return {"closed": [label for label in labels if _free(label)]}


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Time one test on the open model ``label``.

    ``kind`` (prompt, generate or mixed), ``tokens`` of each sequence, ``prompt_tokens`` (how many of a mixed test's are
    its prompt), ``depth``, ``sequences``, ``threads``, ``threads_batch``, ``repetitions``, ``budget_s`` (of timed
    work), ``fill`` (zeros or decode) and ``fill_budget_s``. Answers ``samples_ns`` and ``tokens_timed`` (of each
    sequence): the budget may end the first repetition early, the others then time as many tokens; at least one
    repetition is always timed. ``samples_ns`` is empty when the depth could not be reached; ``depth_reached`` and
    ``filled_by`` say how far it came and by what means.
    """
    session = _session(str(args.get("label", "model")))
    test = _wanted(session, args)
    threads = int(args.get("threads", 1))
    engine().api.llama_set_n_threads(session.context, threads, int(args.get("threads_batch", threads)))
    budget_ns = int(float(args["budget_s"]) * 1e9) if args.get("budget_s") is not None else None
    fill_budget_s = float(args.get("fill_budget_s", 600.0))
    session.reseed()
    try:
        filled = go_to(session, test.depth, test.sequences, str(args.get("fill", "zeros")), fill_budget_s, emit)
        samples: list[int] = []
        if session.all_at(test.depth, test.sequences):
            _wake(session, test)
            for repetition in range(int(args.get("repetitions", 1))):
                left = None if budget_ns is None else budget_ns - sum(samples)
                if samples and left is not None and left < samples[-1]:
                    break
                done, elapsed = _once(session, test, None if samples else left)
                test = test._replace(tokens=done, prompt_tokens=min(test.prompt_tokens, done))
                samples.append(elapsed)
                emit({"stage": "run", "done": repetition + 1, "of": int(args.get("repetitions", 1))})
                filled = go_to(session, test.depth, test.sequences, filled, fill_budget_s, emit) or filled
        return {
            "samples_ns": samples,
            "tokens_timed": test.tokens if samples else 0,
            "depth_reached": session.used(),
            "filled_by": filled,
        }
    finally:
        _rest()


def _wanted(session: Session, args: dict[str, Any]) -> _Test:
    """The test that ``args`` ask for; raises :class:`Refused` for one that cannot be timed here."""
    kind, tokens, depth = str(args["kind"]), int(args["tokens"]), int(args.get("depth", 0))
    sequences = int(args.get("sequences", 1))
    prompts = {"prompt": tokens, "generate": 0, "mixed": int(args.get("prompt_tokens", tokens // 2))}
    if kind not in prompts:
        raise Refused(f"unknown kind of test: {kind}")
    if tokens < 1 or depth < 0:
        raise Refused(f"a test needs at least one token and a depth from zero on, not {tokens} at {depth}")
    if kind == "mixed" and not 0 < prompts[kind] < tokens:
        raise Refused(
            f"a mixed test needs a prompt and an answer, not {prompts[kind]} of {tokens} tokens as its prompt"
        )
    if not 1 <= sequences <= min(session.sequences, session.batch):
        raise Refused(f"{sequences} sequences do not fit in a context made for {session.sequences}")
    if depth + tokens > session.context_tokens or sequences * (depth + tokens) > session.cells:
        times = f"{sequences} times " if sequences > 1 else ""
        raise Refused(f"{times}{depth} + {tokens} tokens do not fit in a context of {session.context_tokens}")
    return _Test(kind, tokens, prompts[kind], depth, sequences)


def _once(session: Session, test: _Test, budget_ns: int | None) -> tuple[int, int]:
    """Tokens processed of each sequence and nanoseconds of one repetition."""
    if test.kind != "mixed":
        return (_prompt if test.kind == "prompt" else _generate)(session, test, test.tokens, test.depth, budget_ns)
    read, reading_ns = _prompt(session, test, test.prompt_tokens, test.depth, budget_ns)
    left_ns = None if budget_ns is None else budget_ns - reading_ns
    written, writing_ns = _generate(session, test, test.tokens - test.prompt_tokens, test.depth + read, left_ns)
    return read + written, reading_ns + writing_ns


def _prompt(session: Session, test: _Test, tokens: int, position: int, budget_ns: int | None) -> tuple[int, int]:
    """Tokens processed of each sequence and nanoseconds of a prompt.

    A single one ends between two batches when the budget is used up; several are read to their ends.
    """
    if test.sequences > 1:
        series, budget_ns = batches.prompts(session, test.sequences, tokens, position), None
    else:
        series = [following(session, min(session.batch, tokens - at)) for at in range(0, tokens, session.batch)]
    done = 0
    begin = time.perf_counter_ns()
    for batch in series:
        decode(session, batch)
        done += int(batch.n_tokens)
        if budget_ns is not None and time.perf_counter_ns() - begin > budget_ns:
            break
    engine().api.llama_synchronize(session.context)
    return done // test.sequences, time.perf_counter_ns() - begin


def _generate(session: Session, test: _Test, tokens: int, position: int, budget_ns: int | None) -> tuple[int, int]:
    """Tokens written of each sequence, one at a time, and nanoseconds; ends after the one that used up the budget."""
    if test.sequences > 1:
        steps = [batches.step(session, test.sequences, position + at) for at in range(tokens)]
    else:
        steps = [following(session, 1) for _ in range(tokens)]
    synchronize, context = engine().api.llama_synchronize, session.context
    done = 0
    begin = time.perf_counter_ns()
    for batch in steps:
        decode(session, batch)
        synchronize(context)
        done += 1
        if budget_ns is not None and time.perf_counter_ns() - begin > budget_ns:
            break
    return done, time.perf_counter_ns() - begin


def _wake(session: Session, test: _Test) -> None:
    """Decode one token untimed, so that the threads exist and the first repetition is like the others."""
    decode(session, batches.step(session, test.sequences, test.depth))
    engine().api.llama_synchronize(session.context)
    go_to(session, test.depth, test.sequences, "zeros", 600.0, lambda _event: None)


def _session(label: str) -> Session:
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
