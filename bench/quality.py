"""The capability index and the retention curves: fitted from published scores, written into ``profiles/quality``.

Claims held: hidden scores are predicted better than by each benchmark's mean and better than by a fit on size alone, in
every way of hiding them; 80 % intervals hold 70 to 90 % of the hidden scores. Exit code 1 when one does not hold.

    python bench/quality.py              fit and print the order of all models
    python bench/quality.py --validate   hide scores, print and record the errors (bench/results/quality.json)
    python bench/quality.py --write      fit and write profiles/quality (with the recorded errors)
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from quality_crossover import crossover, show_crossover
from quality_data import GROUPS, Attributes, Entry, Item, Mode, Row, floor_of, read_attributes, read_rows
from quality_design import FEATURES, LEVELS
from quality_fit import Fit, fit, predict
from quality_retention import fit_retention, retention_profile
from quality_validate import METHODS, SPLITS, validate

from planner import catalogue
from planner.catalogue.quality import load_quality, years_since_2025
from planner.files import atomic_write, profiles_dir

RESULTS = Path(__file__).with_name("results") / "quality.json"
DATE = "2026-11-22"
"""When the scores were collected."""

QUANTILE_90 = 1.2816
REPEATS = 2
"""How often the scores are divided anew for validation."""

BASKETS: dict[str, tuple[tuple[str, str, str], ...]] = {
    # what it is called, key and setting of the item: the settings of the Qwen3 report wherever it has the benchmark
    "chat": (
        ("MMLU-Redux", "mmlu_redux", "mmlu redux"),
        ("MMLU-Pro", "mmlu_pro", "mmlu pro"),
        ("C-Eval", "ceval", "c eval"),
        ("IFEval (strict prompt)", "ifeval", "ifeval strict prompt"),
        ("Arena-Hard", "arena_hard", "arena hard"),
    ),
    "code": (
        ("LiveCodeBench v5", "livecodebench", "livecodebench v5"),
        ("BFCL v3", "bfcl", "bfcl v3"),
        ("SWE-bench Verified", "swe_bench_verified", "swe bench verified"),
        ("HumanEval", "humaneval", "humaneval"),
    ),
    "reasoning": (
        ("GPQA-Diamond", "gpqa_diamond", "gpqa diamond"),
        ("AIME 2024", "aime24", "aime 24"),
        ("AIME 2025", "aime25", "aime 25"),
        ("MATH-500", "math500", "math 500"),
        ("ZebraLogic", "zebralogic", "zebralogic"),
    ),
    "multilingual": (
        ("MMMLU (14 languages)", "mmmlu", "mmmlu 14 languages"),
        ("INCLUDE (44 languages)", "include", "include 44 languages"),
        ("MLogiQA (10 languages)", "mlogiqa", "mlogiqa 10 languages"),
        ("Multi-IF", "multi_if", "multi if"),
    ),
    "documents": (
        ("RULER 32K", "ruler", "ruler 32k"),
        ("RULER 128K", "ruler", "ruler 128k"),
        ("LongBench v2", "longbench_v2", "longbench v2"),
    ),
}


class Basket:
    """The fixed benchmarks of a group, with their difficulties and slopes out of a fit."""

    def __init__(self, fitted: Fit, group: str) -> None:
        self.names = [name for name, _, _ in BASKETS[group]]
        items = [Item(key, setting) for _, key, setting in BASKETS[group]]
        first = len(FEATURES) * len(GROUPS) + len(fitted.cells)
        self.levels = np.zeros((len(items), len(fitted.mean)))
        for row, item in enumerate(items):
            self.levels[row, first + fitted.keys.index(item.key)] = 1
            self.levels[row, first + len(fitted.keys) + fitted.items.index(item)] = 1
        self.level = self.levels @ fitted.mean
        self.slope = np.array([fitted.slopes[fitted.items.index(item)] for item in items])
        self.floor = np.array([floor_of(item.key) for item in items])

    @property
    def shift(self) -> NDArray[np.float64]:
        """What turns the posterior vector into the place of the basket on the scale of abilities."""
        return np.asarray(self.levels.sum(axis=0) / self.slope.sum())

    def index(self, ability: float) -> float:
        """The expected score on the basket, in percent."""
        return float(np.mean(self.floor + (100 - self.floor) / (1 + np.exp(-self.level - self.slope * ability))))


def capabilities(fitted: Fit, names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Every entry of every named model: groups by modes, as the planner reads them."""
    entries = {name: _modes(fitted.attributes[name]) for name in names}
    counts = _counts(fitted.rows)
    families = {_family(fitted.attributes[row.entry.model]) for row in fitted.rows}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for group in GROUPS:
        basket = Basket(fitted, group)
        cells = [(Entry(name, mode), group) for name, modes in entries.items() for mode in modes]
        seen = predict(fitted, cells)
        # The doubt is that of ability and difficulties together: they are only known relative to each other.
        joint = seen.design + basket.shift
        variance = np.diag(seen.covariance) + np.sum(joint @ fitted.covariance * joint, axis=1)
        variance -= np.sum(seen.design @ fitted.covariance * seen.design, axis=1)
        for (entry, _), ability, spread in zip(cells, seen.mean, np.sqrt(variance), strict=True):
            own = counts.get((entry, group), 0)
            related = any(name == entry.model for name, _ in ((e.model, g) for e, g in counts)) or (
                _family(fitted.attributes[entry.model]) in families
            )
            found[entry.model].append(
                {
                    "group": group,
                    "thinking": entry.mode == "thinking",
                    "index": round(basket.index(ability), 2),
                    "low": round(basket.index(ability - QUANTILE_90 * spread), 2),
                    "high": round(basket.index(ability + QUANTILE_90 * spread), 2),
                    "origin": "measured" if own else "related" if related else "inferred",
                    "scores": own,
                }
            )
    return found


