"""What an estimator answers about one combination: its cost, or why the engine will not have it.

The choose room knows nothing else of the engine: it gets a callable that returns one of these two.
"""

from typing import NamedTuple

from planner.types import Report
from planner.types.plan import DeviceMemory, Speeds

__all__ = ["Estimate", "LayerSize", "Refusal"]


class LayerSize(NamedTuple):
    """Weight bytes of one layer: what goes where the layer goes, and its routed experts, which may stay elsewhere."""

    dense_bytes: int
    expert_bytes: int


class Estimate(Report, frozen=True, kw_only=True):
    """Bytes per device and speeds of one model × quantization × settings.

    ``file_bytes`` is the size of the weights (tokenizer aside). ``reserve_bytes`` of the rows is ignored by the choose
    room, which sets its own. ``layers``, ``head_bytes`` (the output) and ``devices`` (the GPUs' names in the engine's
    order) are what a split can be worked out from; empty where nobody splits.
    """

    file_bytes: int
    memory: tuple[DeviceMemory, ...]
    speed: Speeds = Speeds()
    layers: tuple[LayerSize, ...] = ()
    head_bytes: int = 0
    devices: tuple[str, ...] = ()


class Refusal(Report, frozen=True, kw_only=True):
    """The engine refuses the combination (a type the shape does not allow, a setting it does not know)."""

    text: str
