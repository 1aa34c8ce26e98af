"""The catalogue as text: one line for each model, grouped by family."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from planner import units
from planner.render.layout import blocks
from planner.render.style import PLAIN, Style
from planner.render.text import finish, tokens
from planner.types.model import Model

__all__ = ["models_text"]

_HEADER = ("model", "parameters", "active", "context", "licence", "released", "thinks")


def models_text(models: Sequence[Model], style: Style = PLAIN) -> str:
    """All models in the order given; a family's name stands above its models."""
    if not models:
        return "No model of that family is in the catalogue.\n"
    lines: list[str] = []
    # One table decides the widths, so that the columns stand below each other through all families.
    header, *table = blocks(_HEADER, [_row(model) for model in models], right=(1, 2, 3))
    lines += [style.faint(line) for line in header]
    rows: Iterable[tuple[Model, list[str]]] = zip(models, table, strict=True)
    for family, members in groupby(rows, key=lambda pair: pair[0].family):
        lines.append(style.heading(family))
        lines.extend(line for _, block in members for line in block)
    lines += ["", "The first column is the name that every command takes; try: planner estimate " + models[0].id]
    return finish(lines)


def _row(model: Model) -> tuple[str, ...]:
    dense = model.parameters == model.parameters_active
    license_words = model.license.id if model.license.commercial is not False else f"{model.license.id} (no sale)"
    return (
        model.id,
        units.count(model.parameters),
        "all" if dense else units.count(model.parameters_active),
        tokens(model.context_extended or model.context_native),
        _shorten(license_words),
        model.released or "unknown",
        {"none": "no", "hybrid": "can", "always": "always"}[model.thinking],
    )


def _shorten(text: str, width: int = 16) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
