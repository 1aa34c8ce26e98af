"""What a search over candidates leaves behind: the ranking, every verdict reached, the bounds for the rest.

The mistake it prevents is a loser without a reason: ``outcomes`` has one entry for each model of the catalogue, and
``considered`` one for each combination that was looked at.
"""

from collections.abc import Callable
from typing import Literal

from planner.choose.policy import Factors
from planner.types import Report
from planner.types.estimate import Estimate, Refusal
from planner.types.model import Model, Quantization
from planner.types.plan import Candidate, Goal, Reason, Rejected, Verdict
from planner.types.settings import Settings

__all__ = ["Considered", "Estimator", "Evaluation", "ModelOutcome"]

Estimator = Callable[[Model, Quantization, Settings], Estimate | Refusal]
"""Bytes per device and speeds of one combination, or the engine's refusal."""


class Considered(Report, frozen=True, kw_only=True):
    """One combination that was looked at, in short; ``settings`` is ``None`` where arithmetic alone decided.

    ``utility`` is the score times what its speed leaves of it: the number that orders candidates.
    """

    model: str
    quantization: str
    settings: Settings | None
    verdict: Verdict
    reason: Reason
    score: float
    utility: float
    factors: Factors
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
    faster, a longer context. ``pointless`` maps a quantization that was not tried to one that loses no more, takes no
    more bytes and is read no slower. ``rejected`` names every other model with the one reason that decided.
    """

    goal: Goal
    ranked: tuple[Candidate, ...]
    trade_offs: tuple[Candidate, ...]
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
