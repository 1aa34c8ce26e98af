"""What quantization takes: divergence by recipe and model size, and the share of a score that survives a divergence.

One joint fit by least squares (Gauss-Newton, numpy only). Unknown are the logarithm of the divergence of each recipe on
a dense model of 8 B, its change per factor of ten in size, a deviation of each family and model, and the law
``share = exp(-(scale × divergence)^power)``. Published divergences see the first three; published benchmark scores
(what is above guessing, relative to the unquantized model) see all of them, so a 70 B model at two bits, whose
divergence nobody published, teaches the curve as well. Answers that are written out lose more than single letters do:
they have a scale of their own, which two kinds of test on the same files tell.
"""

import json
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from quality_data import DATA

from planner import catalogue

__all__ = ["Point", "RetentionFit", "decades_of", "fit_retention", "retention_profile"]

Array = NDArray[np.float64]


class Reference(NamedTuple):
    """A model that losses were published for."""

    family: str
    parameters: float
    active: float


MODELS = {
    "Llama-2-7B": Reference("Llama-2", 6.74e9, 6.74e9),
    "Llama-3-8B": Reference("Llama-3", 8.03e9, 8.03e9),
    "Llama-3-70B": Reference("Llama-3", 70.6e9, 70.6e9),
    "Llama-4-Scout-17B-16E": Reference("Llama-4", 107.8e9, 17e9),
    "Mistral-7B-v0.1": Reference("Mistral", 7.24e9, 7.24e9),
    "Gemma-3-27B": Reference("Gemma-3", 27.0e9, 27.0e9),
    "Qwen3-14B": Reference("Qwen3", 14.77e9, 14.77e9),
    "Qwen3-30B-A3B": Reference("Qwen3", 30.53e9, 3.04e9),
    "Qwen3-4B-Instruct-2507": Reference("Qwen3", 4.02e9, 4.02e9),
    "Qwen3-30B-A3B-Instruct-2507": Reference("Qwen3", 30.53e9, 3.04e9),
    "Qwen3.5-9B": Reference("Qwen3.5", 8.95e9, 8.95e9),
    "Qwen3.5-27B": Reference("Qwen3.5", 26.9e9, 26.9e9),
    "Hunyuan-0.5B": Reference("Hunyuan", 0.54e9, 0.54e9),
    "Hunyuan-1.8B": Reference("Hunyuan", 1.79e9, 1.79e9),
    "Hunyuan-4B": Reference("Hunyuan", 4.0e9, 4.0e9),
    "Hunyuan-7B": Reference("Hunyuan", 7.5e9, 7.5e9),
}

_TESTS = {
    # metric: what guessing scores in percent, number of questions, whether the answer is written out
    "mmlu_percent": (25.0, 14042, False),
    "mmlu_percent_50_per_category": (25.0, 2850, False),
    "mmlu_pro_percent": (10.0, 12032, True),
    "gsm8k_percent": (0.0, 1319, True),
    "drop_percent": (0.0, 9536, True),
    "gpqa_diamond_percent": (25.0, 198, True),
}
_UNQUANTIZED = ("bf16", "f16", "fp16")
_OTHER_BITS = {
    # formats that are no GGUF: bits per weight with their scales
    "mlx q8": 8.5,
    "mlx q6": 6.5,
    "mlx q5": 5.5,
    "mlx q5 g32": 6.0,
    "mlx q4": 4.5,
    "mlx q4 g32": 5.0,
    "INT4-GPTQ": 4.25,
    "INT4-AWQ": 4.25,
    "AQLM 2 bits, first": 2.3,
    "AQLM 2 bits, second": 2.3,
    # mixtures of publishers: as their main type
    "IQ4_K mix": 4.9,
    "IQ4_KS": 4.5,
    "smol-IQ4_KS": 4.4,
    "UD-Q4_K_XL": 4.9,
}
_UNTOUCHED = -12.0
"""The logarithm of a divergence that is rounding and nothing else: 16 bits and more."""

