"""How capable a model is and what a quantization takes from it, read from ``profiles/quality``; nothing is fitted here.

Prevents three mistakes: a number for a model that nobody scored without saying so, a foreign GGUF without any number,
and a retention that contradicts itself (fewer bits keeping more, a smaller model losing less).

``bench/quality.py --write`` makes both files from the published scores; docs/quality.md says how far to trust them.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from planner.catalogue.tables import bad_profile
from planner.errors import MissingInputError
from planner.files import profiles_dir
from planner.types import Report
from planner.types.model import Model, Quantization, Thinking
from planner.types.quality import Capability, Retention, TaskGroup

__all__ = ["Quality", "is_coder", "load_quality", "model_features", "years_since_2025"]

Struct = TypeVar("Struct")

_QUANTILE_90 = 1.2816
"""Standard deviations from the mean of a normal distribution to the ends of its 80 % interval."""


class BasketItem(Report, frozen=True, kw_only=True):
    """One benchmark of a basket: ``floor`` (guessing, in percent), difficulty and slope on the logit scale."""

    benchmark: str
    floor: float
    level: float
    slope: float

    def score(self, ability: float) -> float:
        """The expected score of an ability, in percent."""
        return self.floor + (100 - self.floor) / (1 + math.exp(-self.level - self.slope * ability))


class GroupProfile(Report, frozen=True, kw_only=True):
    """A task group: its basket and how an ability is inferred from :func:`model_features` alone.

    ``covariance`` is that of the coefficients (in their order), ``unexplained`` the variance of a model around them.
    """

    basket: tuple[BasketItem, ...]
    overlap_margin: float
    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    unexplained: float

    def index(self, ability: float) -> float:
        """The expected score on the basket, in percent."""
        return sum(item.score(ability) for item in self.basket) / len(self.basket)


class AgeProfile(Report, frozen=True, kw_only=True):
    """Years since 2025 of a model without a date: from its generation, or the catalogue's middle."""

    per_generation: float
    at_generation_zero: float
    deviation: float
    mean: float
    mean_deviation: float


class CapabilityProfile(Report, frozen=True, kw_only=True):
    """``profiles/quality/capability.json``, as far as the planner needs it."""

    features: tuple[str, ...]
    groups: dict[TaskGroup, GroupProfile]
    age: AgeProfile
    entries: dict[str, tuple[Capability, ...]]


class TypeCurve(Report, frozen=True, kw_only=True):
    """What is known of one recipe: the logarithm of its divergence on a dense model of 8 B, and its spread.

    ``measured`` lists the sizes (parameters) for which somebody published a loss.
    """

    bits_per_weight: float
    log_kld: float
    deviation: float
    measured: tuple[float, ...]


class RetentionProfile(Report, frozen=True, kw_only=True):
    """``profiles/quality/retention.json``, as far as the planner needs it; see :meth:`Quality.retention`."""

    types: dict[str, TypeCurve]
    bits: tuple[tuple[float, float], ...]
    bits_deviation: float
    per_decade: float
    per_decade_deviation: float
    agreement: tuple[float, float]
    loss: tuple[float, float]


