"""What a unit of each kind of work costs on an ordinary core before anything is timed, and which kinds are alike.

The numbers are orders of magnitude for two cores of an x86 server (bytes at some 10 GB/s, products at some tens of
GFLOP/s). They decide nothing where there are timings; they keep the costs that no timing tells apart at a sensible
place, and the doubt that comes with them says that they are guesses.
"""

from collections.abc import Mapping
from typing import NamedTuple

from planner.gguf.ggml_types import TYPES

__all__ = ["Prior", "beside", "counterpart", "guess", "prior", "relatives"]


class Prior(NamedTuple):
    """What a unit of a kind of work costs before it is timed, in nanoseconds; ``doubt`` is a relative deviation."""

    cost_ns: float
    doubt: float


_BYTE_NS = 0.1
_FLOP_NS = {"repacked": 1 / 120, "plain": 1 / 50}
_EXPERT_FLOP_NS = {"repacked": 1 / 40, "plain": 1 / 50}
_BESIDE = "id-to-mm"
_BESIDE_DOUBT = 0.25
"""Of 11 types in five calibrations the medians of what experts took, as a ratio of their counterparts, lay within a
quarter of one another where kernels work alike, and single ones as far apart as a single run scatters."""
_MOST_TOKENS, _MOST_COLUMNS = "128", "256"
_WIDE = 1.0
_RELATED = 0.6
_KNOWN = 0.35
"""Of what 12 shapes at five depths told apart on AMD EPYC, and the few of a calibration do not."""
_COSTS: dict[str, Prior] = {
    "call": Prior(100_000.0, 1.5),
    "node": Prior(3_000.0, 1.0),
    "product": Prior(3_000.0, 1.0),
    "start": Prior(2_000.0, 1.0),
    "chunk": Prior(500.0, 1.0),
    "out": Prior(0.5, 1.0),
    "jump": Prior(50.0, _KNOWN),
    "again": Prior(7.0, _KNOWN),
    "row": Prior(60.0, 0.7),
    "strip": Prior(50.0, 0.5),
    "quantize": Prior(0.5, 1.0),
}
_GROUPS: tuple[tuple[str, Prior], ...] = (
    ("attn/single/f16", Prior(0.02, _KNOWN)),
    ("attn/single/", Prior(0.06, _WIDE)),
    ("attn/latent/", Prior(0.06, _WIDE)),
    ("attn/tiled/", Prior(0.02, _WIDE)),
    ("pos/single", Prior(8.0, _KNOWN)),
    ("pos/latent", Prior(3.0, _WIDE)),
    ("pos/tiled", Prior(0.5, _WIDE)),
    ("kv/", Prior(0.06, _KNOWN)),
    ("dot/", Prior(0.02, _WIDE)),
    ("dot1/", Prior(0.06, _WIDE)),
    ("state/", Prior(0.2, _WIDE)),
    ("op/GLU:", Prior(0.3, _WIDE)),
    ("op/UNARY:", Prior(0.4, _WIDE)),
    ("op/ROPE", Prior(0.4, _WIDE)),
    ("op/", Prior(0.15, _WIDE)),
)


def prior(name: str) -> Prior:
    """The cost of a unit of the kind of work ``name`` (see :data:`planner.estimate.costs.Amounts`) before timing."""
    if name in _COSTS:
        return _COSTS[name]
    kind, _, rest = name.partition("/")
    if kind in {"mm", "id"}:
        return _weights(kind, rest)
    return next((found for group, found in _GROUPS if name.startswith(group)), Prior(0.2, 2 * _WIDE))


def guess(name: str, factors: Mapping[str, float], costs: Mapping[str, float]) -> Prior:
    """The prior of a kind of work, moved to where its relatives lie on this machine (``factors`` by their group).

    Experts take about as long as the same weights for all tokens, whose ``costs`` were solved for before.
    """
    expected = prior(name)
    alike = costs.get(counterpart(name) or "", 0.0)
    if alike > 0:
        known = [factors[group] for group in beside(name) if group in factors]
        return Prior(alike * (known[0] if known else 1.0), _BESIDE_DOUBT)
    for group in relatives(name):
        if group in factors:
            return Prior(expected.cost_ns * factors[group], expected.doubt * _RELATED)
    return expected


def relatives(name: str, kind: str = "") -> tuple[str, ...]:
    """The groups that a kind of work belongs to, the nearest first: what holds for some of a group holds for others.

    ``kind`` takes the place of the name's own.
    """
    own, _, rest = name.partition("/")
    kind = kind or own
    if own in {"mm", "id"}:
        family, _, knot = rest.partition("@")
        form = family.partition("/")[2]
        return f"{kind}/{_kernel(family)}@{knot}", f"{kind}/{form}@{knot}", f"{kind}/{form}"
    return (f"{kind}/",) if rest else ()


def counterpart(name: str) -> str | None:
    """For weights of experts the name of the same weights for all tokens, ``None`` for every other kind."""
    kind, _, rest = name.partition("/")
    family, _, knot = rest.partition("@")
    if kind != "id":
        return None
    return f"mm/{family}@{_MOST_COLUMNS if knot == _MOST_TOKENS else knot}"


def beside(name: str) -> tuple[str, ...]:
    """The groups of experts of which one factor says how many times their counterparts they take, the nearest first."""
    return relatives(name, _BESIDE)


def _weights(kind: str, rest: str) -> Prior:
    family, _, knot = rest.partition("@")
    type_name, _, form = family.partition("/")
    ggml = TYPES[type_name.upper()]
    flops = 2.0 * int(knot) * ggml.block / ggml.size_bytes
    rate = (_FLOP_NS if kind == "mm" else _EXPERT_FLOP_NS)[form]
    return Prior(max(_BYTE_NS, flops * rate), _WIDE)


def _kernel(family: str) -> str:
    """Types whose kernels work alike: look-up of codebooks, blocks with one scale, blocks with scales within."""
    type_name, _, form = family.partition("/")
    if type_name.startswith(("iq1", "iq2", "iq3")):
        return f"codebook/{form}"
    if type_name.endswith("_K"):
        return f"K/{form}"
    return f"float/{form}" if type_name in {"f16", "bf16", "f32"} else f"block/{form}"
