"""What a candidate is worth: the policy's rules applied to one model, quantization, settings, speed and memory.

The mistake it prevents is a hybrid model judged in the wrong mode: thinking and not thinking are two entries with two
indices and two waiting times, and the better one for the goal at this speed stands for the candidate.
"""

import functools
import math
from typing import NamedTuple, Protocol

import msgspec

from planner.choose import policy
from planner.choose.verdict import is_host
from planner.types.model import Model, Quantization
from planner.types.plan import DeviceMemory, Goal, Index
from planner.types.quality import Capability, Retention, TaskGroup
from planner.types.settings import CacheType

__all__ = ["Appraisal", "Appraiser", "Factors", "QualitySource"]

_WITHOUT_TRANSLATION = ("en", "zh")
"""The languages that the benchmarks of the other groups are written in."""


class QualitySource(Protocol):
    """Where indices come from: the shipped profile (``planner.catalogue.quality``)."""

    def capability(self, model: Model, group: TaskGroup, *, thinking: bool) -> Capability:
        """A model's index in a task group and mode."""

    def modes(self, model: Model) -> tuple[bool, ...]:
        """The modes a model has: thinking or not."""

    def retention(self, quantization: Quantization, model: Model) -> Retention:
        """What of an index survives a quantization."""

    def overlap_margin(self, group: TaskGroup) -> float:
        """Points within which two indices of a group cannot be told apart."""


class Factors(NamedTuple):
    """The product that a score is made of before credits; only ``capability`` has a unit, points."""

    capability: float
    retention: float
    context: float
    cache: float

    @property
    def points(self) -> float:
        """Points of the index that are left."""
        return math.prod(self)


class Appraisal(NamedTuple):
    """One candidate in its better mode.

    ``credit`` is what speed and headroom add, ``answer_seconds`` the time to a typical answer (``None`` where the speed
    is unknown), ``in_time`` whether that is within the limit.
    """

    thinking: bool
    quality: Index
    factors: Factors
    credit: float
    answer_seconds: float | None
    in_time: bool

    @property
    def score(self) -> float:
        """What orders candidates."""
        return self.factors.points + self.credit


