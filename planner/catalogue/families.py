"""Reads one family of models: a table of defaults, then one table per model, as people keep it by hand.

``[defaults]`` holds what the models share; a model's own key wins, its ``shape`` is merged name by name and its
``sources`` are added to the shared ones. Keys that nobody knows are left out of the file and become ``None``.
"""

from collections.abc import Iterator
from pathlib import Path

from planner.catalogue.tables import Table, bad_profile, convert, read_table
from planner.types import Record
from planner.types.model import Model

__all__ = ["read_family"]

_OPTIONAL = (
    "parameters_published",
    "released",
    "context_extended",
    "languages",
    "hf_repo",
    "modelscope_id",
)


class _Family(Record, frozen=True, kw_only=True):
    """A family file before its defaults are spread."""

    family: str
    vendor: str
    defaults: Table = {}
    models: dict[str, Table]


def read_family(path: Path) -> Iterator[Model]:
    """The models of one ``profiles/models/*.toml``. Raises BadInputError naming the file, the model and the key."""
    family = convert(path, "", read_table(path), _Family)
    for name, table in family.models.items():
        place = f"models.{name}"
        if name != name.lower() or "/" in name or ":" in name:
            raise bad_profile(path, place, "an id is lower-case and has neither slash nor colon")
        merged = {
            **dict.fromkeys(_OPTIONAL),
            **family.defaults,
            **table,
            "id": name,
            "family": family.family,
            "vendor": family.vendor,
            "shape": {**family.defaults.get("shape", {}), **table.get("shape", {})},
            "sources": [*family.defaults.get("sources", ()), *table.get("sources", ())],
        }
        # A dense model has one number; only a mixture of experts writes both.
        merged.setdefault("parameters_active", merged.get("parameters"))
        yield convert(path, place, merged, Model)
