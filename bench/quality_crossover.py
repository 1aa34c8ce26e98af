"""Where fewer bits of a larger model lose against more bits of a smaller one, at equal bytes.

Uses the planner's own answers: the index that a dense model of that size and age lets expect, times what survives.
The mean over chat, code and reasoning, without thinking, of models of the middle of 2025.
"""

import itertools
import statistics
from typing import Any

import msgspec

from planner import catalogue
from planner.catalogue.quality import Quality
from planner.types.model import Model, Quantization
from planner.types.quality import TaskGroup

__all__ = ["crossover", "show_crossover"]

SIZES = (4e9, 8e9, 14e9, 32e9, 70e9, 120e9, 235e9)
SMALLER_AT = "Q4_K_M"
LOW_BITS = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_XS")
GROUPS: tuple[TaskGroup, ...] = ("chat", "code", "reasoning")
PAIRS = (
    ("qwen2.5-72b", "qwen2.5-32b"),
    ("qwen3-32b", "qwen3-14b"),
    ("qwen3-14b", "qwen3-8b"),
    ("qwen3-8b", "qwen3-4b"),
    ("qwen3-235b-a22b", "qwen3-32b"),
)


def crossover(quality: Quality) -> dict[str, Any]:
    """Advantage in points of the larger model, by its size and recipe, and the bits at which it is lost.

    ``even``: no advantage. ``behind``: so many points behind that the indices can be told apart (``margin``, the mean
    of the overlap margins), with ``low`` and ``high`` where both lose little or much for their kind.
    """
    known = catalogue.load()
    margin = round(statistics.fmean(quality.overlap_margin(group) for group in GROUPS), 2)
    return {
        "smaller_at": SMALLER_AT,
        "margin": margin,
        "sizes": {
            f"{size / 1e9:.0f}B": {
                "even": _lost(quality, known, size, "share", 0.0),
                "behind": _lost(quality, known, size, "share", margin),
                "low": _lost(quality, known, size, "high", margin),
                "high": _lost(quality, known, size, "low", margin),
                "advantage": {name: round(_advantage(quality, known, size, name, "share"), 1) for name in LOW_BITS},
            }
            for size in SIZES
        },
        "pairs": {f"{large} against {small}": _pair(quality, known, large, small) for large, small in PAIRS},
    }


def show_crossover(found: dict[str, Any]) -> None:
    """The tables as text."""
    print(f"\npoints that a larger model is ahead of a smaller one at {found['smaller_at']} and equal bytes")
    print(
        f"{'size':>6}"
        + "".join(f"{name:>9}" for name in LOW_BITS)
        + f"   even at, {found['margin']} behind at bits per weight"
    )
    for size, row in found["sizes"].items():
        line = "".join(f"{row['advantage'][name]:9.1f}" for name in LOW_BITS)
        print(f"{size:>6}{line}   {row['even']}, {row['behind']} ({row['low']} to {row['high']})")
    for pair, rows in found["pairs"].items():
        print(f"{pair} at {found['smaller_at']}:")
        print("   " + ", ".join(f"{name} {points:+.1f} at {bytes_:.2f} x" for name, (points, bytes_) in rows.items()))


def _dense(known: catalogue.Catalogue, parameters: float) -> Model:
    model = known.model("qwen3-8b")
    size = round(parameters)
    return msgspec.structs.replace(
        model, name="a dense model", parameters=size, parameters_active=size, released="2025-07-01"
    )


def _index(quality: Quality, model: Model, quantization: Quantization, bound: str) -> float:
    """The mean index that survives."""
    kept = getattr(quality.retention(quantization, model), bound)
    return statistics.fmean(quality.capability(model, group, thinking=False).index for group in GROUPS) * float(kept)


def _advantage(quality: Quality, known: catalogue.Catalogue, size: float, name: str, bound: str) -> float:
    few, more = known.quantizations[name], known.quantizations[SMALLER_AT]
    small = _dense(known, size * few.bits_per_weight / more.bits_per_weight)
    return _index(quality, _dense(known, size), few, bound) - _index(quality, small, more, bound)


def _lost(quality: Quality, known: catalogue.Catalogue, size: float, bound: str, margin: float) -> float | None:
    """Bits per weight at which the larger model falls ``margin`` behind, between neighbouring recipes; or ``None``."""
    points = [
        (known.quantizations[name].bits_per_weight, margin + _advantage(quality, known, size, name, bound))
        for name in LOW_BITS
    ]
    for (bits0, gain0), (bits1, gain1) in itertools.pairwise(points):
        if gain0 < 0 <= gain1:
            return round(bits0 + (bits1 - bits0) * gain0 / (gain0 - gain1), 2)
    return None


def _pair(quality: Quality, known: catalogue.Catalogue, large: str, small: str) -> dict[str, tuple[float, float]]:
    """For two real models: points ahead, and how many times the bytes of the smaller one (nominal bits)."""
    one, other, more = known.model(large), known.model(small), known.quantizations[SMALLER_AT]
    bytes_ = other.parameters * more.bits_per_weight
    return {
        name: (
            round(_index(quality, one, few, "share") - _index(quality, other, more, "share"), 1),
            round(one.parameters * few.bits_per_weight / bytes_, 2),
        )
        for name in LOW_BITS
        for few in (known.quantizations[name],)
    }
