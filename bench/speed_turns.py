"""Times full phantoms in turns: as many as memory holds are open together, and each test's runs lie minutes apart.

The mistake it prevents is a model that is called slow because its ten seconds were: single runs scatter by 5 % in a
quiet quarter of an hour of a shared host and by 12 to 15 % in others, in spells of seconds to minutes, and a model that
was opened, timed and closed met one spell with all of its runs. Thirteen models that took turns for eight minutes took
the same in both halves of them but for 3 %; one after the other each pass was 9 % off the others.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from speed_subjects import DEPTH, SEQUENCES, Subject

from planner.engine.child import EngineChild
from planner.engine.phantom import write_phantom
from planner.measure.bench import RANDOM_FOR_ROUTING, Bench
from planner.measure.reference import ReferenceRuns
from planner.measure.slices import weights_bytes
from planner.types.measurement import Test
from planner.types.model import Layout
from planner.types.settings import Settings

__all__ = ["BATCH_TOKENS", "DEEP_TOKENS", "TOKENS", "Timed", "groups", "time_group", "together"]

TOKENS = 8
DEEP_TOKENS = 2
BATCH_TOKENS = 2
"""Runs are short: a token takes as long in a short one as in a long one, and many short ones are of more moments."""
_ROUNDS = 4
"""How often each model has its turn. In each an answer is timed before everything else and after it."""
_PROMPTS = 2
_MOST_SECONDS = 600

_ANSWER = Test(kind="generate", tokens=TOKENS)
_DEEP = Test(kind="generate", tokens=DEEP_TOKENS, depth=DEPTH)
_PROMPT = Test(kind="prompt", tokens=512)


class Timed(NamedTuple):
    """A phantom to time: which one, its shape with the types of its weights, and what it takes while it is open.

    ``open_bytes`` are the engine's own, and the file's, which stays mapped beside a repacked copy.
    """

    subject: Subject
    layout: Layout
    open_bytes: int


def groups(wanted: Sequence[Timed], usable_bytes: int) -> list[list[Timed]]:
    """Which phantoms are open together, the largest first; one that needs more than there is has a group of its own."""
    found: list[list[Timed]] = []
    for each in sorted(wanted, key=lambda timed: -timed.open_bytes):
        for group in found:
            if sum(other.open_bytes for other in (*group, each)) <= usable_bytes:
                group.append(each)
                break
        else:
            found.append([each])
    return found


def time_group(
    group: Sequence[Timed], settings: Settings, reference: Layout, python: Path
) -> dict[str, dict[str, Any]]:
    """By subject: nanoseconds of a token (``pp512``: of the prompt), what the reference took, and how things were.

    First all of one sequence, then all of several: repacked weights are a copy of the file for each context.
    """

    def child(env: Mapping[str, str]) -> EngineChild:
        return EngineChild(python, env=env)

    begin = time.monotonic()
    with _written(group) as paths, Bench(child) as bench:
        runs = {each.subject.name: ReferenceRuns(bench, reference, settings) for each in group}
        samples: dict[str, dict[str, list[float]]] = {each.subject.name: {} for each in group}
        for several in (False, True):
            for each in group:
                own = together(settings, max(SEQUENCES)) if several else settings
                name = each.subject.name
                bench.open_file(paths[name], own, name, size_bytes=weights_bytes(each.layout))
                # What touches weights and cache that nothing read before does not count.
                if several:
                    _turn_together(bench, name)
                else:
                    _first(bench, each.subject)
            for number in range(_ROUNDS):
                for each in group:
                    name = each.subject.name
                    runs[name].once()
                    turn = _turn_together(bench, name) if several else _turn(bench, each.subject, number)
                    for test, ns in turn:
                        samples[name].setdefault(test, []).append(ns)
            bench.close(list(samples))
    state = {
        "load": os.getloadavg()[0],
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "group": [each.subject.name for each in group],
        "group_s": round(time.monotonic() - begin, 1),
    }
    return {
        name: {"samples_ns": taken, "reference": msgspec.to_builtins(runs[name].told()), **state}
        for name, taken in samples.items()
    }


def together(settings: Settings, sequences: int) -> Settings:
    """The settings with a context for so many sequences that write together."""
    return msgspec.structs.replace(settings, context_tokens=256 * sequences, parallel=sequences)


@contextlib.contextmanager
def _written(group: Sequence[Timed]) -> Iterator[dict[str, Path]]:
    """The phantoms' files by subject; routed models get random routers, or all tokens would go to the same experts."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {each.subject.name: Path(folder) / f"{number}.gguf" for number, each in enumerate(group)}
        for each in group:
            routed = any("ffn_gate_inp" in tensor.name for tensor in each.layout.tensors)
            seed = 1 if routed else None
            write_phantom(paths[each.subject.name], each.layout, random_seed=seed, random_only=RANDOM_FOR_ROUTING)
        yield paths


def _first(bench: Bench, subject: Subject) -> None:
    """A prompt and answers that do not count: the first ones touch weights and cache that nothing read before."""
    bench.run(subject.name, Test(kind="prompt", tokens=64), tokens=64, deadline_s=_MOST_SECONDS)
    bench.run(subject.name, _ANSWER, tokens=TOKENS, deadline_s=_MOST_SECONDS)
    if subject.deep:
        bench.run(subject.name, _DEEP, tokens=DEEP_TOKENS, deadline_s=_MOST_SECONDS, fill_budget_s=60)


def _turn(bench: Bench, subject: Subject, number: int) -> Iterator[tuple[str, float]]:
    """What one sequence takes: an answer at the start, at depth, a prompt in some turns, and an answer once more."""
    tests = [("tg", _ANSWER)]
    if subject.deep:
        tests.append((f"tg@{DEPTH}", _DEEP))
    if number * _PROMPTS % _ROUNDS == 0:
        tests.append(("pp512", _PROMPT))
    tests.append(("tg", _ANSWER))
    for name, test in tests:
        run = bench.run(subject.name, test, tokens=test.tokens, deadline_s=_MOST_SECONDS, fill_budget_s=60)
        if run.samples_ns:
            yield name, run.samples_ns[0] / (1 if test.kind == "prompt" else run.tokens_timed)


def _turn_together(bench: Bench, name: str) -> list[tuple[str, float]]:
    """Steps of several sequences."""
    found = []
    for count in SEQUENCES:
        test = Test(kind="generate", tokens=BATCH_TOKENS, sequences=count)
        run = bench.run(name, test, tokens=BATCH_TOKENS, deadline_s=_MOST_SECONDS)
        found.append((f"x{count}", run.samples_ns[0] / run.tokens_timed))
    return found
