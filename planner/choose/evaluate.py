"""The search: every model × quantization the goal allows, best score first, until nothing left can win.

A score is an upper bound (speed only lowers it). So the search takes the combination with the highest score of all,
works it out, and ends when the highest score left is below what enough models have in hand: the rest need no question,
and the bound is their reason. The mistakes it prevents: a shortcut that changes the answer, and a loser without a
reason.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

from planner.choose import candidates, policy, refine
from planner.choose.appraisal import Appraiser, QualitySource
from planner.choose.bounds import Bounds, is_split
from planner.choose.candidates import Step
from planner.choose.evaluation import Estimator, Evaluation, ModelOutcome
from planner.choose.inquiry import Inquiry, Option
from planner.choose.placement import Placed, placements
from planner.choose.rank import order_key, pareto, rank
from planner.choose.why_not import rejected
from planner.choose.words import explain
from planner.types.estimate import Estimate
from planner.types.machine import Machine
from planner.types.model import Model, Quantization
from planner.types.plan import Candidate, Goal, Reason
from planner.types.settings import LoadMode, Settings

__all__ = ["evaluate"]

_FASTER_MODELS = 3
_MUCH_SMALLER = 0.5


def evaluate(
    goal: Goal,
    machine: Machine,
    catalogue_models: Iterable[Model],
    quantizations: Iterable[Quantization] | Callable[[Model], Iterable[Quantization]],
    estimator: Estimator,
    quality: QualitySource,
) -> Evaluation:
    """Everything that can be said about a goal on a machine; the winner is ``Evaluation.chosen``.

    ``quantizations`` are the recipes that exist for every model, or a function that tells those of one. Deterministic,
    and independent of the order of the models and quantizations. ``estimator`` is asked at most once about a
    combination.
    """
    models = sorted(catalogue_models, key=lambda model: model.id)
    search = _Search(goal, machine, _offer(quantizations), estimator, Appraiser(goal, quality))
    search.run(models)
    return search.result(models)


_Offer = Callable[[Model], tuple[Quantization, ...]]


def _offer(quantizations: Iterable[Quantization] | Callable[[Model], Iterable[Quantization]]) -> _Offer:
    """The quantizations of a model; the same tuple for all models that share one list."""
    if not callable(quantizations):
        shared = tuple(quantizations)
        return lambda _model: shared
    told: dict[str, tuple[Quantization, ...]] = {}

    def offer(model: Model) -> tuple[Quantization, ...]:
        if model.id not in told:
            offered = tuple(quantizations(model))
            told[model.id] = next((known for known in told.values() if known == offered), offered)
        return told[model.id]

    return offer


class _Search:
    """One search: what was asked, what was found. Lives for one call of :func:`evaluate`."""

    def __init__(
        self,
        goal: Goal,
        machine: Machine,
        offer: _Offer,
        estimator: Estimator,
        appraiser: Appraiser,
    ) -> None:
        self.goal = goal
        self.machine = machine
        self.offer = offer
        self.appraiser = appraiser
        self.inquiry = Inquiry(goal, machine, estimator, appraiser)
        self.bounds = Bounds(goal, machine, self.inquiry, appraiser)
        self.on_gpu = candidates.gpu_is_used(machine)
        self.unified = self.on_gpu and all(gpu.unified_memory for gpu in machine.gpus)
        self.recipes: dict[tuple[bool, int], tuple[Quantization, ...]] = {}
        self.outcomes: dict[str, ModelOutcome] = {}
        self.found: dict[str, list[Candidate]] = {}

    # --- best first ---

    def run(self, models: list[Model]) -> None:
        """Works through options, the highest score first, and notes how each model ended."""
        queue: list[tuple[float, str, int]] = []
        by_id = {model.id: model for model in models}
        for model in models:
            reason = candidates.screen(self.goal, model)
            if reason is None and not self._recipes(model):
                text = "none of the quantizations asked for exists for it"
                reason = Reason(code="engine-refused", text=text, rule="engine")
            if reason is None:
                heapq.heappush(queue, (-self._bound(model, 0), model.id, 0))
            else:
                self.outcomes[model.id] = ModelOutcome(model=model.id, state="excluded", bound=0.0, reason=reason)
        while queue and -queue[0][0] > self._enough():
            negative, name, index = heapq.heappop(queue)
            model = by_id[name]
            best = self._best(name)
            if -negative > best:
                option = Option(model, self._recipes(model)[index])
                # What the model's heavier recipes showed since bounds its lighter ones more closely.
                tight = self.bounds.score(option)
                if tight < -negative:
                    heapq.heappush(queue, (-tight, name, index))
                    continue
                self._work_out(option, best)
                if index + 1 < len(self._recipes(model)):
                    heapq.heappush(queue, (-self._bound(model, index + 1), name, index + 1))
        self._look_for_faster(queue, by_id)
        left = {name: (-negative, self._recipes(by_id[name])[index].name) for negative, name, index in queue}
        for model in models:
            if model.id not in self.outcomes:
                self.outcomes[model.id] = self._outcome(model, left.get(model.id))

    def _look_for_faster(self, queue: list[tuple[float, str, int]], by_id: dict[str, Model]) -> None:
        """Works out the best of much smaller models, for the list of quality against speed and memory.

        The bound never asks about them, because they cannot win; but somebody who wants twice the speed should see
        what it costs. Each next one has at most half the active parameters of the smallest before.
        """
        for _ in range(_FASTER_MODELS):
            smallest = min((by_id[name].parameters_active for name in self.found), default=0)
            options = [entry for entry in queue if by_id[entry[1]].parameters_active <= _MUCH_SMALLER * smallest]
            if not options:
                return
            _, name, index = entry = min(options)
            model = by_id[name]
            queue.remove(entry)
            self._work_out(Option(model, self._recipes(model)[index]), 0.0)
            if index + 1 < len(self._recipes(model)):
                queue.append((-self._bound(model, index + 1), name, index + 1))

    def _enough(self) -> float:
        """The score below which a bound is of no interest: what the last model worth showing has in hand."""
        in_hand = sorted((self._best(name) for name in self.found), reverse=True)
        return in_hand[policy.KEEP - 1] if len(in_hand) >= policy.KEEP else 0.0

    def _best(self, model: str) -> float:
        return max((candidate.score for candidate in self.found.get(model, ())), default=0.0)

    def _bound(self, model: Model, index: int) -> float:
        """The most that a model's recipe can score, as far as is known."""
        return self.bounds.score(Option(model, self._recipes(model)[index]))

    def _recipes(self, model: Model) -> tuple[Quantization, ...]:
        """The recipes of a model; those of one list differ only between dense models and mixtures."""
        offered = self.offer(model)
        # The lists live as long as the search, so the identity of one names it.
        key = (model.parameters_active >= model.parameters, id(offered))
        if key not in self.recipes:
            self.recipes[key] = candidates.recipes(
                self.goal, model, offered, lambda quantization: self.appraiser.kept(model, quantization)
            )
        return self.recipes[key]

    def _outcome(self, model: Model, left: tuple[float, str] | None) -> ModelOutcome:
        bound, recipe = left or (0.0, None)
        if model.id in self.found:
            winner = rank(self.found[model.id])[0]
            return ModelOutcome(model=model.id, state="ranked", bound=bound, quantization=winner.quantization)
        state: Literal["nothing", "outranked"] = "nothing" if left is None else "outranked"
        return ModelOutcome(model=model.id, state=state, bound=bound, quantization=recipe)

    # --- one model with one quantization ---

    def _work_out(self, option: Option, best: float) -> None:
        steps = candidates.ladder(self.goal, option.model)
        name = option.model.id
        hopeless = self.bounds.too_big(option) or (self.bounds.too_slow(option) if name not in self.found else None)
        if hopeless is not None:
            self.inquiry.note(
                option,
                steps[0],
                None,
                hopeless.reason,
                needed_bytes=hopeless.needed_bytes,
                verdict=hopeless.verdict,
            )
            return
        for candidate in self._climb_down(option, steps, best):
            self.found.setdefault(name, []).append(candidate)

    def _climb_down(self, option: Option, steps: tuple[Step, ...], best: float = 0.0) -> Iterator[Candidate]:
        """The candidates of one model × quantization that meet the goal, from the best rung of settings down.

        The first rung that fits as a whole ends it. A split over GPU and CPU is kept, but lower rungs may move more
        layers to the GPU and be faster, so they are tried while they can still exceed ``best``, the score that the
        model has already. The lowest rung needs least and moves most: asked second, it says whether those between can
        fit and be fast enough.
        """
        found = False
        for number, step in enumerate(self._rungs(option, steps)):
            # The lowest rung leaves most room on the GPU, so no rung above it is faster.
            if found and self.inquiry.bound(option, step, self._speed(option, steps[-1])) <= best:
                return
            if number == 1 and best <= 0.0 and not self._runs(option, steps[-1]):
                break
            for placed in self._places(option, step):
                if placed.fits_memory:
                    found = True
                    candidate = self.inquiry.candidate(option, placed)
                    if candidate is not None:
                        best = max(best, candidate.score)
                        yield candidate
                    if not (self.on_gpu and is_split(placed.settings)):
                        return
                elif self._at_full_speed(option, step, placed) <= best:
                    break
        if not found:
            *_, last = self._places(option, steps[-1])
            self.inquiry.reject(option, steps[-1], last)

    def _rungs(self, option: Option, steps: tuple[Step, ...]) -> Iterator[Step]:
        """The rungs worth asking about: the first, the last, and those between that could fit by the first's bytes."""
        for number, step in enumerate(steps):
            if number in {0, len(steps) - 1} or not self._cannot_hold(option, steps[0], step):
                yield step

    def _cannot_hold(self, option: Option, first: Step, step: Step) -> bool:
        """Whether weights and cache alone, by what the first rung took, exceed the one memory there is."""
        if self.on_gpu and not self.unified:
            return False
        rows = [row for placed in self._places(option, first) if placed.judged for row in placed.judged.memory]
        share = min(1.0, candidates.cache_share(step, first))
        rooms = [(row, row.available_bytes - row.reserve_bytes) for row in rows if row.available_bytes is not None]
        return any(row.weights_bytes + share * row.cache_bytes > room for row, room in rooms)

    def _runs(self, option: Option, step: Step) -> bool:
        """Whether a rung fits somehow and is fast enough."""
        return any(p.judged is not None and p.judged.verdict in {"fits", "tight"} for p in self._places(option, step))

    def _speed(self, option: Option, step: Step) -> float:
        """The decode speed of a rung where it fits; infinite where it is unknown."""
        speeds = [
            placed.estimate.speed.generate.tokens_per_s if placed.estimate.speed.generate is not None else math.inf
            for placed in self._places(option, step)
            if placed.fits_memory and isinstance(placed.estimate, Estimate)
        ]
        return max(speeds, default=math.inf)

    def _at_full_speed(self, option: Option, step: Step, whole: Placed) -> float:
        """The most that a rung can score when layers leave the GPU: the speed of the whole is the limit."""
        worth = self.inquiry.appraise(option, step, Placed(whole.settings, whole.estimate, None))
        return worth.score + self.appraiser.margin * policy.headroom_credit(1.0)

    def _places(self, option: Option, step: Step) -> Iterator[Placed]:
        def probe(settings: Settings) -> Placed:
            return self.inquiry.ask(option, settings)

        if not self.on_gpu:
            yield probe(self._settings(step, load_mode="none", gpu_layers=0))
            return
        layers = option.model.size("n_layer")
        yield from placements(
            self._settings(step, load_mode="mmap", gpu_layers=-1),
            probe,
            layers=layers,
            mixture=option.model.parameters_active < option.model.parameters,
            split=None if self.unified else self.goal.load_mode or "none",
        )

    def _settings(self, step: Step, *, load_mode: LoadMode, gpu_layers: int) -> Settings:
        return candidates.base_settings(self.goal, self.machine, step, load_mode=load_mode, gpu_layers=gpu_layers)

    # --- the whole ---

    def result(self, models: list[Model]) -> Evaluation:
        """The evaluation: polished winners in order, the winner's trade-offs, a reason for every loser."""
        by_id = {model.id: model for model in models}
        firsts = [min(found, key=order_key) for found in self.found.values()]
        ranked = rank(self._mapped(by_id, first) for first in firsts)
        trade_offs = self._trade_offs(ranked[0], by_id) if ranked else ()
        evaluation = Evaluation(
            goal=self.goal,
            ranked=ranked,
            trade_offs=trade_offs,
            pareto=self._pareto(ranked, trade_offs),
            trade_off="",
            margin=self.appraiser.margin,
            considered=self.inquiry.in_order(),
            outcomes=tuple(self.outcomes[model.id] for model in models),
            rejected=(),
            pointless=self._pointless(by_id[ranked[0].model] if ranked else next(iter(models), None)),
            questions=self.inquiry.questions,
        )
        told = explain(evaluation, by_id)
        return msgspec.structs.replace(told, rejected=rejected(told))

    def _pointless(self, model: Model | None) -> dict[str, str]:
        """Each recipe that was left out for a better one, with that one, as for ``model``."""
        if self.goal.quantization is not None or model is None:
            return {}

        def kept(quantization: Quantization) -> float:
            return self.appraiser.kept(model, quantization)

        offered = self.offer(model)
        better = {q.name: candidates.better_recipe(q, offered, kept) for q in offered}
        return {name: found.name for name, found in sorted(better.items()) if found is not None}

    def _pareto(self, ranked: tuple[Candidate, ...], trade_offs: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        """Quality, speed and memory of what was worked out at the winner's context: what nothing else beats."""
        if not ranked:
            return ()
        winner, context = ranked[0], ranked[0].settings.context_tokens
        worked_out = [each for found in self.found.values() for each in found]
        same = [each for each in [*worked_out, *trade_offs] if each.settings.context_tokens >= context]
        others = [each for each in same if (each.model, each.quantization) != (winner.model, winner.quantization)]
        return pareto([winner, *others], policy.PARETO, winner=winner)

    def _mapped(self, models: dict[str, Model], candidate: Candidate) -> Candidate:
        return refine.mapped_where_free(self.inquiry, self.goal, self._option(models, candidate), candidate)

    def _option(self, models: dict[str, Model], candidate: Candidate) -> Option:
        model = models[candidate.model]
        return Option(model, next(q for q in self.offer(model) if q.name == candidate.quantization))

    def _trade_offs(self, winner: Candidate, models: dict[str, Model]) -> tuple[Candidate, ...]:
        """Other settings of the winner's model that meet the goal: its next lighter recipes, and a longer context."""
        known = [c for c in self.found[winner.model] if c.quantization != winner.quantization]
        model = models[winner.model]
        steps = candidates.ladder(self.goal, model)
        seen = {entry.quantization for entry in self.inquiry.considered if entry.model == winner.model}
        lighter = [quantization for quantization in self._recipes(model) if quantization.name not in seen]
        for quantization in lighter[:2]:
            known.extend(self._climb_down(Option(model, quantization), steps))
        longer = refine.longest_context(self.inquiry, self.goal, self._option(models, winner), winner)
        return rank([self._mapped(models, c) for c in [*known, *longer]])
