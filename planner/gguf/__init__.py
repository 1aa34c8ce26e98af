"""The bytes of a GGUF header: bounds, walking, and what a header says about a model, without ever running native code.

A GGUF is untrusted input. What leaves this room has been checked against the bytes it came from; what is wrong ends
in one error with a place in it, and what has not arrived yet says how much is missing.
"""

from planner.gguf.cursor import Buffer, Incomplete
from planner.gguf.limits import LIMITS, Limits
from planner.gguf.walk import walk_header, walk_stream
from planner.gguf.walked import KeySpot, SplitSpot, TensorRow, Walked

__all__ = [
    "LIMITS",
    "Buffer",
    "Incomplete",
    "KeySpot",
    "Limits",
    "SplitSpot",
    "TensorRow",
    "Walked",
    "walk_header",
    "walk_stream",
]
