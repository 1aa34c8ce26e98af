"""Abilities behind scores: a hierarchical item-response model, fitted by expectation-maximisation.

A score's logit is ``difficulty + slope × ability + what a model has with one benchmark + noise``. Difficulties and
slopes of one benchmark's settings are drawn together; an ability is a linear function of size, age and mode plus
deviations of the vendor, the family, the model and the entry, each with a part that all groups share and a part of
the group. Given slopes and variances everything else is jointly Gaussian and solved exactly; slopes, variances and
Student-t weights are updated in turns. Nothing is random, so two runs agree to rounding.

Model: two-parameter item response on aggregate scores (Birnbaum 1968); variance components by the minorise-maximise
update of Zhou, Hu, Qiao and Lange (2019).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from quality_data import GROUPS, Attributes, Entry, Item, Row
from quality_design import FEATURES, LEVELS, Array, Cell, Design, coefficients, make_design, masks

__all__ = ["Fit", "Prediction", "fit", "predict", "predict_rows"]


ITERATIONS = 40

_START = {"vendor": (0.05, 0.01), "family": (0.1, 0.03), "model": (0.05, 0.03), "entry": (0.05, 0.03)}
"""First variances of each level's shared part and group part, in squared logits; the data move them."""

_SLOPE_SD, _SLOPE_SETTING_SD = 0.35, 0.1
_LEVEL_SD, _SETTING_START = 2.5, 0.15
_NOISE_START, _WITH_BENCHMARK_START = 0.04, 0.08
_STUDENT = 4.0


class Fit(NamedTuple):
    """The posterior: ``mean`` and ``covariance`` of coefficients, deviations and difficulties, and what was estimated.

    ``columns`` of the vector: coefficients (feature-major, then group), one deviation for each of ``cells``, one level
    for each of ``keys``, one offset for each of ``items``.
    """

    rows: list[Row]
    attributes: Mapping[str, Attributes]
    cells: list[Cell]
    keys: list[str]
    items: list[Item]
    mean: Array
    covariance: Array
    kernel_inverse: Array
    variances: dict[tuple[str, bool], float]
    slopes: Array
    slopes_of_keys: dict[str, float]
    noise: dict[str, float]
    with_benchmark: float
    setting: float
    testlets: dict[tuple[Entry, str], tuple[float, float]]


class Prediction(NamedTuple):
    """Abilities of some cells: their means and joint covariance."""

    mean: Array
    covariance: Array
    design: Array


class _State(NamedTuple):
    """What is not Gaussian and therefore updated in turns."""

    variances: dict[tuple[str, bool], float]
    slopes: Array  # of each item
    slopes_of_keys: Array
    noise: Array  # of each key
    with_benchmark: float
    setting: float
    weights: Array  # of each row


class _Solved(NamedTuple):
    """The Gaussian part given a state, and what the update needs of it; first letters as in :func:`_solve`."""

    mean: Array
    covariance: Array
    kernel_inverse: Array
    base: Array  # variance of each row before its weight
    pull: Array  # testlets × levels: how difficulties move a testlet's own deviation
    alpha: Array  # testlets: how its ability moves it
    shrink: Array  # testlets: variance of the deviation given the rest
    own: Array  # testlets: the deviation


def fit(rows: Sequence[Row], attributes: Mapping[str, Attributes], iterations: int = ITERATIONS) -> Fit:
    """The posterior of everything given ``rows``."""
    design = make_design(rows, attributes)
    state = _State(
        variances={(level, own): _START[level][own] for level in LEVELS for own in (False, True)},
        slopes=np.ones(len(design.items)),
        slopes_of_keys=np.ones(len(design.keys)),
        noise=np.full(len(design.keys), _NOISE_START),
        with_benchmark=_WITH_BENCHMARK_START,
        setting=_SETTING_START,
        weights=np.ones(len(rows)),
    )
    for _ in range(iterations):
        state = _update(design, state, _solve(design, state))
    solved = _solve(design, state)
    return Fit(
        rows=list(rows),
        attributes=attributes,
        cells=design.cells,
        keys=design.keys,
        items=design.items,
        mean=solved.mean,
        covariance=solved.covariance,
        kernel_inverse=solved.kernel_inverse,
        variances=state.variances,
        slopes=state.slopes,
        slopes_of_keys=dict(zip(design.keys, state.slopes_of_keys.tolist(), strict=True)),
        noise=dict(zip(design.keys, state.noise.tolist(), strict=True)),
        with_benchmark=state.with_benchmark,
        setting=state.setting,
        testlets={
            name: (float(own), float(spread))
            for name, own, spread in zip(design.testlets, solved.own, solved.shrink, strict=True)
        },
    )


