"""The search: every model × quantization the goal allows, best score first, until nothing left can win.

A score is an upper bound (speed only lowers it). So the search takes the combination with the highest score of all,
works it out, and ends when the highest score left is below what enough models have in hand: the rest need no question,
and the bound is their reason. The mistakes it prevents: a shortcut that changes the answer, and a loser without a
reason.
"""

import heapq
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from planner.choose import candidates, policy, refine
from planner.choose.appraisal import Appraiser, QualitySource
from planner.choose.bounds import Bounds
from planner.choose.descent import Descent
from planner.choose.evaluation import Estimator, Evaluation, ModelOutcome
from planner.choose.inquiry import Inquiry, Option
from planner.choose.rank import order_key, pareto, rank
from planner.choose.why_not import rejected
from planner.choose.words import explain
from planner.types.machine import Machine
from planner.types.model import Model, Quantization
from planner.types.plan import Candidate, Goal, Reason

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
        self.descent = Descent(goal, machine, self.inquiry, appraiser)
        self.on_gpu = candidates.gpu_is_used(machine)
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
        for candidate in self.descent.candidates(option, steps, best):
            self.found.setdefault(name, []).append(candidate)

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
        return self._for_long_prompts(msgspec.structs.replace(told, rejected=rejected(told)), by_id)

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

    def _for_long_prompts(self, evaluation: Evaluation, models: dict[str, Model]) -> Evaluation:
        """The evaluation with larger micro-batches for the winner where prompts are long and a GPU has the room."""
        winner = evaluation.chosen
        if winner is None or not self.on_gpu or self.goal.use not in policy.LONG_PROMPTS:
            return evaluation
        larger = refine.larger_ubatch(self.inquiry, self._option(models, winner), winner)

        def told(each: Candidate) -> Candidate:
            same = (each.model, each.quantization, each.settings) == (
                winner.model,
                winner.quantization,
                winner.settings,
            )
            return msgspec.structs.replace(larger, reasons=each.reasons) if same else each

        return msgspec.structs.replace(
            evaluation,
            ranked=(larger, *evaluation.ranked[1:]),
            pareto=tuple(told(each) for each in evaluation.pareto),
        )

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
            known.extend(self.descent.candidates(Option(model, quantization), steps))
        longer = refine.longest_context(self.inquiry, self.goal, self._option(models, winner), winner)
        return rank([self._mapped(models, c) for c in [*known, *longer]])
