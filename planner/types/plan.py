"""The goal, the candidates, and the plan: data that a later step obeys without asking again."""

from typing import Literal

from planner.types import Report
from planner.types.artifact import Artifact
from planner.types.machine import Machine
from planner.types.measurement import Measurement, Origin
from planner.types.model import Thinking
from planner.types.quality import TaskGroup
from planner.types.settings import CacheType, LoadMode, Settings

__all__ = [
    "Candidate",
    "Commands",
    "DeviceMemory",
    "Goal",
    "Index",
    "MemoryOrigin",
    "ModelFacts",
    "Plan",
    "Reason",
    "ReasonCode",
    "Rejected",
    "Rule",
    "Speed",
    "Speeds",
    "Use",
    "Verdict",
]

MemoryOrigin = Literal["engine", "phantom", "model"]
Use = Literal["chat", "code", "reasoning", "documents"]
Verdict = Literal["fits", "tight", "too-big", "too-slow", "unsupported"]
ReasonCode = Literal[
    "best",
    "context-too-long",
    "licence",
    "family",
    "language",
    "not-for-this-use",
    "too-big",
    "too-slow",
    "answer-too-late",
    "lower-rank",
    "same-model-better-quantization",
    "same-quality-better-settings",
    "engine-refused",
    "engine-changed",
    "newer-generation",
    "more-capable",
    "less-loss",
    "meets-speed",
    "fits",
    "granted",
    "trade-off",
]


Rule = Literal[
    "index",
    "equal-so-faster",
    "equal-so-roomier",
    "answer-time",
    "speed-floor",
    "few-bits",
    "context",
    "language",
    "licence",
    "family",
    "memory",
    "engine",
    "same-model",
]
"""The rules of the policy by name; ``choose.policy.RULES`` says each in a sentence."""


class Goal(Report, frozen=True, kw_only=True):
    """What the user asked for.

    ``context_tokens`` is per sequence; ``None`` lets the use decide. ``min_tokens_per_s`` is the decode speed below
    which a candidate is refused. ``reserve_bytes`` ``None`` lets the policy decide. ``local`` asks for a model that is
    on this machine already.
    """

    use: Use = "chat"
    context_tokens: int | None = None
    parallel: int = 1
    min_tokens_per_s: float = 8.0
    max_answer_seconds: float | None = None
    languages: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    commercial_license: bool = False
    model: str | None = None
    quantization: str | None = None
    cache_type: CacheType | None = None
    load_mode: LoadMode | None = None
    reserve_bytes: int | None = None
    local: bool = False


class Reason(Report, frozen=True, kw_only=True):
    """Why: a code for programs, a sentence for people, and the rule of the policy that decided, where one did."""

    code: ReasonCode
    text: str
    rule: Rule | None = None


class Index(Report, frozen=True, kw_only=True):
    """How capable a candidate is: capability index times what its quantization keeps, 0 to 100, with 80 % interval.

    ``capability`` is the model's own index before quantization and ``retention`` the share that is kept. ``origin``
    says what stands behind the capability (see :class:`planner.types.quality.Capability`).
    """

    value: float
    low: float
    high: float
    group: TaskGroup
    capability: float
    retention: float
    origin: Literal["measured", "related", "inferred"]


class DeviceMemory(Report, frozen=True, kw_only=True):
    """Bytes of one candidate on one device; ``total_bytes`` = weights + cache + compute + overhead, always.

    ``weights_bytes`` = mapped (file pages) + repacked (a private second form) + private (read into buffers).
    ``overhead_bytes`` = the output buffer + kernel work space + the process or driver context + companions (a draft
    model, a second context for multi-token prediction, a projector) + what a server keeps beside its slots (prompt
    cache, checkpoints) + a margin for what is not known exactly. ``available_bytes`` is what the device offers before
    ``reserve_bytes`` is set aside; ``None`` is unknown.

    ``origin``: ``engine`` asked with this very device, ``phantom`` asked with a device that has the published
    properties of one that is not here, ``model`` interpolated between the engine's answers.
    """

    device: str
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    overhead_bytes: int
    total_bytes: int
    available_bytes: int | None
    reserve_bytes: int = 0
    weights_mapped_bytes: int = 0
    weights_repacked_bytes: int = 0
    weights_private_bytes: int = 0
    output_bytes: int = 0
    work_bytes: int = 0
    process_bytes: int = 0
    companion_bytes: int = 0
    server_bytes: int = 0
    margin_bytes: int = 0
    resident_bytes: int | None = None
    origin: MemoryOrigin = "engine"

    @property
    def headroom_bytes(self) -> int | None:
        """Bytes left after the candidate and the reserve; negative when it does not fit."""
        if self.available_bytes is None:
            return None
        return self.available_bytes - self.reserve_bytes - self.total_bytes