def _solve(design: Design, state: _State) -> _Solved:
    """Mean and covariance of coefficients, deviations and difficulties.

    A row is ``y = a × ability of its testlet + levels · difficulties + the testlet's own deviation + noise``, the noise
    of variance ``v``; the deviation is integrated out (Sherman and Morrison), so that many languages of one benchmark,
    or many lengths of one test, do not count as many independent witnesses.
    """
    kernel = sum(state.variances[part] * mask for part, mask in design.masks.items())
    kernel_inverse = np.linalg.inv(kernel + 1e-9 * np.eye(len(design.cells)))
    base = state.noise[design.key] + design.slack
    v, a, y = base / state.weights, state.slopes[design.item], design.y
    per_testlet = functools.partial(np.bincount, design.testlet, minlength=len(design.testlets))
    shrink = 1 / (1 / state.with_benchmark + per_testlet(1 / v))
    slope_sum, y_sum = per_testlet(a / v), per_testlet(y / v)
    level_sum = _sums(design, design.levels / v[:, None])
    cross = _sums(design, design.levels * (a / v)[:, None]) - (shrink * slope_sum)[:, None] * level_sum
    square = per_testlet(a * a / v) - shrink * slope_sum**2
    n_coefficients, n_ability = len(design.prior_mean), design.ability.shape[1]
    precision = np.zeros((n_ability + design.levels.shape[1],) * 2)
    precision[:n_ability, :n_ability] = (design.ability * square[:, None]).T @ design.ability
    precision[:n_ability, n_ability:] = design.ability.T @ cross
    precision[n_ability:, :n_ability] = precision[:n_ability, n_ability:].T
    precision[n_ability:, n_ability:] = (design.levels / v[:, None]).T @ design.levels
    precision[n_ability:, n_ability:] -= (level_sum * shrink[:, None]).T @ level_sum
    precision[:n_coefficients, :n_coefficients] += design.prior_precision
    precision[n_coefficients:n_ability, n_coefficients:n_ability] += kernel_inverse
    tail = np.arange(n_ability, len(precision))
    precision[tail, tail] += [1 / _LEVEL_SD**2] * len(design.keys) + [1 / state.setting] * len(design.items)
    right = np.zeros(len(precision))
    right[:n_ability] = design.ability.T @ (per_testlet(a * y / v) - shrink * slope_sum * y_sum)
    right[n_ability:] = design.levels.T @ (y / v) - level_sum.T @ (shrink * y_sum)
    right[:n_coefficients] += design.prior_precision @ design.prior_mean
    covariance = np.linalg.inv(precision)
    mean = covariance @ right
    pull, alpha = shrink[:, None] * level_sum, shrink * slope_sum
    own = shrink * y_sum - alpha * (design.ability @ mean[:n_ability]) - pull @ mean[n_ability:]
    return _Solved(mean, covariance, kernel_inverse, base, pull, alpha, shrink, own)


def _update(design: Design, state: _State, solved: _Solved) -> _State:
    """The state that explains the expected second moments best."""
    mean, covariance, own, shrink = solved.mean, solved.covariance, solved.own, solved.shrink
    n_coefficients, n_ability, n_keys = len(design.prior_mean), design.ability.shape[1], len(design.keys)
    a, at = state.slopes[design.item], design.testlet
    levels_covariance = covariance[n_ability:, n_ability:]
    half = design.ability @ covariance[:n_ability]
    var_ability = _rowwise(half[:, :n_ability], design.ability)
    # A row without its ability: difficulty less what the testlet's own deviation takes up.
    delta = design.levels - solved.pull[at]
    half_delta = _rowwise(half[at, n_ability:], delta)
    cov_rest = half_delta - (solved.alpha * var_ability)[at]
    var_rest = _rowwise(delta @ levels_covariance, delta) - 2 * solved.alpha[at] * half_delta
    var_rest += (solved.alpha**2 * var_ability)[at]
    ability, level = (design.ability @ mean[:n_ability])[at], design.levels @ mean[n_ability:]
    rest = design.y - own[at] - level
    squared = (rest - a * ability) ** 2 + a**2 * var_ability[at] + 2 * a * cov_rest + var_rest + shrink[at]
    weights = (_STUDENT + 1) / (_STUDENT + squared / solved.base)
    var_own = shrink + solved.alpha**2 * var_ability + _rowwise(solved.pull @ levels_covariance, solved.pull)
    var_own += 2 * solved.alpha * _rowwise(half[:, n_ability:], solved.pull)
    offsets = mean[n_ability + n_keys :] ** 2 + np.diag(levels_covariance)[n_keys:]
    v = solved.base / state.weights
    top = np.bincount(design.item, (ability * rest - cov_rest) / v, len(design.items))
    bottom = np.bincount(design.item, (ability**2 + var_ability[at]) / v, len(design.items))
    of_setting, of_key = 1 / _SLOPE_SETTING_SD**2, 1 / _SLOPE_SD**2
    slopes = (top + state.slopes_of_keys[design.key_of_item] * of_setting) / (bottom + of_setting)
    slopes = np.maximum(slopes, 0.1)
    number = np.bincount(design.key_of_item, minlength=n_keys)
    slopes_of_keys = np.bincount(design.key_of_item, slopes) * of_setting + of_key
    deviations = mean[n_coefficients:n_ability]
    second = np.outer(deviations, deviations) + covariance[n_coefficients:n_ability, n_coefficients:n_ability]
    sandwich = solved.kernel_inverse @ second @ solved.kernel_inverse
    return _State(
        variances={
            part: _component(
                state.variances[part],
                float(np.sum(sandwich * mask)),
                float(np.sum(solved.kernel_inverse * mask)),
                _START[part[0]][part[1]],
            )
            for part, mask in design.masks.items()
        },
        slopes=slopes,
        slopes_of_keys=slopes_of_keys / (number * of_setting + of_key),
        noise=_noise(state.noise, design.key, solved.base, weights * squared),
        with_benchmark=_shrunk(own**2 + var_own, _WITH_BENCHMARK_START, 20),
        setting=_shrunk(offsets, _SETTING_START, 10),
        weights=weights,
    )