# Standard deviations of prior and noise, natural logarithms of a divergence.
_RECIPE_SD = 0.4  # a recipe around the line through its bits
_FAMILY_SD = 0.4  # a family around the line through its size: Llama 2 loses a third of what Llama 3 loses
_MODEL_SD = 0.25
_PUBLISHER_SD = 0.4  # one label, several recipes and corpora: 4x between extremes for Qwen3.5-9B Q4_K_M
_SERIES_SD = 0.1  # inside one series on one corpus
_SCORE_SD = 0.004  # of a share, beside the sampling of questions: prompts, templates

_LEVEL, _BIT, _DECADE, _SCALE, _POWER, _WRITTEN, _FIRST = range(7)
_PRIOR = ((-1.0, 2.0), (-1.3, 0.5), (-1.0, 0.7), (0.0, 1.0), (0.1, 0.2), (0.3, 0.5))
"""Mean and standard deviation: level at 3 bits, per bit, per decade, log scale, log power, log of what writing adds."""


class Point(NamedTuple):
    """One published loss: a divergence (its logarithm) or a share of the score above guessing."""

    recipe: str
    model: str
    value: float
    deviation: float
    is_share: bool
    written: bool = False


class RetentionFit(NamedTuple):
    """Estimates and their covariance: six numbers as in ``_PRIOR``, then recipes, families and models."""

    points: list[Point]
    recipes: list[str]
    mean: Array
    covariance: Array
    agreement: tuple[float, float]


def read_points() -> tuple[list[Point], list[tuple[float, float]]]:
    """Divergences and shares, and pairs of divergence and top-1 agreement of the same run."""
    rows = [json.loads(line) for line in (DATA / "quant_loss.jsonl").read_text(encoding="utf-8").splitlines()]
    points = [_kld_point(row) for row in rows if row["metric"] == "mean_kld" and row["quant"] != "F16"]
    for metric in _TESTS:
        for source in sorted({row["source"] for row in rows}):
            points += _share_points([row for row in rows if row["metric"] == metric and row["source"] == source])
    runs: dict[tuple[object, ...], dict[str, float]] = {}
    for row in rows:
        if row["metric"] in {"mean_kld", "top1_agreement_percent"}:
            run = (row["model"], row["quant"], row.get("imatrix"), row.get("corpus"))
            runs.setdefault(run, {})[row["metric"]] = row["value"]
    pairs = [(run["mean_kld"], run["top1_agreement_percent"] / 100) for run in runs.values() if len(run) == 2]
    return points, pairs


def fit_retention() -> RetentionFit:
    """The joint fit."""
    points, pairs = read_points()
    recipes = sorted({point.recipe for point in points})
    families = sorted({MODELS[point.model].family for point in points})
    models = sorted({point.model for point in points})
    after, last = _FIRST + len(recipes), _FIRST + len(recipes) + len(families)
    spreads = [_RECIPE_SD] * len(recipes) + [_FAMILY_SD] * len(families) + [_MODEL_SD] * len(models)
    start = np.array([mean for mean, _ in _PRIOR] + [0.0] * len(spreads))
    precision = np.diag(1 / np.array([sd for _, sd in _PRIOR] + spreads) ** 2)
    linear = np.zeros((len(points), len(start)))
    for row, point in enumerate(points):
        reference = MODELS[point.model]
        linear[row, _LEVEL], linear[row, _BIT] = 1, _over(_bits(point.recipe))
        linear[row, _DECADE] = decades_of(reference.parameters, reference.active)
        linear[row, _FIRST + recipes.index(point.recipe)] = 1
        linear[row, after + families.index(reference.family)] = 1
        linear[row, last + models.index(point.model)] = 1
    shares = np.array([point.is_share for point in points])
    inner = linear.copy()
    inner[:, _SCALE], inner[:, _WRITTEN] = 1, [float(point.written) for point in points]
    values = np.array([point.value for point in points])
    weight = np.array([1 / point.deviation for point in points])
    mean, covariance = start.copy(), np.eye(len(start))
    for _ in range(80):
        power = math.exp(mean[_POWER])
        exponent = np.clip(power * (inner @ mean), -40, 4)
        share = np.exp(-np.exp(exponent))
        steepness = -share * np.exp(exponent)
        bent = power * inner
        bent[:, _POWER] += exponent
        jacobian = np.where(shares[:, None], steepness[:, None] * bent, linear)
        residual = values - np.where(shares, share, linear @ mean)
        # Student-t weights: one odd run moves little.
        robust = weight * np.sqrt(5 / (4 + (residual * weight) ** 2))
        scaled = jacobian * robust[:, None]
        covariance = np.linalg.inv(scaled.T @ scaled + precision)
        change = covariance @ (scaled.T @ (residual * robust) - precision @ (mean - start))
        mean = mean + np.clip(change, -0.3, 0.3)
        if float(np.max(np.abs(change))) < 1e-6:
            break
    slope, level = np.polyfit(*np.log([(kld, -math.log(share)) for kld, share in pairs]).T, 1)
    return RetentionFit(points, recipes, mean, covariance, (math.exp(level / slope), float(slope)))