class Quality:
    """Capability of models and retention of quantizations, from shipped profiles."""

    def __init__(self, capability: CapabilityProfile, retention: RetentionProfile) -> None:
        self._profile = capability
        self._retention = retention
        self._entries: dict[tuple[str, TaskGroup, bool], Capability] = {
            (name, entry.group, entry.thinking): entry
            for name, entries in capability.entries.items()
            for entry in entries
        }

    def capability(self, model: Model, group: TaskGroup, *, thinking: bool) -> Capability:
        """The index of ``model`` in ``group`` with its interval.

        A model or a mode without an entry gets what its size, age and mode let expect, marked ``inferred``.
        """
        entry = self._entries.get((model.name, group, thinking))
        return entry or self._inferred(model, group, thinking=thinking)

    def modes(self, model: Model) -> tuple[bool, ...]:
        """The modes ``model`` has: without thinking (False), with (True), the quicker one first."""
        modes: dict[Thinking, tuple[bool, ...]] = {"none": (False,), "hybrid": (False, True), "always": (True,)}
        return modes[model.thinking]

    def overlap_margin(self, group: TaskGroup) -> float:
        """Points by which two indices must differ to be told apart: the half-width that a difference typically has."""
        return self._profile.groups[group].overlap_margin

    def retention(self, quantization: Quantization, model: Model) -> Retention:
        """The share of an index of ``model`` that survives ``quantization``.

        The divergence is ``exp(log_kld + per_decade × decades above 8 B)`` of the recipe, or of its bits per weight
        where nobody published the recipe; ``exp(−(scale × divergence)^power)`` survives. A mixture of experts counts
        as total^(2/3) × active^(1/3).
        """
        profile = self._retention
        curve = profile.types.get(quantization.name.upper())
        if curve is None:
            log_kld, deviation = _interpolate(profile.bits, quantization.bits_per_weight), profile.bits_deviation
        else:
            log_kld, deviation = curve.log_kld, curve.deviation
        decades = model_features(float(model.parameters), float(model.parameters_active))["size"] - math.log10(0.8)
        centre = log_kld + profile.per_decade * decades
        spread = _QUANTILE_90 * math.hypot(deviation, profile.per_decade_deviation * decades)
        steepness, falling = profile.agreement
        near = curve is not None and any(0.5 <= model.parameters / size <= 2 for size in curve.measured)
        return Retention(
            share=self._share(centre),
            low=self._share(centre + spread),
            high=self._share(centre - spread),
            kld=math.exp(centre),
            agreement=math.exp(-((steepness * math.exp(centre)) ** falling)),
            origin="measured" if near else "interpolated",
        )

    def _share(self, log_kld: float) -> float:
        scale, power = self._retention.loss
        return math.exp(-((scale * math.exp(log_kld)) ** power))

    def _inferred(self, model: Model, group: TaskGroup, *, thinking: bool) -> Capability:
        profile = self._profile.groups[group]
        age, age_deviation = self._age(model)
        features = model_features(
            float(model.parameters),
            float(model.parameters_active),
            age,
            float(thinking),
            coder=is_coder(model.family, model.name),
        )
        vector = [features[name] for name in self._profile.features]
        ability = _dot(profile.coefficients, vector)
        variance = profile.unexplained + _dot(vector, [_dot(row, vector) for row in profile.covariance])
        yearly = profile.coefficients[self._profile.features.index("age")]
        deviation = _QUANTILE_90 * math.sqrt(variance + (yearly * age_deviation) ** 2)
        return Capability(
            group=group,
            thinking=thinking,
            index=profile.index(ability),
            low=profile.index(ability - deviation),
            high=profile.index(ability + deviation),
            origin="inferred",
        )

    def _age(self, model: Model) -> tuple[float, float]:
        """Years since 2025 and their standard deviation."""
        age, profile = years_since_2025(model.released), self._profile.age
        if age is not None:
            return age, 0.0
        if model.generation > 0:
            return profile.at_generation_zero + profile.per_generation * model.generation, profile.deviation
        return profile.mean, profile.mean_deviation


def load_quality(profiles: Path | None = None) -> Quality:
    """Capability and retention as shipped in ``profiles`` (default: the planner's own).

    Raises BadInputError naming the file and the place in it, MissingInputError when a file is not there.
    """
    folder = (profiles or profiles_dir()) / "quality"
    return Quality(
        _read(folder / "capability.json", CapabilityProfile), _read(folder / "retention.json", RetentionProfile)
    )


def model_features(
    parameters: float, active: float, years: float = 0.0, thinking: float = 0.0, *, coder: bool = False
) -> Mapping[str, float]:
    """What an inferred ability is a linear function of; all zero but ``level`` for a dense 10 B model of January 2025.

    ``size`` counts a mixture of experts as total^(2/3) × active^(1/3), in powers of ten; ``years`` since 2025.
    """
    total, passed = math.log10(parameters), math.log10(active)
    size = (2 * total + passed) / 3 - 10
    return {
        "level": 1.0,
        "size": size,
        "size_squared": size * size,
        "sparsity": total - passed,
        "age": years,
        "size_age": size * years,
        "thinking": thinking,
        "thinking_size": thinking * size,
        "thinking_age": thinking * years,
        "coder": float(coder),
    }


def years_since_2025(released: str | None) -> float | None:
    """Years between the start of 2025 and a date that may lack day or month; ``None`` for none."""
    if not released:
        return None
    parts = [int(part) for part in released.split("-")]
    year, month, day = (*parts, 15)[:3] if len(parts) > 1 else (parts[0], 7, 1)
    return year - 2025 + (month - 1) / 12 + (day - 1) / 365


def is_coder(family: str, name: str) -> bool:
    """Whether a model was made for code, by what its makers call it."""
    return any(word in f"{family} {name}".lower() for word in ("coder", "-code", "codestral", "devstral"))


def _interpolate(points: Sequence[tuple[float, float]], at: float) -> float:
    """Piecewise linear through ``points`` (ascending), going on straight beyond both ends."""
    right = next((index for index, point in enumerate(points) if point[0] >= at), len(points) - 1)
    (x0, y0), (x1, y1) = points[max(right, 1) - 1], points[max(right, 1)]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def _read(path: Path, kind: type[Struct]) -> Struct:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path} is missing", hint="reinstall planner, its profiles are incomplete") from error
    except OSError as error:
        raise bad_profile(path, "", error.strerror or str(error)) from error
    except msgspec.DecodeError as error:
        raise bad_profile(path, "", str(error)) from error