def _sums(design: Design, rows: Array) -> Array:
    """``rows`` added up by testlet."""
    return np.asarray(np.add.reduceat(rows[design.order], design.starts))


def _rowwise(left: Array, right: Array) -> Array:
    return np.asarray(np.einsum("ij,ij->i", left, right))


def _shrunk(squares: Array, start: float, strength: int) -> float:
    """A variance from squares and ``strength`` more of size ``start``."""
    return float((np.sum(squares) + strength * start) / (len(squares) + strength))


def predict(fitted: Fit, cells: Sequence[Cell]) -> Prediction:
    """Abilities of ``cells``, scored or not. ``design`` maps the posterior vector to them."""
    cross = _kernel(fitted, cells, fitted.cells)
    between = _kernel(fitted, cells, cells)
    lever = cross @ fitted.kernel_inverse
    design = np.zeros((len(cells), len(fitted.mean)))
    design[:, : len(FEATURES) * len(GROUPS)] = coefficients(cells, fitted.attributes)
    start = len(FEATURES) * len(GROUPS)
    design[:, start : start + len(fitted.cells)] = lever
    unseen = between - lever @ cross.T
    return Prediction(design @ fitted.mean, design @ fitted.covariance @ design.T + unseen, design)


def _kernel(fitted: Fit, left: Sequence[Cell], right: Sequence[Cell]) -> Array:
    shared = masks(left, right, fitted.attributes)
    return np.asarray(sum(fitted.variances[part] * mask for part, mask in shared.items()))


def predict_rows(fitted: Fit, rows: Sequence[Row]) -> tuple[Array, Array]:
    """Mean and standard deviation of the logits of ``rows`` that the fit need not have seen, noise included."""
    cells = list(dict.fromkeys((row.entry, group) for row in rows for group in row.loadings))
    at = {cell: index for index, cell in enumerate(cells)}
    seen = predict(fitted, cells)
    design = np.zeros((len(rows), len(fitted.mean)))
    unseen = np.zeros(len(rows))
    between = seen.covariance - seen.design @ fitted.covariance @ seen.design.T
    noise = np.zeros(len(rows))
    first = len(FEATURES) * len(GROUPS) + len(fitted.cells)
    extra = np.zeros(len(rows))
    for index, row in enumerate(rows):
        slope = slope_of(fitted, row.item)
        loading = np.zeros(len(cells))
        for group, share in row.loadings.items():
            loading[at[row.entry, group]] = slope * share
        design[index] = loading @ seen.design
        unseen[index] = loading @ between @ loading
        if row.item.key in fitted.keys:
            design[index, first + fitted.keys.index(row.item.key)] = 1
        else:
            unseen[index] += _LEVEL_SD**2
        if row.item in fitted.items:
            design[index, first + len(fitted.keys) + fitted.items.index(row.item)] = 1
        else:
            unseen[index] += fitted.setting
        own, spread = fitted.testlets.get((row.entry, row.item.key), (0.0, fitted.with_benchmark))
        extra[index] = own
        noise[index] = spread + (fitted.noise.get(row.item.key, _NOISE_START) + row.slack**2) * _STUDENT / (
            _STUDENT - 2
        )
    variance = np.sum(design @ fitted.covariance * design, axis=1) + unseen + noise
    return design @ fitted.mean + extra, np.sqrt(variance)


def slope_of(fitted: Fit, item: Item) -> float:
    """The slope of an item, of its benchmark when the item is new, 1 when that is new too."""
    if item in fitted.items:
        return float(fitted.slopes[fitted.items.index(item)])
    return fitted.slopes_of_keys.get(item.key, 1.0)


def _component(old: float, pushed: float, held: float, start: float) -> float:
    """The next value of a variance component: minorise-maximise with one pseudo-observation at ``start``."""
    numerator = old * old * pushed + 2 * start
    return float((-2 + np.sqrt(4 + 4 * held * numerator)) / (2 * held)) if held > 0 else start


def _noise(noise: Array, key: NDArray[np.int64], base: Array, squared: Array) -> Array:
    pushed, held = np.bincount(key, squared / base**2), np.bincount(key, 1 / base)
    shared = float(np.sum(noise * held) / np.sum(held))
    strength = 4.0
    numerator = noise**2 * pushed + 2 * strength * shared
    return np.asarray((-2 * strength + np.sqrt(4 * strength**2 + 4 * held * numerator)) / (2 * held))
