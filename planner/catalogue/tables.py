"""Reads a TOML profile into structs and names the file and the place in it when it is wrong.

Prevents two mistakes: a typing slip in a profile that ends in a traceback, and a stray key that is silently ignored.
"""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from planner.errors import BadInputError, MissingInputError

__all__ = ["Table", "bad_profile", "convert", "read_table"]

Table = dict[str, Any]  # what tomllib returns; it goes through `convert` before anybody relies on it
Struct = TypeVar("Struct")


def read_table(path: Path) -> Table:
    """The content of a TOML file. Raises BadInputError with the line, MissingInputError when it is not there."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path} is missing", hint="reinstall planner, its profiles are incomplete") from error
    except OSError as error:
        raise bad_profile(path, "", error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_profile(path, "", str(error)) from error


def convert(path: Path, place: str, table: object, kind: type[Struct]) -> Struct:
    """``table`` as a struct; raises BadInputError that names ``path``, ``place`` and the key inside it."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise bad_profile(path, place, str(error)) from error


def bad_profile(path: Path, place: str, problem: str) -> BadInputError:
    """The error for a profile that is wrong at ``place``."""
    where = f"{path}: {place}" if place else str(path)
    return BadInputError(f"{where}: {problem}", hint="mend that line of the profile")
