"""What an estimator answers about one combination: its cost, or why the engine will not have it.

The choose room knows nothing else of the engine: it gets a callable that returns one of these two.
"""

from planner.types import Report
from planner.types.plan import DeviceMemory, Speeds

__all__ = ["Estimate", "Refusal"]


class Estimate(Report, frozen=True, kw_only=True):
    """Bytes per device and speeds of one model × quantization × settings.

    ``file_bytes`` is the size of the weights (tokenizer aside). ``reserve_bytes`` of the rows is ignored by the choose
    room, which sets its own.
    """

    file_bytes: int
    memory: tuple[DeviceMemory, ...]
    speed: Speeds = Speeds()


class Refusal(Report, frozen=True, kw_only=True):
    """The engine refuses the combination (a type the shape does not allow, a setting it does not know)."""

    text: str