def decades_of(total: float, active: float) -> float:
    """Powers of ten above a dense 8 B model; a mixture counts as total^(2/3) × active^(1/3)."""
    return (2 * math.log10(total) + math.log10(active)) / 3 - math.log10(8e9)


def retention_profile(fitted: RetentionFit) -> dict[str, Any]:
    """What the planner reads: every recipe of the catalogue, the line through their bits, size, share, agreement."""
    mean, written = fitted.mean, fitted.mean[_SCALE] + fitted.mean[_WRITTEN]
    return {
        "types": _monotone({name: _type(fitted, name) for name in catalogue.load().quantizations}),
        "bits": [[bits, round(_at_bits(fitted, bits), 4)] for bits in (1.0, 9.0, 16.0)],
        "bits_deviation": round(_deviation(fitted, _vector(fitted, None, 4.0), _RECIPE_SD), 4),
        "per_decade": round(float(mean[_DECADE]), 4),
        "per_decade_deviation": round(math.sqrt(fitted.covariance[_DECADE, _DECADE]), 4),
        "agreement": [round(number, 4) for number in fitted.agreement],
        "loss": [round(math.exp(written), 4), round(math.exp(mean[_POWER]), 4)],
        "loss_of_letters": [round(math.exp(mean[_SCALE]), 4), round(math.exp(mean[_POWER]), 4)],
    }


def recipe_of(row: dict[str, Any]) -> str:
    """The recipe without its publisher; K-quants of less than 5 bits without an importance matrix are another."""
    name = str(row["quant"]).split(" (")[0]
    plain = row["model"] in {"Llama-3-8B", "Llama-2-7B"} and row.get("imatrix") is None
    return f"{name} plain" if plain and name[:2] in {"Q2", "Q3", "Q4"} and "_K" in name else name


def _model_of(row: dict[str, Any]) -> str:
    name = str(row["model"])
    return name if name in MODELS else name.removesuffix("-Instruct")


def _kld_point(row: dict[str, Any]) -> Point:
    spread = _SERIES_SD if row["model"] == "Llama-3-8B" else _PUBLISHER_SD
    return Point(recipe_of(row), _model_of(row), math.log(row["value"]), spread, is_share=False)


