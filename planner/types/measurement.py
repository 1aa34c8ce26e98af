"""A measured speed with all that makes it one: depth, batch, settings, engine build, samples and spread."""

from typing import Literal

from planner.types import Report
from planner.types.settings import Settings

__all__ = ["Conditions", "Measurement", "Origin", "Spread", "Test", "TestKind", "TestResult"]

Origin = Literal["measured", "predicted", "published"]
TestKind = Literal["prompt", "generate"]
"""Reading a prompt, or writing an answer token by token."""


class Test(Report, frozen=True, kw_only=True):
    """One test as llama-bench defines it: ``pp512`` is prompt 512, ``tg128`` generate 128, each at a depth."""

    kind: TestKind
    tokens: int
    depth: int = 0

    @property
    def label(self) -> str:
        """llama-bench's own name for the test, ``tg128 @ d4096``."""
        name = f"{'pp' if self.kind == 'prompt' else 'tg'}{self.tokens}"
        return f"{name} @ d{self.depth}" if self.depth else name


class Spread(Report, frozen=True, kw_only=True):
    """Median and robust spread of tokens per second over the samples; ``relative_mad`` is MAD ÷ median."""

    median: float
    low: float
    high: float
    relative_mad: float


class TestResult(Report, frozen=True, kw_only=True):
    """All timed repetitions of one test, in nanoseconds; rates are derived, never stored alone.

    ``tokens_timed`` may be less than ``test.tokens`` when a run was shortened; it says so instead of hiding it.
    ``origin`` is ``predicted`` when the time was composed from slices.
    """

    test: Test
    tokens_timed: int
    samples_ns: tuple[int, ...]
    tokens_per_s: Spread
    origin: Origin = "measured"


class Conditions(Report, frozen=True, kw_only=True):
    """The state of the machine while timing; ``disturbed`` lists in words what makes the run doubtful.

    ``other_cpus`` is how many CPUs other processes kept busy on average, ``pressure_ratio`` the share of the time in
    which some process waited for a CPU (PSI), ``frequency_drop_ratio`` by how much the clock fell, ``major_faults``
    the pages that our own processes had to read from disk.
    """

    load_1min: float | None
    steal_ratio: float | None
    on_battery: bool | None
    other_cpus: float | None = None
    pressure_ratio: float | None = None
    frequency_drop_ratio: float | None = None
    swapped_in_pages: int | None = None
    major_faults: int | None = None
    disturbed: tuple[str, ...] = ()


class Measurement(Report, frozen=True, kw_only=True):
    """One model × quantization × settings, timed on one machine with one engine build.

    ``layers_timed`` < ``layers_total`` names a slice: the speed of the whole was extrapolated from it.
    """

    schema: str = "planner/measurement/1"
    model: str
    quantization: str
    settings: Settings
    engine_build: str
    machine_key: str
    taken_at: str
    layers_timed: int
    layers_total: int
    results: tuple[TestResult, ...]
    conditions: Conditions
    notes: tuple[str, ...] = ()
