"""One question to the estimator, its verdict, and the note of it; asks nothing twice.

The mistake it prevents is an answer that is used and not written down: whatever is asked about a candidate leaves an
entry in ``considered``, so every loser has its reason.
"""

from typing import NamedTuple

from planner.choose import policy
from planner.choose.candidates import Step
from planner.choose.evaluation import Considered, Estimator
from planner.choose.placement import Placed
from planner.choose.policy import Factors
from planner.choose.verdict import judge
from planner.types.estimate import Estimate, Refusal
from planner.types.machine import Machine
from planner.types.model import Model, Quantization
from planner.types.plan import Candidate, Goal, Reason, Verdict
from planner.types.settings import Settings

__all__ = ["Inquiry", "Option"]


class Option(NamedTuple):
    """A model with a quantization."""

    model: Model
    quantization: Quantization


class Inquiry:
    """Questions about candidates for one goal on one machine, with everything that was noted."""

    def __init__(self, goal: Goal, machine: Machine, estimator: Estimator) -> None:
        self._goal = goal
        self._machine = machine
        self._estimator = estimator
        self._answers: dict[tuple[str, str, Settings], Placed] = {}
        self.considered: list[Considered] = []

    @property
    def questions(self) -> int:
        """How many combinations the estimator was asked about."""
        return len(self._answers)

    def in_order(self) -> tuple[Considered, ...]:
        """What was noted, by model, the most useful first."""
        return tuple(sorted(self.considered, key=lambda c: (c.model, -c.utility, -c.score, c.quantization)))

    def factors(self, option: Option, step: Step) -> Factors:
        """The factors of an option's score at a rung of settings."""
        return policy.factors(self._goal, option.model, option.quantization, step.context, step.cache)

    def ask(self, option: Option, settings: Settings) -> Placed:
        """The estimator's answer with the verdict on it."""
        key = (option.model.id, option.quantization.name, settings)
        if key not in self._answers:
            estimate = self._estimator(option.model, option.quantization, settings)
            judged = judge(self._goal, self._machine, estimate) if isinstance(estimate, Estimate) else None
            self._answers[key] = Placed(settings, estimate, judged)
        return self._answers[key]

    def candidate(self, option: Option, step: Step, placed: Placed) -> Candidate | None:
        """A candidate from an answer that fits memory; notes it, and gives ``None`` when it is too slow."""
        if not isinstance(placed.estimate, Estimate) or placed.judged is None:
            return None
        judged = placed.judged
        candidate = Candidate(
            model=option.model.id,
            quantization=option.quantization.name,
            settings=placed.settings,
            file_bytes=placed.estimate.file_bytes,
            memory=judged.memory,
            speed=placed.estimate.speed,
            verdict=judged.verdict,
            score=self.factors(option, step).score,
        )
        self.note(option, step, placed, judged.reason, needed_bytes=judged.needed_bytes)
        return None if judged.verdict == "too-slow" else candidate

    def reject(self, option: Option, step: Step, placed: Placed) -> None:
        """Notes why an answer is no candidate."""
        if isinstance(placed.estimate, Refusal) or placed.judged is None:
            text = placed.estimate.text if isinstance(placed.estimate, Refusal) else "the engine gave no answer"
            self.note(option, step, placed, Reason(code="engine-refused", text=text))
            return
        self.note(option, step, placed, placed.judged.reason, needed_bytes=placed.judged.needed_bytes)

    def note(
        self,
        option: Option,
        step: Step,
        placed: Placed | None,
        reason: Reason,
        *,
        needed_bytes: int | None = None,
        verdict: Verdict = "unsupported",
    ) -> None:
        """Notes a verdict; ``placed`` is ``None`` where arithmetic alone decided, and ``verdict`` is then taken."""
        estimate = placed.estimate if placed is not None and isinstance(placed.estimate, Estimate) else None
        generate = estimate.speed.generate if estimate is not None else None
        tokens_per_s = generate.tokens_per_s if generate is not None else None
        made = self.factors(option, step)
        judged = placed.judged if placed is not None else None
        self.considered.append(
            Considered(
                model=option.model.id,
                quantization=option.quantization.name,
                settings=placed.settings if placed is not None else None,
                verdict=judged.verdict if judged is not None else verdict,
                reason=reason,
                score=made.score,
                utility=made.score * policy.speed_factor(tokens_per_s, self._goal),
                factors=made,
                file_bytes=estimate.file_bytes if estimate is not None else None,
                needed_bytes=needed_bytes,
                tokens_per_s=tokens_per_s,
            )
        )