def _share_points(rows: list[dict[str, Any]]) -> list[Point]:
    """Shares of one test of one source, model by model."""
    points = []
    for model in sorted({row["model"] for row in rows}):
        mine = [row for row in rows if row["model"] == model]
        floor, questions, written = _TESTS[mine[0]["metric"]]
        # Nobody tested the 70 B unquantized: its best score, at five bits, stands for it (0.3 points below in the 8 B).
        full = next((row["value"] for row in mine if row["quant"].lower() in _UNQUANTIZED), None)
        full = max(row["value"] for row in mine) if full is None else full
        for row in mine:
            if row["quant"].lower() in _UNQUANTIZED or row["value"] == full or row["quant"] == "FP8":
                continue
            # The same questions are asked twice, so most of their sampling cancels.
            sampling = 0.5 * 100 * math.sqrt(0.25 / questions) / (full - floor)
            share, spread = (row["value"] - floor) / (full - floor), math.hypot(sampling, _SCORE_SD)
            points.append(Point(recipe_of(row), _model_of(row), share, spread, is_share=True, written=written))
    return points


def _type(fitted: RetentionFit, name: str) -> dict[str, Any]:
    bits = catalogue.load().quantizations[name].bits_per_weight
    known = name in fitted.recipes
    own = float(fitted.mean[_FIRST + fitted.recipes.index(name)]) if known else 0.0
    untouched = bits >= 16
    return {
        "bits_per_weight": bits,
        "log_kld": _UNTOUCHED if untouched else round(_at_bits(fitted, bits) + own, 4),
        "deviation": round(_deviation(fitted, _vector(fitted, name, bits), 0.0 if known else _RECIPE_SD), 4),
        "measured": sorted({MODELS[point.model].parameters for point in fitted.points if point.recipe == name}),
    }


def _vector(fitted: RetentionFit, name: str | None, bits: float) -> Array:
    """What maps the estimates to the logarithm of scale × divergence on a dense model of 8 B."""
    vector = np.zeros(len(fitted.mean))
    vector[[_LEVEL, _SCALE, _WRITTEN]], vector[_BIT] = 1, _over(bits)
    if name in fitted.recipes:
        vector[_FIRST + fitted.recipes.index(name)] = 1
    return vector


def _deviation(fitted: RetentionFit, vector: Array, more: float) -> float:
    """The spread of another publisher's file of another family's model around a curve."""
    return math.sqrt(vector @ fitted.covariance @ vector + _FAMILY_SD**2 + _MODEL_SD**2 + _PUBLISHER_SD**2 + more**2)


def _at_bits(fitted: RetentionFit, bits: float) -> float:
    return _UNTOUCHED if bits >= 16 else float(fitted.mean[_LEVEL] + fitted.mean[_BIT] * _over(bits))


def _over(bits: float) -> float:
    return min(bits, 9.0) - 3.0


def _bits(recipe: str) -> float:
    name = recipe.removesuffix(" plain")
    return _OTHER_BITS.get(name) or catalogue.load().quantizations[name].bits_per_weight


def kind_of(name: str) -> str:
    """The kind of a recipe; those of 16 bits and MXFP4 have none."""
    if name.startswith("IQ"):
        return "IQ"
    if "_K" in name:
        return "K"
    return "legacy" if name.endswith(("_0", "_1")) else ""


def _monotone(types: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """``types`` with divergences that fall with the bits inside each kind: neighbours that do not share their mean."""
    for kind in sorted({kind_of(name) for name in types} - {""}):
        names = sorted(
            (name for name in types if kind_of(name) == kind), key=lambda name: types[name]["bits_per_weight"]
        )
        blocks: list[list[str]] = []
        for name in names:
            blocks.append([name])
            while len(blocks) > 1 and _mean(types, blocks[-1]) >= _mean(types, blocks[-2]):
                blocks[-2:] = [blocks[-2] + blocks[-1]]
        for block in blocks:
            value = _mean(types, block)
            # A hair apart, so that order stays strict.
            for position, name in enumerate(block):
                types[name]["log_kld"] = round(value - 0.001 * (position - (len(block) - 1) / 2), 4)
    return types


def _mean(types: dict[str, dict[str, Any]], names: list[str]) -> float:
    return sum(float(types[name]["log_kld"]) for name in names) / len(names)