def _modes(attributes: Attributes) -> tuple[Mode, ...]:
    modes: dict[str, tuple[Mode, ...]] = {
        "none": ("direct",),
        "hybrid": ("direct", "thinking"),
        "always": ("thinking",),
    }
    return modes[attributes.thinking]


def _family(attributes: Attributes) -> tuple[str, str]:
    return attributes.vendor, attributes.family


def _counts(rows: list[Row]) -> dict[tuple[Entry, str], int]:
    """Scores by entry and group; a benchmark belongs to a group when at least half of it does."""
    counts: dict[tuple[Entry, str], int] = {}
    for row in rows:
        for group, share in row.loadings.items():
            if share >= 0.5:
                counts[row.entry, group] = counts.get((row.entry, group), 0) + 1
    return counts


def overlap_margin(fitted: Fit, group: str) -> float:
    """Half the 80 % interval of a difference, in points: the median over pairs of measured models of one basket."""
    basket = Basket(fitted, group)
    cells = sorted(cell for cell in _counts(fitted.rows) if cell[1] == group and cell[0].mode in {"direct", "thinking"})
    seen = predict(fitted, cells)
    index = np.array([basket.index(ability) for ability in seen.mean])
    per_logit = np.array([(basket.index(ability + 0.05) - basket.index(ability - 0.05)) / 0.1 for ability in seen.mean])
    variance = np.diag(seen.covariance)
    halves = [
        QUANTILE_90
        * float(np.sqrt(max(0.0, variance[i] + variance[j] - 2 * seen.covariance[i, j])))
        * float(per_logit[i] + per_logit[j])
        / 2
        for i in range(len(cells))
        for j in range(i)
        if abs(index[i] - index[j]) < 10
    ]
    return round(statistics.median(halves), 2)


def group_profile(fitted: Fit, group: str) -> dict[str, Any]:
    """Basket, margin and the coefficients that infer an ability from size, age and mode."""
    basket = Basket(fitted, group)
    names = ["level", *(name for name in FEATURES if name != "base")]
    pick = np.zeros((len(names), len(fitted.mean)))
    for row, name in enumerate(names[1:], start=1):
        pick[row, FEATURES.index(name) * len(GROUPS) + GROUPS.index(group)] = 1
    pick[0] = basket.shift
    coefficients = pick @ fitted.mean
    coefficients[0] = 0.0  # the difficulties of the basket hold it; only its doubt travels along
    return {
        "basket": [
            {"benchmark": name, "floor": float(floor), "level": round(float(level), 5), "slope": round(float(slope), 5)}
            for name, floor, level, slope in zip(basket.names, basket.floor, basket.level, basket.slope, strict=True)
        ],
        "overlap_margin": overlap_margin(fitted, group),
        "coefficients": np.round(coefficients, 5).tolist(),
        "covariance": np.round(pick @ fitted.covariance @ pick.T, 6).tolist(),
        "unexplained": round(sum(fitted.variances[level, own] for level in LEVELS for own in (False, True)), 5),
    }


