"""The fitted constants of the physical speed model, how far to trust them, and what they were seen on.

They are data: ``profiles/speed/constants.toml`` and ``profiles/speed/trust.toml``, written by
``bench/published_speed.py --write``. Prevents a number in code whose origin nobody can tell, and an interval that is as
narrow for a backend seen on one device as for one seen on twenty.
"""

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import msgspec

from planner.errors import BadInputError
from planner.files import profiles_dir
from planner.types import Record

__all__ = ["Constant", "Quantity", "SpeedModel", "Trust", "read_speed_model", "speed_model"]

T = TypeVar("T")
Quantity = Literal["decode", "decode-deep", "prompt"]


class Constant(Record, frozen=True, kw_only=True):
    """One fitted number: what it means, its unit, and the devices whose rows moved it.

    ``start`` and ``doubt`` are where the fit began and how strongly it was held there: a factor of e^``doubt`` is one
    standard deviation. ``devices`` 0 means that no row spoke and the start stands.
    """

    value: float = msgspec.field(name="is")
    unit: str
    means: str
    start: float
    doubt: float
    devices: int


class Trust(Record, frozen=True, kw_only=True):
    """What the constants of one backend were seen on, and how far off they were on devices left out.

    ``spread`` is, for each quantity, the factor within which four of five predictions for left-out devices lay.
    ``features`` are the kinds of model and device that were seen. Bandwidths in GB/s; ``None`` where none was told.
    """

    devices: int
    rows: int
    spread: dict[Quantity, float]
    features: tuple[str, ...]
    bandwidth_gb_per_s: tuple[float, float] | None = None


class _Constants(Record, frozen=True, kw_only=True):
    fitted: str
    constants: dict[str, Constant]


class _TrustFile(Record, frozen=True, kw_only=True):
    fitted: str
    unfamiliar: dict[Quantity, float]
    backends: dict[str, Trust]


class SpeedModel(NamedTuple):
    """All constants by name, trust by backend, and the power by which each unfamiliar feature widens an interval."""

    constants: Mapping[str, float]
    backends: Mapping[str, Trust]
    unfamiliar: Mapping[Quantity, float]


@functools.cache
def speed_model() -> SpeedModel:
    """The model that planner ships."""
    return read_speed_model(profiles_dir() / "speed")


def read_speed_model(folder: Path) -> SpeedModel:
    """The model of ``folder``. Raises BadInputError that names the file and the key."""
    constants = _read(folder / "constants.toml", _Constants).constants
    trust = _read(folder / "trust.toml", _TrustFile)
    return SpeedModel({name: each.value for name, each in constants.items()}, trust.backends, trust.unfamiliar)


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), kind)
    except OSError as error:
        raise BadInputError(
            f"{path}: {error.strerror}", hint="reinstall planner, its profiles are incomplete"
        ) from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: {error}", hint="mend that line of the profile") from error
