"""planner says, truthfully, which Qwen or DeepSeek model runs best on the machine in front of you.

``planner.detect()``, ``planner.plan()``, ``planner.estimate()`` and ``planner.measure()`` are what the commands of the
same names do; every error that a caller can act on is a :class:`PlannerError`. Importing this module loads no other.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # ruff: noqa: TC004 - __all__ names them, and _Front finds them at run time
    from planner.api import detect, estimate, explain, measure, plan, tune, why_not
    from planner.errors import PlannerError
    from planner.types.measurement import Test
    from planner.types.plan import Goal

__all__ = [
    "Goal",
    "PlannerError",
    "Test",
    "__version__",
    "detect",
    "estimate",
    "explain",
    "measure",
    "plan",
    "tune",
    "why_not",
]

__version__ = "0.1.0"

_HOME = {
    **dict.fromkeys(("detect", "estimate", "explain", "measure", "plan", "tune", "why_not"), "planner.api"),
    "PlannerError": "planner.errors",
    "Test": "planner.types.measurement",
    "Goal": "planner.types.plan",
}
"""Where each public name lives; its module is imported when the name is first asked for."""


class _Front(ModuleType):
    """This module, with its names found when they are asked for, and functions in front of rooms of the same name.

    ``planner.estimate`` and ``planner.measure`` are functions to those who use the package and rooms to those who build
    it. Importing such a room would put it in the function's place; the rooms are reached by ``from
    planner.measure.suite import ...``, which needs no attribute.
    """

    def __getattr__(self, name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        found = getattr(importlib.import_module(_HOME[name]), name)
        super().__setattr__(name, found)
        return found

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOME})


sys.modules[__name__].__class__ = _Front
