"""A measured speed with all that makes it one: depth, batch, settings, engine build, samples and spread."""

from typing import Literal

from planner.types import Report
from planner.types.settings import Settings

__all__ = ["Conditions", "Contents", "Described", "Measurement", "Origin", "Spread", "Test", "TestKind", "TestResult"]

Origin = Literal["measured", "predicted", "published"]
Contents = Literal["phantom", "file"]
"""Whether weights were made up (zeros, random routers) or are those of a real file."""
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
    def words(self) -> str:
        """The label with the threads where they are the test's own, for sentences."""
        return self.label if self.threads is None else f"{self.label} with {self.threads} threads"

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
    the pages that our own processes had to read from disk, ``memory_pressure_ratio`` the share of the time in which
    some process waited for memory, ``throttled`` how often the CPU slowed itself down for heat.
    """

    load_1min: float | None
    steal_ratio: float | None
    on_battery: bool | None
    other_cpus: float | None = None
    pressure_ratio: float | None = None
    frequency_drop_ratio: float | None = None
    swapped_in_pages: int | None = None
    major_faults: int | None = None
    memory_pressure_ratio: float | None = None
    throttled: int | None = None
    disturbed: tuple[str, ...] = ()


class Described(Report, frozen=True, kw_only=True):
    """The engine, the machine and the model in llama-bench's own words, so that results can be laid side by side.

    What nobody told is ``None``. ``backends`` are those of ggml besides the CPU, or ``CPU``; ``model_type`` is the
    engine's description, ``qwen3 8B Q4_K - Medium``; ``parameters`` and ``model_size_bytes`` are of all tensors.
    """

    build_commit: str | None = None
    build_number: int | None = None
    cpu_info: str | None = None
    gpu_info: str | None = None
    backends: str | None = None
    model_filename: str | None = None
    model_type: str | None = None
    model_size_bytes: int | None = None
    parameters: int | None = None


class Reference(Report, frozen=True, kw_only=True):
    """What a fixed small phantom took beside the tests, in nanoseconds a token, run by run: the machine's own pace."""

    generate_ns: tuple[float, ...]
    prompt_ns: tuple[float, ...]


class Measurement(Report, frozen=True, kw_only=True):
    """One model × quantization × settings, timed on one machine with one engine build.

    ``layers_timed`` < ``layers_total`` names a slice: the speed of the whole was extrapolated from it. ``contents``
    says what the weights were, ``engine`` which program ran them.
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
    contents: Contents = "phantom"
    engine: Literal["llama-cpp-python", "llama-bench"] = "llama-cpp-python"
    described: Described = Described()
    reference: Reference | None = None
    notes: tuple[str, ...] = ()
