"""How far a physical prediction lies from what was seen; prevents an interval that is sure of what nobody measured.

The spread of a backend is what its own devices missed by when they were left out of the fit. Whatever is new about a
model or a device (a mixture where none was seen, another memory, another group of tensor types) widens it, and is told
in words.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from planner.estimate.physical import Hardware, Part, kernel_of
from planner.estimate.physical_constants import Quantity, SpeedModel, Trust

__all__ = ["Doubt", "doubt_of", "features_of"]

_MOST_UNFAMILIAR = 2
_FAR = 2.0
"""From this multiple of the largest bandwidth seen, or this part of the least, a device is far from all of them."""

_WORDS = {
    "mixture": "a mixture of experts",
    "recurrent": "recurrent layers",
    "hbm": "HBM",
    "gddr": "GDDR memory",
    "lpddr": "LPDDR memory",
    "ddr": "DDR memory",
}


class Doubt(NamedTuple):
    """The logarithm of the factor on either side of a prediction, and what makes it so in words."""

    width: float
    basis: str


def features_of(parts: Iterable[Part]) -> frozenset[str]:
    """What kind of model and device parts are, apart from sizes and rates."""
    found: set[str] = set()
    for hardware, work in parts:
        found.add(kernel_of(work.quantization))
        found |= {name for name, has in (("mixture", work.mixture), ("recurrent", work.recurrent)) if has}
        if hardware.memory:
            found.add(hardware.memory)
    return frozenset(found)


def doubt_of(model: SpeedModel, part: Part, quantity: Quantity) -> Doubt | None:
    """How wide the interval of one device's part is; ``None`` for a backend of which no published row speaks."""
    hardware, _ = part
    trust = model.backends.get(hardware.backend)
    if trust is None or "decode" not in trust.spread:
        return None
    new = sorted(features_of([part]) - set(trust.features))
    steps = min(_MOST_UNFAMILIAR, len(new))
    words = [f"{trust.devices} published devices with {hardware.backend}"]
    spread = trust.spread.get(quantity)
    if spread is None:
        spread, steps = trust.spread["decode"], steps + 1
        words.append("none of them at depth")
    elif quantity == "decode-deep":  # few rows are deep, and one that is at depth 0 too is not better known there
        spread = max(spread, trust.spread["decode"])
    if new:
        words.append(f"none of them with {', '.join(_word(name) for name in new)}")
    far = _far(trust, hardware)
    if far:
        words.append(far)
        steps += 1
    width = math.log(spread) * model.unfamiliar[quantity] ** steps
    return Doubt(width, ", ".join(words))


def _far(trust: Trust, hardware: Hardware) -> str:
    if trust.bandwidth_gb_per_s is None or hardware.bandwidth_bytes_per_s is None:
        return ""
    least, most = trust.bandwidth_gb_per_s
    own = hardware.bandwidth_bytes_per_s / 1e9
    if least / _FAR <= own <= most * _FAR:
        return ""
    return f"far from the {least:.0f} to {most:.0f} GB/s that were seen"


def _word(feature: str) -> str:
    return _WORDS.get(feature, f"tensor types like {feature}")