class Speed(Report, frozen=True, kw_only=True):
    """Tokens per second with its interval and where it comes from; ``at_context_tokens`` is the depth."""

    tokens_per_s: float
    low: float
    high: float
    origin: Origin
    at_context_tokens: int = 0
    basis: str = ""


class Speeds(Report, frozen=True, kw_only=True):
    """Decode and prompt speed at depth 0, and decode at half the planned context where it was timed.

    ``generate_full`` is at the end of one sequence's context, ``generate_together`` that of each of the parallel
    sequences while all of them write. ``first_token_s`` are the seconds until the first token of an answer to a prompt
    that fills half of the context. Only a calibration tells these three.
    """

    generate: Speed | None = None
    prompt: Speed | None = None
    generate_at_depth: Speed | None = None
    generate_full: Speed | None = None
    generate_together: Speed | None = None
    first_token_s: float | None = None


class Candidate(Report, frozen=True, kw_only=True):
    """One model × quantization × settings with what it costs and why it stands where it stands.

    ``file_bytes`` is the size of the weights (tokenizer aside). ``score`` orders candidates: points of the capability
    index, with the credits for speed and headroom (see ``choose.policy``). ``thinking`` is the mode that was judged
    best for the use at this speed, ``answer_seconds`` the time to a typical answer in that mode. ``artifact`` names the
    very files, where the goal named some or a copy is on this machine already.
    """

    model: str
    quantization: str
    settings: Settings
    file_bytes: int
    memory: tuple[DeviceMemory, ...]
    speed: Speeds
    verdict: Verdict
    score: float
    index: Index | None = None
    thinking: bool = False
    answer_seconds: float | None = None
    artifact: Artifact | None = None
    reasons: tuple[Reason, ...] = ()


class Rejected(Report, frozen=True, kw_only=True):
    """A model or a model × quantization that lost, with the one reason that decided."""

    model: str
    quantization: str | None
    reason: Reason
    needed_bytes: int | None = None
    tokens_per_s: float | None = None


class Commands(Report, frozen=True, kw_only=True):
    """What to run next: argv of llama-server, its environment, and a llama-cpp-python snippet.

    ``weights_hint`` says in one sentence which file the commands expect and where such a file comes from.
    """

    llama_server: tuple[str, ...]
    environment: dict[str, str]
    llama_cpp_python: str
    weights_hint: str = ""


class ModelFacts(Report, frozen=True, kw_only=True):
    """What a deployment tells about the chosen model, as the catalogue or its header knew it when the plan was made.

    ``license`` is a name (``apache-2.0``), ``license_commercial`` ``None`` where no source was read.
    ``parameters_active`` is the share that a token passes through.
    """

    id: str
    name: str
    family: str
    vendor: str
    architecture: str
    parameters: int
    parameters_active: int
    context_native: int
    thinking: Thinking
    license: str
    license_commercial: bool | None = None
    license_source: str | None = None
    hf_repo: str | None = None
    modelscope_id: str | None = None
    sources: tuple[str, ...] = ()


class Plan(Report, frozen=True, kw_only=True):
    """The document that ``planner plan`` writes; ``chosen`` is ``None`` when nothing meets the goal.

    ``model`` tells about the chosen one, ``None`` in plans of before it was written.

    ``pareto`` are the candidates, the chosen one among them, that nothing else which was worked out beats in quality,
    speed and memory at once, the best index first. ``trade_off`` says in one sentence what the choice gave up for what.
    """

    schema: str = "planner/plan/1"
    created_at: str
    created_by: str
    goal: Goal
    machine: Machine
    engine_build: str
    chosen: Candidate | None
    model: ModelFacts | None = None
    alternatives: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]
    pareto: tuple[Candidate, ...] = ()
    trade_off: str = ""
    measurements: tuple[Measurement, ...]
    commands: Commands | None
    reasons: tuple[Reason, ...]
    warnings: tuple[str, ...] = ()
