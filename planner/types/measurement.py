"""A measured speed with all that makes it one: depth, batch, settings, engine build, samples and spread."""

from typing import Literal

from planner.types import Report
from planner.types.settings import Settings

__all__ = ["Conditions", "Measurement", "Origin", "Spread", "Test", "TestKind", "TestResult"]

Origin = Literal["measured", "predicted", "published"]
TestKind = Literal["prompt", "generate", "mixed"]
"""Reading a prompt, writing an answer token by token, or one after the other timed as one."""


class Test(Report, frozen=True, kw_only=True):
    """One test as llama-bench defines it: ``pp512`` is prompt 512, ``tg128`` generate 128, each at a depth.

    ``tokens`` is what each sequence processes; of a mixed test ``prompt_tokens`` of them are read and the rest written.
    ``sequences`` are decoded together, as llama-batched-bench does it. ``threads`` is ``None`` for those of the
    settings.
    """

    kind: TestKind
    tokens: int
    depth: int = 0
    prompt_tokens: int = 0
    sequences: int = 1
    threads: int | None = None

    @property
    def label(self) -> str:
        """llama-bench's own name for the test, ``tg128 @ d4096``; sequences are added to it, ``tg128 x4 @ d4096``."""
        return f"{self.name} @ d{self.depth}" if self.depth else self.name

    @property
    def name(self) -> str:
        """The label without the depth, ``pp512+tg128``."""
        return self.short + (f" x{self.sequences}" if self.sequences > 1 else "")

    @property
    def short(self) -> str:
        """What one sequence does, ``pp512+tg128``: llama-bench's name without depth."""
        if self.kind == "mixed":
            return f"pp{self.prompt_tokens}+tg{self.tokens - self.prompt_tokens}"
        return f"{'pp' if self.kind == 'prompt' else 'tg'}{self.tokens}"

    @property
    def plain(self) -> bool:
        """Whether one sequence runs with the threads of the settings, as a deployment's speeds are told."""
        return self.sequences == 1 and self.threads is None


class Spread(Report, frozen=True, kw_only=True):
    """Median and robust spread of tokens per second over the samples; ``relative_mad`` is MAD ÷ median."""

    median: float
    low: float
    high: float
    relative_mad: float


class TestResult(Report, frozen=True, kw_only=True):
    """All timed repetitions of one test, in nanoseconds; rates are derived, never stored alone.

    ``tokens_timed`` may be less than ``test.tokens`` when a run was shortened; it says so instead of hiding it.
    ``tokens_timed`` is of each sequence, ``tokens_per_s`` over all of them.
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
