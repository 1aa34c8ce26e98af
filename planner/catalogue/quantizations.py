"""Reads ``quantizations.toml``: what ``llama_model_quantize`` offers and what each recipe is known to lose.

The bytes of a quantized model are never taken from here; the engine's dry run gives them.
"""

from pathlib import Path

from planner.catalogue.tables import Table, convert, read_table
from planner.types import Record
from planner.types.model import Quantization

__all__ = ["read_quantizations"]


class _File(Record, frozen=True, kw_only=True):
    """The file as it is written: the source that most numbers share, then one table per recipe."""

    kld_source: str
    quantizations: dict[str, Table]


def read_quantizations(path: Path) -> tuple[Quantization, ...]:
    """Every quantization in the file's order. Raises BadInputError naming the file, the recipe and the key."""
    file = convert(path, "", read_table(path), _File)
    recipes = []
    for name, table in file.quantizations.items():
        kld = table.get("kld")
        merged = {"kld": None, "kld_source": None if kld is None else file.kld_source, **table, "name": name}
        recipes.append(convert(path, f"quantizations.{name}", merged, Quantization))
    return tuple(recipes)
