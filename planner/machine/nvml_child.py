"""Asks NVML everything and prints one JSON line per answer; runs alone, so that a hanging driver hangs only it.

Started as ``python -I nvml_child.py PYNVML_FILE [LIBRARY]`` by :mod:`planner.machine.nvidia`; imports nothing of
ours. Each line is flushed at once: when the deadline strikes, what was answered so far is kept. No serial number or
UUID is asked.
"""

import contextlib
import ctypes
import importlib.util
import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEVICE_CALLS", "MIG_CALLS", "NVML_CLOCK_MEM", "Interview", "main", "plain"]

DEVICE_CALLS = (
    "nvmlDeviceGetName",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetPciInfo",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetPowerManagementLimit",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetMemoryBusWidth",
)
MIG_CALLS = ("nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo")
NVML_CLOCK_MEM = 2


def plain(value: Any) -> Any:  # noqa: ANN401 - NVML answers are structures, lists, bytes and numbers
    """A JSON value of an NVML answer: fields of a structure by name, bytes as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, int | float | str) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    names = ("total", "free", "used", "busId")
    return {name: plain(getattr(value, name)) for name in names if hasattr(value, name)}


class Interview:
    """NVML and the pipe that its answers go to."""

    def __init__(self, nvml: Any, pipe: Any) -> None:  # noqa: ANN401 - a module without types, and a file
        self.nvml = nvml
        self.pipe = pipe

    def ask(self, call: str, *arguments: object, device: int | None = None, mig: int | None = None) -> Any:  # noqa: ANN401
        """Call one NVML function, print its answer or the name of its error, return the raw value."""
        line: dict[str, Any] = {"device": device, "mig": mig, "call": call}
        value = None
        try:
            function: Callable[..., Any] = getattr(self.nvml, call)
            value = function(*arguments)
            if "Handle" not in call:
                line["value"] = plain(value)
        except Exception as error:  # noqa: BLE001 - NVML raises its own classes and, with old bindings, anything
            line["error"] = type(error).__name__
        self.pipe.write(json.dumps(line) + "\n")
        self.pipe.flush()
        return value

    def device(self, index: int) -> None:
        """Everything about one GPU and its MIG slices."""
        handle = self.ask("nvmlDeviceGetHandleByIndex", index, device=index)
        if handle is None:
            return
        mode = None
        for call in DEVICE_CALLS:
            value = self.ask(call, handle, device=index)
            mode = value if call == "nvmlDeviceGetMigMode" else mode
        self.ask("nvmlDeviceGetMaxClockInfo", handle, NVML_CLOCK_MEM, device=index)
        if isinstance(mode, list | tuple) and mode and mode[0] == 1:
            self.slices(handle, index)

    def slices(self, handle: object, index: int) -> None:
        """Every MIG slice of one GPU."""
        for number in range(self.ask("nvmlDeviceGetMaxMigDeviceCount", handle, device=index) or 0):
            part = self.ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, number, device=index, mig=number)
            if part is None:
                continue
            for call in MIG_CALLS:
                self.ask(call, part, device=index, mig=number)


def main(arguments: list[str]) -> int:
    """Load the binding named first and the library named second, ask, print."""
    # A chatty driver writes to descriptor 1; the answers go to a copy of it that only we hold.
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for library in arguments[1:2]:
        with contextlib.suppress(OSError):
            ctypes.CDLL(library)
    spec = importlib.util.spec_from_file_location("pynvml", arguments[0])
    if spec is None or spec.loader is None:
        return 1
    nvml = importlib.util.module_from_spec(spec)
    sys.modules["pynvml"] = nvml  # the binding looks itself up while it loads
    spec.loader.exec_module(nvml)
    interview = Interview(nvml, pipe)
    interview.ask("nvmlInit")
    interview.ask("nvmlSystemGetDriverVersion")
    interview.ask("nvmlSystemGetCudaDriverVersion")
    for index in range(interview.ask("nvmlDeviceGetCount") or 0):
        interview.device(index)
    pipe.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
