"""The catalogue as text: one line for each model, grouped by family."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from planner import units
from planner.render.layout import INDENT, blocks, paragraph
from planner.render.style import PLAIN, Style
from planner.render.text import finish, tokens
from planner.types.model import KnownModel, Model

__all__ = ["models_text"]

_HEADER = ("model", "size", "active", "context", "licence", "sale", "date", "thinks")
_LEGEND = (
    "size: parameters; active: how many of them each token uses; context: the longest, stretched with YaRN where the "
    "model allows it; sale: whether the licence allows commercial use; thinks: whether it reasons before it answers."
)


def models_text(
    models: Sequence[Model],
    known_only: Sequence[KnownModel] = (),
    languages_unknown: Sequence[str] = (),
    *,
    style: Style = PLAIN,
) -> str:
    """All models in the order given, a family's name above its models; then what is known and cannot be planned."""
    lines = _listed(models, style) if models else ["No model of the catalogue is all of that."]
    if known_only:
        lines += ["", style.heading("Known, not plannable")]
        lines += [
            line for model in known_only for line in paragraph(f"{model.id}: {model.reason}.", hanging=INDENT * 2)
        ]
    if languages_unknown:
        names = ", ".join(languages_unknown)
        told = f"Left out, because no source tells enough about the languages of: {names}."
        lines += ["", *paragraph(told, indent="")]
    if models:
        lines += ["", *paragraph(_LEGEND, indent="")]
        lines.append(f"Every command takes these names: planner show {models[0].id}")
    return finish(lines)


def _listed(models: Sequence[Model], style: Style) -> list[str]:
    # One table decides the widths, so that the columns stand below each other through all families.
    header, *table = blocks(_HEADER, [_row(model) for model in models], right=(1, 2, 3))
    lines = [style.faint(line) for line in header]
    rows: Iterable[tuple[Model, list[str]]] = zip(models, table, strict=True)
    for family, members in groupby(rows, key=lambda pair: pair[0].family):
        lines.append(style.heading(family))
        lines.extend(line for _, block in members for line in block)
    return lines


def _row(model: Model) -> tuple[str, ...]:
    dense = model.parameters == model.parameters_active
    return (
        model.id,
        units.count(model.parameters),
        "all" if dense else units.count(model.parameters_active),
        tokens(model.context_extended or model.context_native),
        _shorten(model.license.id.split(" License")[0]),
        {True: "yes", False: "no", None: "?"}[model.license.commercial],
        (model.released or "unknown")[:7],
        {"none": "no", "hybrid": "can", "always": "always"}[model.thinking],
    )


def _shorten(text: str, width: int = 14) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