def age_profile() -> dict[str, float]:
    """Age by generation, by least squares over the catalogue."""
    models = list(catalogue.load().models.values())
    known = [(model.generation, years) for model in models if (years := years_since_2025(model.released)) is not None]
    generations, ages = np.array(known).T
    slope, start = np.polyfit(generations, ages, 1)
    return {
        "per_generation": round(float(slope), 4),
        "at_generation_zero": round(float(start), 4),
        "deviation": round(float(np.std(ages - start - slope * generations)), 4),
        "mean": round(float(np.mean(ages)), 4),
        "mean_deviation": round(float(np.std(ages)), 4),
    }


def capability_profile(fitted: Fit, left_out: Mapping[str, int], held_out: object) -> dict[str, Any]:
    """``profiles/quality/capability.json``."""
    names = sorted(model.name for model in catalogue.load().models.values())
    return {
        "schema": "planner.capability/1",
        "made_by": "python bench/quality.py --write",
        "date": DATE,
        "scores": len(fitted.rows),
        "left_out": dict(sorted(left_out.items())),
        "sources": sorted({row.source for row in fitted.rows}),
        "features": ["level", *(name for name in FEATURES if name != "base")],
        "groups": {group: group_profile(fitted, group) for group in GROUPS},
        "age": age_profile(),
        "held_out": held_out,
        "entries": capabilities(fitted, names),
    }


def write(path: Path, document: Mapping[str, Any]) -> None:
    """``document`` as JSON with one line for each key of each of its tables, so that a change is readable."""
    lines = []
    for key, value in document.items():
        if isinstance(value, dict) and value:
            inner = ",\n".join(
                f"  {json.dumps(name)}: {json.dumps(part, ensure_ascii=False)}" for name, part in value.items()
            )
            lines.append(f"{json.dumps(key)}: {{\n{inner}\n}}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def show(entries: Mapping[str, list[dict[str, Any]]]) -> None:
    """The order of all models, group by group."""
    for group in GROUPS:
        print(f"\n{group}")
        found = [(entry, name) for name, some in entries.items() for entry in some if entry["group"] == group]
        for entry, name in sorted(found, key=lambda pair: -pair[0]["index"]):
            mode = "thinking" if entry["thinking"] else ""
            span = f"{entry['low']:5.1f} to {entry['high']:5.1f}"
            print(f"  {entry['index']:5.1f}  {span}  {name} {mode} ({entry['origin']} {entry['scores'] or ''})")


def show_errors(errors: Mapping[str, Mapping[str, Any]]) -> None:
    """The mean absolute error in points: each way of hiding, then each group."""
    print(
        f"{'hidden':26}{'group':14}{'scores':>7}" + "".join(f"{name:>15}" for name in METHODS) + f"{'inside 80 %':>13}"
    )
    for split, groups in errors.items():
        for group, numbers in groups.items():
            misses = "".join(f"{numbers[f'{name}_mae']:15.2f}" for name in METHODS)
            print(f"{split:26}{group:14}{numbers['scores']:7}{misses}{numbers['coverage_of_80']:13.3f}")


def broken(errors: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The claims that the errors do not bear out."""
    found = []
    for split, groups in errors.items():
        numbers = groups["all"]
        best = min(numbers[f"{name}_mae"] for name in METHODS[1:])
        if numbers["fit_mae"] >= best:
            found.append(f"{split}: {numbers['fit_mae']} is no better than {best}")
        if not 0.7 <= numbers["coverage_of_80"] <= 0.9:
            found.append(f"{split}: intervals of 80 % hold {numbers['coverage_of_80']:.0%}")
    return found


def main() -> int:
    """Fit, and do what was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--validate", action="store_true")
    options = parser.parse_args()
    attributes = read_attributes()
    rows, left_out = read_rows(attributes)
    if options.validate:
        errors = validate(rows, attributes, list(SPLITS), seeds=REPEATS)
        show_errors(errors)
        write(RESULTS, {"schema": "planner.bench.quality/1", "date": DATE, "scores": len(rows), "held_out": errors})
        print(*broken(errors), sep="\n")
        return 1 if broken(errors) else 0
    fitted = fit(rows, attributes)
    held_out = json.loads(RESULTS.read_text(encoding="utf-8"))["held_out"] if RESULTS.exists() else None
    profile = capability_profile(fitted, left_out, held_out)
    show(profile["entries"])
    retention = retention_profile(fit_retention())
    if options.write:
        folder = profiles_dir() / "quality"
        write(folder / "capability.json", profile)
        write(folder / "retention.json", {"schema": "planner.retention/1", "date": DATE, **retention})
        found = crossover(load_quality())
        show_crossover(found)
        write(
            folder / "retention.json", {"schema": "planner.retention/1", "date": DATE, **retention, "crossover": found}
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