class Appraiser:
    """Applies the policy for one goal; remembers what does not depend on the machine."""

    def __init__(self, goal: Goal, quality: QualitySource) -> None:
        self._goal = goal
        self._quality = quality
        self._margin = quality.overlap_margin(policy.group_of(goal.use))
        self._by_mode = functools.cache(self._modes)
        self._kept = functools.cache(self._retention)
        self._models: dict[str, Model] = {}
        self._quantizations: dict[str, Quantization] = {}

    @property
    def margin(self) -> float:
        """Points within which two candidates cannot be told apart; the credits are counted in it."""
        return self._margin

    def bound(
        self,
        model: Model,
        quantization: Quantization,
        context: int,
        cache: CacheType,
        *,
        fastest_tokens_per_s: float = math.inf,
    ) -> float:
        """The most that a candidate's score can be when it decodes at ``fastest_tokens_per_s`` or slower."""
        roomy = policy.headroom_credit(1.0)
        return max(
            factors.points + self._margin * (self._speed_credit(model, fastest_tokens_per_s, thinking) + roomy)
            for thinking, factors, _ in self._entries(model, quantization, context, cache)
        )

    def _speed_credit(self, model: Model, tokens_per_s: float, thinking: bool) -> float:
        seconds = policy.answer_seconds(self._goal, model, tokens_per_s, thinking=thinking)
        return policy.speed_credit(self._goal, seconds)

    def least_tokens_per_s(self, model: Model) -> float:
        """The speed below which the model is refused in every mode: the goal's floor, or what answers in time."""
        longest = policy.longest_answer_seconds(self._goal)
        modes = self._quality.modes(model)
        in_time = min(policy.answer_seconds(self._goal, model, 1.0, thinking=mode) for mode in modes) / longest
        return max(self._goal.min_tokens_per_s, in_time)

    def kept(self, model: Model, quantization: Quantization) -> float:
        """The share of an index that survives a quantization of ``model``; 1 where nobody could tell."""
        share = self._retained(model, quantization).share
        return 1.0 if share >= policy.LOSSLESS else share

    def appraise(
        self,
        model: Model,
        quantization: Quantization,
        context: int,
        cache: CacheType,
        *,
        tokens_per_s: float | None = None,
        memory: tuple[DeviceMemory, ...] = (),
    ) -> Appraisal:
        """The candidate in the mode with the higher score of those that answer in time, else in the faster one.

        An unknown speed counts as what was asked for, and is no reason to refuse.
        """
        speed = self._goal.min_tokens_per_s if tokens_per_s is None else tokens_per_s
        roomy, in_ram = policy.headroom_credit(_headroom_share(memory)), _share_in_ram(memory)
        found = []
        for thinking, factors, index in self._entries(model, quantization, context, cache):
            seconds = policy.answer_seconds(self._goal, model, speed, thinking=thinking)
            found.append(
                Appraisal(
                    thinking=thinking,
                    quality=index,
                    factors=factors,
                    credit=self._margin * (policy.speed_credit(self._goal, seconds, weights_in_ram=in_ram) + roomy),
                    answer_seconds=None if tokens_per_s is None else seconds,
                    in_time=tokens_per_s is None or seconds <= policy.longest_answer_seconds(self._goal),
                )
            )
        in_time = [each for each in found if each.in_time]
        if not in_time:
            return min(found, key=lambda each: (each.answer_seconds or 0.0, each.thinking))
        return max(in_time, key=lambda each: (each.score, not each.thinking))

    def _entries(
        self, model: Model, quantization: Quantization, context: int, cache: CacheType
    ) -> list[tuple[bool, Factors, Index]]:
        """Mode, factors and index for each mode of the model."""
        self._models[model.id] = model
        kept = self._retained(model, quantization)
        context_share = policy.context_factor(self._goal, model.context_native, context)
        cache_share = policy.cache_factor(cache)
        return [
            (
                thinking,
                Factors(
                    capability=policy.trusted(capability),
                    retention=kept.share,
                    context=context_share,
                    cache=cache_share,
                ),
                _index(capability, kept),
            )
            for thinking, capability in self._by_mode(model.id)
        ]

    def _retained(self, model: Model, quantization: Quantization) -> Retention:
        self._models[model.id] = model
        self._quantizations[quantization.name] = quantization
        return self._kept(model.id, quantization.name)

    def _retention(self, model: str, quantization: str) -> Retention:
        return self._quality.retention(self._quantizations[quantization], self._models[model])

    def _modes(self, name: str) -> tuple[tuple[bool, Capability], ...]:
        model = self._models[name]
        return tuple((thinking, self._capability(model, thinking=thinking)) for thinking in self._quality.modes(model))

    def _capability(self, model: Model, *, thinking: bool) -> Capability:
        """The index of the use; where another language is asked for, halfway to the multilingual one."""
        own = self._quality.capability(model, policy.group_of(self._goal.use), thinking=thinking)
        if all(language in _WITHOUT_TRANSLATION for language in self._goal.languages):
            return own
        other = self._quality.capability(model, "multilingual", thinking=thinking)
        return msgspec.structs.replace(
            own,
            index=(own.index + other.index) / 2,
            low=(own.low + other.low) / 2,
            high=(own.high + other.high) / 2,
        )


def _index(capability: Capability, kept: Retention) -> Index:
    """Capability times retention; the interval adds both doubts, as independent relative errors."""
    value = capability.index * kept.share
    below = math.hypot((capability.index - capability.low) / capability.index, (kept.share - kept.low) / kept.share)
    above = math.hypot((capability.high - capability.index) / capability.index, (kept.high - kept.share) / kept.share)
    return Index(
        value=value,
        low=max(0.0, value * (1 - below)),
        high=min(100.0, value * (1 + above)),
        group=capability.group,
        capability=capability.index,
        retention=kept.share,
        origin=capability.origin,
    )


def _headroom_share(memory: tuple[DeviceMemory, ...]) -> float:
    """The share of memory that a candidate leaves free beside the reserves: the mean of all GPUs' and the host's.

    Not of all memory together: RAM added to a machine whose card does the work must not lower it. Nor of each card: how
    layers fall on several cards changes with every byte of them.
    """
    sides = [tuple(row for row in memory if is_host(row) is host) for host in (False, True)]
    shares = [_share_left(rows) for rows in sides if rows]
    return sum(shares) / len(shares) if shares else 0.0


def _share_left(rows: tuple[DeviceMemory, ...]) -> float:
    offered = sum(row.available_bytes or 0 for row in rows)
    return sum(max(0, row.headroom_bytes or 0) for row in rows) / offered if offered > 0 else 0.0


def _share_in_ram(memory: tuple[DeviceMemory, ...]) -> float:
    """The share of the weights that a plan with a GPU leaves to the host; 0 for a plan without one."""
    if all(is_host(row) for row in memory):
        return 0.0
    weights = sum(row.weights_bytes for row in memory)
    return sum(row.weights_bytes for row in memory if is_host(row)) / weights if weights else 0.0
