"""What a search over candidates leaves behind: the ranking, every verdict reached, the bounds for the rest.

The mistake it prevents is a loser without a reason: ``outcomes`` has one entry for each model of the catalogue, and
``considered`` one for each combination that was looked at.
"""

from collections.abc import Callable
from typing import Literal

from planner.choose.appraisal import Factors
from planner.types import Report
from planner.types.estimate import Estimate, Refusal
from planner.types.model import Model, Quantization
from planner.types.plan import Candidate, Goal, Index, Reason, Rejected, Verdict
from planner.types.settings import Settings

__all__ = ["Considered", "Estimator", "Evaluation", "ModelOutcome"]

Estimator = Callable[[Model, Quantization, Settings], Estimate | Refusal]
"""Bytes per device and speeds of one combination, or the engine's refusal."""


class Considered(Report, frozen=True, kw_only=True):
    """One combination that was looked at, in short; ``settings`` is ``None`` where arithmetic alone decided.

    ``bound`` is the most that its score could be at any speed, ``score`` what it is at this one (what orders
    candidates), ``credit`` the part of it that speed and headroom make. ``bits_per_weight`` is the recipe's.
    """

    model: str
    quantization: str
    settings: Settings | None
    verdict: Verdict
    reason: Reason
    bound: float
    score: float
    credit: float
    factors: Factors
    index: Index
    thinking: bool
    bits_per_weight: float
    answer_seconds: float | None = None
    headroom_bytes: int | None = None
    file_bytes: int | None = None
    needed_bytes: int | None = None
    tokens_per_s: float | None = None


class ModelOutcome(Report, frozen=True, kw_only=True):
    """How one model of the catalogue ended.

    ``excluded``: the goal forbids it, for ``reason``. ``nothing``: every quantization was worked out, and none fits and
    is fast enough. ``outranked``: the same for the heavier ones; from ``quantization`` down the score is ``bound`` at
    most, which enough others exceed. ``ranked``: the model stands in the ranking with ``quantization``.
    """

    model: str
    state: Literal["excluded", "outranked", "nothing", "ranked"]
    bound: float
    quantization: str | None = None
    reason: Reason | None = None


class Evaluation(Report, frozen=True, kw_only=True):
    """The whole search: ``ranked`` is the best candidate of each model, the best model first, each fit to run.

    ``trade_offs`` are other settings of the winner's model that also meet the goal: better and slower, smaller and
    faster, a longer context. ``pareto`` are the candidates that nothing else which was worked out beats in index,
    speed and memory at once, the best index first; ``trade_off`` says what the winner gave up for what. ``margin`` is
    within how many points two indices cannot be told apart. ``pointless`` maps a quantization that was not tried to
    one that loses no more, takes no more bytes and is read no slower. ``rejected`` names every other model with the
    one reason that decided.
    """

    goal: Goal
    ranked: tuple[Candidate, ...]
    trade_offs: tuple[Candidate, ...]
    pareto: tuple[Candidate, ...]
    trade_off: str
    margin: float
    considered: tuple[Considered, ...]
    outcomes: tuple[ModelOutcome, ...]
    rejected: tuple[Rejected, ...]
    pointless: dict[str, str]
    questions: int

    @property
    def chosen(self) -> Candidate | None:
        """The winner; ``None`` when nothing meets the goal."""
        return self.ranked[0] if self.ranked else None

    def outcome(self, model: str) -> ModelOutcome | None:
        """How the model of that id ended."""
        return next((outcome for outcome in self.outcomes if outcome.model == model), None)
