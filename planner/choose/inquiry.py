"""One question to the estimator, its verdict, and the note of it; asks nothing twice.

The mistake it prevents is an answer that is used and not written down: whatever is asked about a candidate leaves an
entry in ``considered``, so every loser has its reason.
"""

import math
from typing import NamedTuple

from planner.choose.appraisal import Appraisal, Appraiser
from planner.choose.candidates import Step
from planner.choose.evaluation import Considered, Estimator
from planner.choose.placement import Placed
from planner.choose.verdict import Judged, answer_reason, judge
from planner.types.estimate import Estimate, Refusal
from planner.types.machine import Machine
from planner.types.model import Model, Quantization
from planner.types.plan import Candidate, Goal, Reason, Verdict
from planner.types.settings import CacheType, Settings

__all__ = ["Inquiry", "Option"]


class Option(NamedTuple):
    """A model with a quantization."""

    model: Model
    quantization: Quantization


class Inquiry:
    """Questions about candidates for one goal on one machine, with everything that was noted."""

    def __init__(self, goal: Goal, machine: Machine, estimator: Estimator, appraiser: Appraiser) -> None:
        self._goal = goal
        self._appraiser = appraiser
        self._machine = machine
        self._estimator = estimator
        self._answers: dict[tuple[str, str, Settings], Placed] = {}
        self._caches: dict[tuple[str, int, CacheType], int] = {}
        self.considered: list[Considered] = []
        self._by_model: dict[str, list[Considered]] = {}

    @property
    def questions(self) -> int:
        """How many combinations the estimator was asked about."""
        return len(self._answers)

    def in_order(self) -> tuple[Considered, ...]:
        """What was noted, by model, the most useful first."""
        return tuple(sorted(self.considered, key=lambda c: (c.model, -c.score, -c.bound, c.quantization)))

    def bound(self, option: Option, step: Step, fastest_tokens_per_s: float = math.inf) -> float:
        """The most that an option's score can be at a rung of settings and a speed."""
        return self._appraiser.bound(
            option.model,
            option.quantization,
            step.context,
            step.cache,
            fastest_tokens_per_s=fastest_tokens_per_s,
        )

    def appraise(self, option: Option, step: Step, placed: Placed | None) -> Appraisal:
        """What an option is worth with an answer, or without one at the speed that was asked for."""
        estimate = placed.estimate if placed is not None and isinstance(placed.estimate, Estimate) else None
        judged = placed.judged if placed is not None else None
        generate = estimate.speed.generate if estimate is not None else None
        return self._appraiser.appraise(
            option.model,
            option.quantization,
            step.context,
            step.cache,
            tokens_per_s=generate.tokens_per_s if generate is not None else None,
            memory=judged.memory if judged is not None else (),
        )

    def ask(self, option: Option, settings: Settings) -> Placed:
        """The estimator's answer with the verdict on it."""
        key = (option.model.id, option.quantization.name, settings)
        if key not in self._answers:
            estimate = self._estimator(option.model, option.quantization, settings)
            judged = judge(self._goal, self._machine, estimate) if isinstance(estimate, Estimate) else None
            self._answers[key] = Placed(settings, estimate, judged)
            if judged is not None:
                held = sum(row.cache_bytes for row in judged.memory)
                rung = (option.model.id, settings.context_tokens // self._goal.parallel, settings.cache_type_k)
                self._caches[rung] = min(held, self._caches.get(rung, held))
        return self._answers[key]

    def noted(self, model: Model) -> tuple[Considered, ...]:
        """What was noted about one model, in the order of asking."""
        return tuple(self._by_model.get(model.id, ()))

    def least_cache_bytes(self, model: Model, step: Step) -> int:
        """The least cache that an answer about ``model`` at a rung's context and cache type told; 0 before any did."""
        return self._caches.get((model.id, step.context, step.cache), 0)

    def candidate(self, option: Option, placed: Placed) -> Candidate | None:
        """A candidate from an answer that fits memory; notes it, and gives ``None`` when it is too slow."""
        if not isinstance(placed.estimate, Estimate) or placed.judged is None:
            return None
        judged, step = placed.judged, self.step(placed.settings)
        worth = self.appraise(option, step, placed)
        verdict, reason = judged.verdict, judged.reason
        if verdict != "too-slow" and not worth.in_time:
            verdict, reason = "too-slow", answer_reason(self._goal, worth.answer_seconds or 0.0, placed.estimate.speed)
        self.note(option, step, placed, reason, needed_bytes=judged.needed_bytes, verdict=verdict)
        if verdict == "too-slow":
            return None
        return Candidate(
            model=option.model.id,
            quantization=option.quantization.name,
            settings=placed.settings,
            file_bytes=placed.estimate.file_bytes,
            memory=judged.memory,
            speed=placed.estimate.speed,
            verdict=verdict,
            score=worth.score,
            index=worth.quality,
            thinking=worth.thinking,
            answer_seconds=worth.answer_seconds,
        )

    def reject(self, option: Option, step: Step, placed: Placed) -> None:
        """Notes why an answer is no candidate."""
        if isinstance(placed.estimate, Refusal) or placed.judged is None:
            text = placed.estimate.text if isinstance(placed.estimate, Refusal) else "the engine gave no answer"
            self.note(option, step, placed, Reason(code="engine-refused", text=text, rule="engine"))
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
        verdict: Verdict | None = None,
    ) -> None:
        """Notes a verdict; without one the engine's judgement of ``placed`` is taken, or ``unsupported``."""
        estimate = placed.estimate if placed is not None and isinstance(placed.estimate, Estimate) else None
        generate = estimate.speed.generate if estimate is not None else None
        judged = placed.judged if placed is not None else None
        worth = self.appraise(option, step, placed)
        noted = Considered(
            model=option.model.id,
            quantization=option.quantization.name,
            settings=placed.settings if placed is not None else None,
            verdict=verdict or (judged.verdict if judged is not None else "unsupported"),
            reason=reason,
            bound=self.bound(option, step),
            score=worth.score,
            credit=worth.credit,
            factors=worth.factors,
            index=worth.quality,
            thinking=worth.thinking,
            bits_per_weight=option.quantization.bits_per_weight,
            answer_seconds=worth.answer_seconds,
            headroom_bytes=_headroom(judged) if judged is not None else None,
            file_bytes=estimate.file_bytes if estimate is not None else None,
            needed_bytes=needed_bytes,
            tokens_per_s=generate.tokens_per_s if generate is not None else None,
        )
        self.considered.append(noted)
        self._by_model.setdefault(noted.model, []).append(noted)

    def step(self, settings: Settings) -> Step:
        """The rung that settings are on."""
        return Step(settings.context_tokens // self._goal.parallel, settings.cache_type_k, settings.ubatch)


def _headroom(judged: Judged) -> int:
    return sum(max(0, row.headroom_bytes or 0) for row in judged.memory)
