"""One model with one quantization, from the best settings down: the first that fit, and faster ones below.

The mistake it prevents is asking about every rung of settings: where experts or layers leave the GPU, arithmetic over
the first answer says how many fewer would leave at a lower rung, and so how much faster that could be at most.
"""

import math
from collections.abc import Iterator

from planner.choose import candidates as rules
from planner.choose import policy
from planner.choose.appraisal import Appraiser
from planner.choose.bounds import is_split
from planner.choose.candidates import Step
from planner.choose.inquiry import Inquiry, Option
from planner.choose.placement import Placed, below, placements, without_gpu
from planner.choose.splitting import Outline
from planner.choose.verdict import is_host
from planner.types.estimate import Estimate
from planner.types.machine import Machine
from planner.types.plan import Candidate, Goal
from planner.types.settings import LoadMode, Settings

__all__ = ["Descent"]

_DOUBT = 1.05
"""How much faster than a straight line between two answers says a rung between them may be: a layer's worth."""


class Descent:
    """Descents for one goal on one machine."""

    def __init__(self, goal: Goal, machine: Machine, inquiry: Inquiry, appraiser: Appraiser) -> None:
        self._goal = goal
        self._machine = machine
        self._inquiry = inquiry
        self._appraiser = appraiser
        self._on_gpu = rules.gpu_is_used(machine)
        self._unified = self._on_gpu and all(gpu.unified_memory for gpu in machine.gpus)

    def candidates(self, option: Option, steps: tuple[Step, ...], best: float = 0.0) -> Iterator[Candidate]:
        """The candidates of one model × quantization that meet the goal, from the best rung of settings down.

        The first rung that fits as a whole ends it. A split over GPU and CPU is kept, but lower rungs may move more
        layers to the GPU and be faster, so they are tried while they can still exceed ``best``, the score that the
        model has already. Where nothing fits, the lowest rung is asked second: it needs least, and says whether those
        between can fit and be fast enough.
        """
        found: Placed | None = None
        for number, step in enumerate(self._rungs(option, steps)):
            if found is not None and not self._gains(option, steps, step, found, best):
                continue
            if number == 1 and best <= 0.0 and not self._runs(option, steps, found):
                break
            for placed in self._places(option, step) if found is None else self._below(option, step, found):
                if placed.fits_memory:
                    found = found or placed
                    candidate = self._inquiry.candidate(option, placed)
                    if candidate is not None:
                        best = max(best, candidate.score)
                        yield candidate
                    if not (self._on_gpu and is_split(placed.settings)):
                        return
                elif self._at_full_speed(option, step, placed) <= best:
                    # No rung is worth more than the first would be with everything on the GPU.
                    return
        if found is None:
            *_, last = self._places(option, steps[-1])
            self._inquiry.reject(option, steps[-1], last)

    def _rungs(self, option: Option, steps: tuple[Step, ...]) -> Iterator[Step]:
        """The rungs worth asking about: the first, the last, and those between that could fit by the first's bytes."""
        for number, step in enumerate(steps):
            if number in {0, len(steps) - 1} or not self._cannot_hold(option, steps[0], step):
                yield step

    def _cannot_hold(self, option: Option, first: Step, step: Step) -> bool:
        """Whether weights, cache and compute, by what the first rung took, exceed the memory there is.

        Compute shrinks no faster than the micro-batch. Where layers can leave the GPU, this speaks of the whole there,
        and only about a smaller micro-batch: any other rung may hold more layers.
        """
        several = self._on_gpu and not self._unified
        if several and step.ubatch == first.ubatch:
            return False
        whole = next(self._places(option, first), None)
        rows = [
            row for row in (whole.judged.memory if whole and whole.judged else ()) if not (several and is_host(row))
        ]
        cache, compute = min(1.0, rules.cache_share(step, first)), step.ubatch / first.ubatch
        over = [
            rules.least_weights(row) + cache * row.cache_bytes + compute * row.compute_bytes
            - (row.available_bytes - row.reserve_bytes)
            for row in rows
            if row.available_bytes is not None
        ]  # fmt: skip
        # Over several cards layers may move from one to another.
        return sum(over) > 0 if several else any(each > 0 for each in over)

    def _gains(self, option: Option, steps: tuple[Step, ...], step: Step, found: Placed, best: float) -> bool:
        """Whether a rung below a split that was found can be fast enough and worth more than ``best``.

        First by what less cache and compute could move to the GPU at most; then the lowest rung is asked, which moves
        most, and those between lie between: each layer more on the GPU saves about the same time.
        """
        share, speed = self._time_share(step, found), _tokens_per_s(found)
        if share is None or speed is None:
            return self._is_worth(option, step, self._speed(option, steps[-1], found), best)
        if not self._is_worth(option, step, speed / share if share > 0 else math.inf, best):
            return False
        least, lowest = self._time_share(steps[-1], found) or 0.0, self._speed(option, steps[-1], found)
        if least < 1.0 and math.isfinite(lowest):
            part = min(1.0, (1.0 - share) / (1.0 - least))
            lowest = min(lowest, _DOUBT / ((1.0 - part) / speed + part / lowest)) if lowest > 0 else 0.0
        return self._is_worth(option, step, lowest, best)

    def _is_worth(self, option: Option, step: Step, tokens_per_s: float, best: float) -> bool:
        if tokens_per_s < self._appraiser.least_tokens_per_s(option.model):
            return False
        return self._inquiry.bound(option, step, tokens_per_s) > best

    def _runs(self, option: Option, steps: tuple[Step, ...], found: Placed | None) -> bool:
        """Whether the lowest rung fits somehow and is fast enough."""
        places = self._places(option, steps[-1]) if found is None else self._below(option, steps[-1], found)
        return any(p.judged is not None and p.judged.verdict in {"fits", "tight"} for p in places)

    def _time_share(self, step: Step, found: Placed) -> float | None:
        """The time per token of a rung over that of a split found above it, at least; ``None`` where nobody knows."""
        estimate, judged = found.estimate, found.judged
        outline = Outline.of(estimate, self._machine.gpus) if isinstance(estimate, Estimate) else None
        if outline is None or judged is None:
            return None
        above = self._inquiry.step(found.settings)
        return outline.least_time_share(
            found.settings,
            judged,
            cache_share=rules.cache_share(step, above),
            compute_share=step.ubatch / above.ubatch,
        )

    def _speed(self, option: Option, step: Step, found: Placed) -> float:
        """The decode speed of a rung below a split where it fits, 0 where it does not; infinite where it is unknown."""
        speeds = [
            _tokens_per_s(placed) or math.inf for placed in self._below(option, step, found) if placed.fits_memory
        ]
        return max(speeds, default=0.0)

    def _at_full_speed(self, option: Option, step: Step, whole: Placed) -> float:
        """The most that a rung can score when layers leave the GPU: the speed of the whole is the limit."""
        worth = self._inquiry.appraise(option, step, Placed(whole.settings, whole.estimate, None))
        return worth.score + self._appraiser.margin * policy.headroom_credit(1.0)

    def _places(self, option: Option, step: Step) -> Iterator[Placed]:
        def probe(settings: Settings) -> Placed:
            return self._inquiry.ask(option, settings)

        if not self._on_gpu:
            yield from without_gpu(self._settings(step, load_mode="none", gpu_layers=0), probe)
            return
        layers = option.model.size("n_layer")
        yield from placements(
            self._settings(step, load_mode="mmap", gpu_layers=-1),
            probe,
            layers=layers,
            mixture=option.model.parameters_active < option.model.parameters,
            split=None if self._unified else self._goal.load_mode or "none",
            gpus=self._machine.gpus,
        )

    def _below(self, option: Option, step: Step, above: Placed) -> Iterator[Placed]:
        """The split of a rung under one where a split was found; it is not asked about as a whole again."""
        estimate = above.estimate
        if not isinstance(estimate, Estimate) or Outline.of(estimate, self._machine.gpus) is None:
            yield from self._places(option, step)
            return
        upper = self._inquiry.step(above.settings)
        placed = below(
            self._settings(step, load_mode="mmap", gpu_layers=-1),
            lambda settings: self._inquiry.ask(option, settings),
            above,
            split=self._goal.load_mode or "none",
            gpus=self._machine.gpus,
            cache_share=rules.cache_share(step, upper),
            compute_share=step.ubatch / upper.ubatch,
        )
        if placed is not None:
            yield placed

    def _settings(self, step: Step, *, load_mode: LoadMode, gpu_layers: int) -> Settings:
        return rules.base_settings(self._goal, self._machine, step, load_mode=load_mode, gpu_layers=gpu_layers)


def _tokens_per_s(placed: Placed) -> float | None:
    estimate = placed.estimate
    generate = estimate.speed.generate if isinstance(estimate, Estimate) else None
    return generate.tokens_per_s if generate is not None else None
