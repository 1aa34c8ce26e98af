"""Scores as matrices: which row speaks about which abilities and difficulties, and what is believed before them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from quality_data import GROUPS, Attributes, Entry, Item, Row, features

__all__ = ["FEATURES", "LEVELS", "Array", "Cell", "Design", "coefficients", "make_design", "masks"]

Array = NDArray[np.float64]
Cell = tuple[Entry, str]

LEVELS = ("vendor", "family", "model", "entry")
"""What cells may have in common; each level has a deviation that all groups share and one of the group."""

FEATURES = tuple(features(Attributes("", "", "", 1e10, 1e10, None, "none", coder=False, plannable=False), "direct"))

_PRIORS: dict[str, tuple[float, float, float]] = {
    # mean, standard deviation shared by the groups, standard deviation of a group's own part; logits per unit
    "size": (1.5, 0.5, 0.3),  # per factor of ten
    "size_squared": (0.0, 0.15, 0.1),
    "sparsity": (0.0, 0.15, 0.05),
    "age": (0.7, 0.4, 0.2),  # per year
    "size_age": (0.0, 0.1, 0.05),
    "thinking": (0.5, 0.5, 0.5),
    "thinking_size": (0.0, 0.3, 0.2),
    "thinking_age": (0.0, 0.2, 0.1),
    "base": (0.0, 0.5, 0.5),
    "coder": (0.0, 0.15, 0.4),
}
"""Weak on purpose: two standard deviations reach from no effect at all to twice the usual one."""


class Design(NamedTuple):
    """Rows as matrices: abilities of each testlet (entry and key), difficulties of each row, and what a prior needs."""

    cells: list[Cell]
    keys: list[str]
    items: list[Item]
    testlets: list[tuple[Entry, str]]
    y: Array
    slack: Array  # variance of each row's logit that its own rounding and sampling explain
    ability: Array  # testlets × (coefficients + cells)
    levels: Array  # rows × (keys + items)
    order: NDArray[np.int64]  # rows by testlet
    starts: NDArray[np.int64]  # where in that order each testlet starts
    testlet: NDArray[np.int64]  # of each row, as the next two
    item: NDArray[np.int64]
    key: NDArray[np.int64]
    key_of_item: NDArray[np.int64]
    masks: dict[tuple[str, bool], Array]
    prior_mean: Array
    prior_precision: Array


def make_design(rows: Sequence[Row], attributes: Mapping[str, Attributes]) -> Design:
    """The matrices of ``rows``; everything is sorted, so that the order of rows never matters."""
    cells = sorted({(row.entry, group) for row in rows for group in row.loadings})
    testlets = sorted({(row.entry, row.item.key) for row in rows})
    items = sorted({row.item for row in rows})
    keys = sorted({item.key for item in items})
    loadings = {row.item.key: row.loadings for row in rows}
    deviations = np.zeros((len(testlets), len(cells)))
    at_cell = {cell: index for index, cell in enumerate(cells)}
    for index, (entry, key) in enumerate(testlets):
        for group, share in loadings[key].items():
            deviations[index, at_cell[entry, group]] = share
    at_testlet = {name: index for index, name in enumerate(testlets)}
    at_item = {item: index for index, item in enumerate(items)}
    testlet = np.array([at_testlet[row.entry, row.item.key] for row in rows])
    item = np.array([at_item[row.item] for row in rows])
    key_of_item = np.array([keys.index(item.key) for item in items])
    numbers = np.arange(len(rows))
    levels = np.zeros((len(rows), len(keys) + len(items)))
    levels[numbers, key_of_item[item]] = levels[numbers, len(keys) + item] = 1
    order = np.argsort(testlet, kind="stable")
    prior_mean, prior_precision = _coefficient_prior()
    return Design(
        cells=cells,
        keys=keys,
        items=items,
        testlets=testlets,
        y=np.array([row.logit for row in rows]),
        slack=np.array([row.slack for row in rows]) ** 2,
        ability=np.hstack([deviations @ coefficients(cells, attributes), deviations]),
        levels=levels,
        order=order,
        starts=np.searchsorted(testlet[order], np.arange(len(testlets))),
        testlet=testlet,
        item=item,
        key=key_of_item[item],
        key_of_item=key_of_item,
        masks=masks(cells, cells, attributes),
        prior_mean=prior_mean,
        prior_precision=prior_precision,
    )


def masks(
    left: Sequence[Cell], right: Sequence[Cell], attributes: Mapping[str, Attributes]
) -> dict[tuple[str, bool], Array]:
    """For each level, shared part and group part: 1 where two cells have the same deviation."""
    return {(level, own): _mask(left, right, attributes, level, own) for level in LEVELS for own in (False, True)}


def coefficients(cells: Sequence[Cell], attributes: Mapping[str, Attributes]) -> Array:
    """How the ability of each cell depends on the coefficients (feature by feature, group by group)."""
    matrix = np.zeros((len(cells), len(FEATURES), len(GROUPS)))
    for index, (entry, group) in enumerate(cells):
        matrix[index, :, GROUPS.index(group)] = list(features(attributes[entry.model], entry.mode).values())
    return matrix.reshape(len(cells), -1)


def _coefficient_prior() -> tuple[Array, Array]:
    means, blocks = [], np.zeros((len(FEATURES) * len(GROUPS),) * 2)
    for index, name in enumerate(FEATURES):
        mean, shared, own = _PRIORS[name]
        means += [mean] * len(GROUPS)
        part = slice(index * len(GROUPS), (index + 1) * len(GROUPS))
        blocks[part, part] = shared**2 + own**2 * np.eye(len(GROUPS))
    return np.array(means), np.linalg.inv(blocks)


def _mask(
    left: Sequence[Cell], right: Sequence[Cell], attributes: Mapping[str, Attributes], level: str, own: bool
) -> Array:
    """1 where two cells share a level (and, for its own part, the group)."""
    codes: dict[object, int] = {}

    def code(cells: Sequence[Cell]) -> NDArray[np.int64]:
        return np.array([codes.setdefault(_name(cell, attributes, level, own), len(codes)) for cell in cells])

    return (code(left)[:, None] == code(right)[None, :]).astype(np.float64)


def _name(cell: Cell, attributes: Mapping[str, Attributes], level: str, own: bool) -> object:
    entry, group = cell
    known = attributes[entry.model]
    name = {"vendor": known.vendor, "family": (known.vendor, known.family), "model": entry.model, "entry": entry}[level]
    return (name, group) if own else name
