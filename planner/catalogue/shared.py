"""Facts that many models share: what a licence says, and the list of languages that a generation was published with.

Both stand once, in ``profiles/licenses.toml`` and ``profiles/languages.toml``; a model's table names them. It prevents
that the same licence allows one thing for one model and another for its sibling.
"""

from collections.abc import Mapping
from pathlib import Path

from planner.catalogue.tables import Table, bad_profile, convert, read_table
from planner.types import Record

__all__ = ["LanguageList", "LicenseTerms", "Shared", "read_shared"]


class LicenseTerms(Record, frozen=True, kw_only=True):
    """What a licence's text says, in short; ``asks`` is what it wants in return, ``source`` where its text stands."""

    allows: tuple[str, ...]
    asks: tuple[str, ...] = ()
    source: str


class LanguageList(Record, frozen=True, kw_only=True):
    """The languages that a publisher lists: codes, the number it claims, and where the list was read.

    ``includes`` names a list whose codes belong to this one too.
    """

    codes: tuple[str, ...] = ()
    includes: str | None = None
    claimed: int | None = None
    note: str | None = None
    sources: tuple[str, ...]


class _Licenses(Record, frozen=True, kw_only=True):
    licenses: dict[str, LicenseTerms]


class _Languages(Record, frozen=True, kw_only=True):
    lists: dict[str, LanguageList]


class Shared(Record, frozen=True, kw_only=True):
    """Licences and lists of languages by name."""

    licenses: Mapping[str, LicenseTerms] = {}
    languages: Mapping[str, LanguageList] = {}

    def license_of(self, table: Table) -> Table:
        """A model's ``license`` table with what the licence of that name says; an unread one stays bare."""
        terms = self.licenses.get(str(table.get("id")))
        if terms is None:
            return table
        return {"allows": list(terms.allows), "asks": list(terms.asks), "source": terms.source, **table}

    def languages_of(self, path: Path, place: str, name: object) -> Table:
        """The keys of a model that come from the list ``name``. Raises BadInputError for a list that is not there."""
        found = self.languages.get(name) if isinstance(name, str) else None
        if found is None:
            raise bad_profile(path, place, f"languages_from: there is no list of languages {name!r}")
        base = self.languages.get(found.includes) if found.includes is not None else None
        return {
            "languages": [*(base.codes if base else ()), *found.codes],
            "languages_claimed": found.claimed,
            "languages_note": found.note,
            "sources": [*(base.sources if base else ()), *found.sources],
        }


def read_shared(folder: Path) -> Shared:
    """Both files of ``folder``. Raises BadInputError naming the file and the key, MissingInputError without them."""
    licenses, languages = folder / "licenses.toml", folder / "languages.toml"
    return Shared(
        licenses=convert(licenses, "", read_table(licenses), _Licenses).licenses,
        languages=convert(languages, "", read_table(languages), _Languages).lists,
    )
