"""Reads one family of models: a table of defaults, then one table per model, as people keep it by hand.

``[defaults]`` holds what the models share; a model's own key wins, its ``shape`` is merged name by name and its
``sources`` are added to the shared ones. Keys that nobody knows are left out of the file and become ``None``.
``[known]`` holds models that exist and cannot be planned, each with its ``reason``: they take no defaults, so that no
fact of a sibling is taken for theirs. ``languages_from`` names a list of ``languages.toml``, a licence's ``id`` one of
``licenses.toml``.
"""

from pathlib import Path

from planner.catalogue.shared import Shared
from planner.catalogue.tables import Table, bad_profile, convert, read_table
from planner.types import Record
from planner.types.model import KnownModel, Model

__all__ = ["Family", "read_family"]

_OPTIONAL = (
    "parameters_published",
    "released",
    "context_extended",
    "languages",
    "hf_repo",
    "modelscope_id",
)
_OPTIONAL_IF_KNOWN = (
    "architecture",
    "parameters_published",
    "released",
    "context_native",
    "license",
    "hf_repo",
    "modelscope_id",
)


class _File(Record, frozen=True, kw_only=True):
    """A family file before its defaults are spread."""

    family: str
    vendor: str
    defaults: Table = {}
    models: dict[str, Table] = {}
    known: dict[str, Table] = {}


class Family(Record, frozen=True, kw_only=True):
    """What a family file holds: the models that can be planned, and those that are only known."""

    models: tuple[Model, ...]
    known: tuple[KnownModel, ...]


def read_family(path: Path, shared: Shared) -> Family:
    """The models of one ``profiles/models/*.toml``. Raises BadInputError naming the file, the model and the key."""
    file = convert(path, "", read_table(path), _File)
    if not file.models and not file.known:
        raise bad_profile(path, "", "a family has at least one model")
    return Family(
        models=tuple(_model(path, file, shared, name, table) for name, table in file.models.items()),
        known=tuple(_known(path, file, shared, name, table) for name, table in file.known.items()),
    )


def _model(path: Path, file: _File, shared: Shared, name: str, table: Table) -> Model:
    place = _place(path, "models", name)
    own = {**file.defaults, **table}
    listed = shared.languages_of(path, place, own.pop("languages_from")) if "languages_from" in own else {}
    merged = {
        **dict.fromkeys(_OPTIONAL),
        **listed,
        **own,
        "id": name,
        "family": file.family,
        "vendor": file.vendor,
        "shape": {**file.defaults.get("shape", {}), **table.get("shape", {})},
        "sources": [*file.defaults.get("sources", ()), *table.get("sources", ()), *listed.get("sources", ())],
    }
    merged["license"] = _license(shared, merged.get("license"))
    # A dense model has one number; only a mixture of experts writes both.
    merged.setdefault("parameters_active", merged.get("parameters"))
    return convert(path, place, merged, Model)


def _known(path: Path, file: _File, shared: Shared, name: str, table: Table) -> KnownModel:
    place = _place(path, "known", name)
    own = {"id": name, "family": file.family, "vendor": file.vendor, "license": _license(shared, table.get("license"))}
    return convert(path, place, {**dict.fromkeys(_OPTIONAL_IF_KNOWN), **table, **own}, KnownModel)


def _license(shared: Shared, table: object) -> object:
    return shared.license_of(table) if isinstance(table, dict) else table


def _place(path: Path, table: str, name: str) -> str:
    place = f"{table}.{name}"
    if name != name.lower() or "/" in name or ":" in name:
        raise bad_profile(path, place, "an id is lower-case and has neither slash nor colon")
    return place
