"""How well hidden scores are predicted: four ways of hiding them, two baselines, and what the intervals hold.

The ways get harder: single scores; everything of one benchmark by one entry; all scores of a model in a group; all
scores of a model, so that nothing but its family, size, age and mode is left. The baselines see the same scores:
the mean of the benchmark, a straight line over the logarithm of the size for each benchmark, and the same with a step
for thinking.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from quality_data import GROUPS, Attributes, Row, score_of
from quality_fit import fit, predict_rows

__all__ = ["METHODS", "SPLITS", "errors_of", "fold", "parts", "validate"]

FOLDS = 10
ITERATIONS = 25
"""Enough for a fold: the error changes in the third digit after that."""
QUANTILE_90 = 1.2816

METHODS = ("fit", "mean", "size", "size_and_mode")

SPLITS: dict[str, Callable[[Row], object]] = {
    "a score": lambda row: (row.entry, row.item),
    "a benchmark of an entry": lambda row: (row.entry, row.item.key),
    "a group of a model": lambda row: (row.entry.model, main_group(row)),
    "a model": lambda row: row.entry.model,
}
"""What is hidden together, by name of the split."""


def main_group(row: Row) -> str:
    """The group that a row speaks about most."""
    return max(GROUPS, key=lambda group: row.loadings.get(group, 0.0))


def validate(
    rows: Sequence[Row],
    attributes: Mapping[str, Attributes],
    splits: Sequence[str],
    *,
    folds: int = FOLDS,
    seeds: int = 1,
) -> dict[str, dict[str, Any]]:
    """Errors of each split, over ``folds`` parts of the rows drawn ``seeds`` times."""
    return {
        split: errors_of(
            [fold(rows, attributes, part) for seed in range(seeds) for part in parts(rows, split, folds, seed)]
        )
        for split in splits
    }


def parts(rows: Sequence[Row], split: str, folds: int, seed: int) -> list[NDArray[np.bool_]]:
    """For each fold the rows that it hides; what belongs together is hidden together."""
    names = [SPLITS[split](row) for row in rows]
    units = sorted(set(names), key=repr)
    order = np.random.default_rng(seed).permutation(len(units))
    part = {units[index]: number % folds for number, index in enumerate(order)}
    return [np.array([part[name] == fold for name in names]) for fold in range(folds)]


def fold(
    rows: Sequence[Row],
    attributes: Mapping[str, Attributes],
    hidden: NDArray[np.bool_],
    iterations: int = ITERATIONS,
) -> list[dict[str, Any]]:
    """Each hidden score with what the index and the baselines say; ratings have no percent and are left out."""
    seen = [row for row, hide in zip(rows, hidden, strict=True) if not hide]
    asked = [row for row, hide in zip(rows, hidden, strict=True) if hide and not row.rated]
    mean, deviation = predict_rows(fit(seen, attributes, iterations), asked)
    by_size = _BySize(seen, attributes)
    return [
        {
            "group": main_group(row),
            "score": row.score,
            "fit": score_of(row.item.key, float(centre)),
            "inside": abs(row.logit - centre) <= QUANTILE_90 * spread,
            "width": score_of(row.item.key, float(centre + QUANTILE_90 * spread))
            - score_of(row.item.key, float(centre - QUANTILE_90 * spread)),
            "mean": by_size.mean(row),
            "size": by_size.at(row, modes=False),
            "size_and_mode": by_size.at(row, modes=True),
        }
        for row, centre, spread in zip(asked, mean, deviation, strict=True)
    ]


class _BySize:
    """The baselines: the mean of a benchmark, and a line over the logarithm of total parameters."""

    def __init__(self, rows: Sequence[Row], attributes: Mapping[str, Attributes]) -> None:
        self._attributes = attributes
        self._items: dict[object, list[Row]] = {}
        for row in rows:
            for name in (row.item, row.item.key, None):
                self._items.setdefault(name, []).append(row)

    def mean(self, row: Row) -> float:
        """The mean score of the benchmark in its setting; of all its settings, or of everything, where it is new."""
        return statistics.fmean(other.score for other in self._alike(row, 1) if not other.rated)

    def at(self, row: Row, *, modes: bool) -> float:
        """The score that the size (and the mode) lets expect, from at least four scores of the setting or its key.

        A ridge of one observation a decade away keeps four scores of one size from drawing a cliff.
        """
        alike = self._alike(row, 4)
        known = np.array([self._known(other, modes) for other in alike])
        logits = np.array([other.logit for other in alike])
        centred = known - known.mean(axis=0)
        slopes = np.linalg.solve(centred.T @ centred + np.eye(2), centred.T @ (logits - logits.mean()))
        return score_of(row.item.key, float(logits.mean() + (self._known(row, modes) - known.mean(axis=0)) @ slopes))

    def _alike(self, row: Row, least: int) -> list[Row]:
        for name in (row.item, row.item.key):
            if len(self._items.get(name, [])) >= least:
                return self._items[name]
        return self._items[None]

    def _known(self, row: Row, modes: bool) -> NDArray[np.float64]:
        size = math.log10(self._attributes[row.entry.model].parameters)
        return np.array([size, float(modes and row.entry.mode == "thinking")])


def errors_of(folds: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Errors in points over all folds, by group and overall; coverage of the 80 % interval and its mean width."""
    found = [record for fold in folds for record in fold]
    groups = {group: [record for record in found if record["group"] == group] for group in GROUPS}
    return {"all": _summary(found), **{group: _summary(some) for group, some in groups.items() if some}}


def _summary(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    summary: dict[str, float] = {"scores": len(records)}
    for name in METHODS:
        misses = [record[name] - record["score"] for record in records]
        summary[f"{name}_mae"] = round(statistics.fmean(abs(miss) for miss in misses), 2)
        summary[f"{name}_rmse"] = round(math.sqrt(statistics.fmean(miss * miss for miss in misses)), 2)
    summary["coverage_of_80"] = round(statistics.fmean(record["inside"] for record in records), 3)
    summary["width_of_80"] = round(statistics.fmean(record["width"] for record in records), 1)
    return summary
