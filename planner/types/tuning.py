"""What a tuning tried and what it recommends: the settings of llama.cpp and what surrounds its process.

The mistake it prevents is a recommended number without what it was compared with: every trial names its anchor, and the
winner stands beside llama.cpp's defaults, timed again.
"""

from typing import Literal

from planner.types import Report
from planner.types.measurement import Conditions, Contents
from planner.types.plan import Use
from planner.types.settings import Settings

__all__ = ["Numa", "Outcome", "Ratio", "Setup", "Trial", "Tuning"]

Numa = Literal["off", "distribute", "isolate"]
Outcome = Literal["accepted", "no-gain", "undecided", "unusable", "disturbed"]


class Setup(Report, frozen=True, kw_only=True):
    """Settings with what is told to the process besides: where its threads may run, which pages it gets.

    ``cpus`` empty leaves the threads to the system. ``huge_pages`` asks the C library to request transparent huge pages
    for large allocations; weights lie in such only where they are read into memory (``load_mode`` none).
    """

    settings: Settings
    cpus: tuple[int, ...] = ()
    numa: Numa = "off"
    huge_pages: bool = False


class Ratio(Report, frozen=True, kw_only=True):
    """A speed as a multiple of the anchor's (above 1: faster), the median of ``pairs`` and its 90 % interval."""

    median: float
    low: float
    high: float
    pairs: int


class Trial(Report, frozen=True, kw_only=True):
    """One setting that was raced against the best so far, ``against``, run by run.

    ``answer`` is by the time to a typical answer; a setting that touches only prompts or only decoding is raced by that
    alone. ``to_default`` is the speed by the same measure as a multiple of the defaults', through the anchors between.
    """

    factor: str
    option: str
    against: str
    outcome: Outcome
    answer: Ratio | None = None
    generate: Ratio | None = None
    prompt: Ratio | None = None
    to_default: Ratio | None = None
    note: str = ""


class Tuning(Report, frozen=True, kw_only=True):
    """The settings that were found for one model on one machine, what was tried, and what it gains.

    ``recommended`` is ``None`` when something disturbed the run, and ``default`` when nothing was clearly faster;
    ``answer``, ``generate`` and ``prompt`` are its speeds as multiples of the defaults', from runs after the search.
    ``not_tried`` names what there was no time for. ``layers_timed`` below ``layers_total`` names a slice.
    """

    schema: str = "planner/tuning/1"
    model: str
    quantization: str
    use: Use
    prompt_tokens: int
    answer_tokens: int
    default: Setup
    recommended: Setup | None
    answer: Ratio | None = None
    generate: Ratio | None = None
    prompt: Ratio | None = None
    trials: tuple[Trial, ...]
    not_tried: tuple[str, ...] = ()
    seconds: float
    layers_timed: int
    layers_total: int
    contents: Contents = "phantom"
    machine_key: str
    engine_build: str
    taken_at: str
    conditions: Conditions
    llama_server: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    llama_cpp_python: str = ""
    notes: tuple[str, ...] = ()
