"""Times one small phantom beside whatever is measured: what the machine itself did meanwhile.

The mistake it prevents is a difference between two runs that is one between two states of the machine. A guest of a
virtual host cannot see that another guest computes on the sibling of its core or fills the memory's channels: no steal
time, no load and no clock tells it, and all that was timed is slower by a third for as long as it lasts.
"""

import time
from typing import NamedTuple

from planner.measure.bench import Bench
from planner.types.measurement import Reference, Test
from planner.types.model import Layout
from planner.types.settings import Settings

__all__ = ["Glance", "ReferenceRuns"]

_GENERATE, _PROMPT = Test(kind="generate", tokens=8), Test(kind="prompt", tokens=32)
_CONTEXT_TOKENS = 512
_DEADLINE_S = 60.0


class Glance(NamedTuple):
    """Nanoseconds of a token: of an answer, which waits for RAM, and of a prompt, which computes.

    ``ended_s`` is when, in monotonic seconds.
    """

    answer_ns: float
    prompt_ns: float
    ended_s: float


class ReferenceRuns:
    """The reference open in the child that waits like the subject; :meth:`once` times it, :meth:`told` says how long.

    It stays open for the next subject. Raises what :meth:`Bench.run` raises.
    """

    def __init__(self, bench: Bench, layout: Layout, settings: Settings) -> None:
        self._bench = bench
        self._label = f"reference-{settings.openmp_wait}"
        self._threads = (settings.threads, settings.threads_batch)
        self._generate_ns: list[float] = []
        self._prompt_ns: list[float] = []
        if not bench.is_open(self._label):
            bench.open(layout, _settings(settings), self._label)

    def glance(self) -> Glance:
        """One short answer and one short prompt, which :meth:`told` does not count."""
        return Glance(self._time(_GENERATE), self._time(_PROMPT), time.monotonic())

    def once(self) -> None:
        """One short answer and one short prompt; the first of each, which touches everything, does not count."""
        if not self._generate_ns:
            self.glance()
        seen = self.glance()
        self._generate_ns.append(seen.answer_ns)
        self._prompt_ns.append(seen.prompt_ns)

    def told(self) -> Reference | None:
        """What every run took so far; ``None`` before the first."""
        if not self._generate_ns:
            return None
        return Reference(generate_ns=tuple(self._generate_ns), prompt_ns=tuple(self._prompt_ns))

    def _time(self, test: Test) -> float:
        run = self._bench.run(self._label, test, tokens=test.tokens, deadline_s=_DEADLINE_S, threads=self._threads)
        return run.ns_per_token


def _settings(settings: Settings) -> Settings:
    return Settings(
        context_tokens=_CONTEXT_TOKENS,
        threads=settings.threads,
        threads_batch=settings.threads_batch,
        openmp_wait=settings.openmp_wait,
        batch=_CONTEXT_TOKENS,
        ubatch=_CONTEXT_TOKENS,
        load_mode="mmap",
    )
