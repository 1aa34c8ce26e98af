"""Whether one estimate fits and is fast enough, and by how much not; the mistake it prevents is a maybe.

An estimate fits when every device has room for it beside the reserve. A device whose memory is unknown promises
nothing, so nothing is planned there.
"""

from typing import NamedTuple

import msgspec

from planner.choose import policy
from planner.types.estimate import Estimate
from planner.types.machine import Machine
from planner.types.plan import DeviceMemory, Goal, Reason, Speed, Speeds, Verdict
from planner.units import duration, gib, rate

__all__ = ["Judged", "answer_reason", "is_host", "judge", "speed_reason", "speed_verdict"]

_HOST = ("cpu", "host", "ram")


class Judged(NamedTuple):
    """A verdict with its reason, and the memory rows with the policy's reserve set."""

    verdict: Verdict
    reason: Reason
    memory: tuple[DeviceMemory, ...]
    needed_bytes: int

    @property
    def fits_memory(self) -> bool:
        """Whether memory suffices, whatever the speed."""
        return self.verdict in {"fits", "tight", "too-slow"}

    @property
    def gpu_fits(self) -> bool:
        """Whether every device but the host has room."""
        return all(_has_room(row) for row in self.memory if not is_host(row))


def is_host(row: DeviceMemory) -> bool:
    """Whether a memory row is system RAM."""
    return row.device.lower() in _HOST


def judge(goal: Goal, machine: Machine, estimate: Estimate) -> Judged:
    """The verdict on an estimate: memory first, then speed, then whether it is tight."""
    memory = tuple(_reserved(goal, machine, row) for row in estimate.memory)
    needed = sum(row.total_bytes for row in memory)
    if any(row.available_bytes is None for row in memory):
        unknown = ", ".join(row.device for row in memory if row.available_bytes is None)
        text = f"how much memory {unknown} has is unknown, so nothing is promised there"
        reason = Reason(code="too-big", text=text, rule="memory")
        return Judged("unsupported", reason, memory, needed)
    short = [row for row in memory if not _has_room(row)]
    if short:
        reason = Reason(code="too-big", text="; ".join(map(_shortage, short)), rule="memory")
        return Judged("too-big", reason, memory, needed)
    if speed_verdict(goal, estimate.speed) == "too-slow":
        return Judged("too-slow", speed_reason(goal, estimate.speed), memory, needed)
    tight = any(policy.is_tight(row.headroom_bytes or 0, row.available_bytes or 0) for row in memory)
    return Judged("tight" if tight else "fits", _room(memory), memory, needed)


def speed_verdict(goal: Goal, speed: Speeds) -> Verdict:
    """``too-slow`` when decoding at depth 0 is known to be below the goal's floor, else ``fits``."""
    generate = speed.generate
    return "too-slow" if generate is not None and generate.tokens_per_s < goal.min_tokens_per_s else "fits"


def speed_reason(goal: Goal, speed: Speeds) -> Reason:
    """How the decode speed stands to the floor, in words."""
    generate = speed.generate
    if generate is None:
        return Reason(code="meets-speed", text="its speed is not known before it is measured")
    asked = f"{rate(goal.min_tokens_per_s)} asked for"
    if generate.tokens_per_s < goal.min_tokens_per_s:
        return Reason(code="too-slow", text=f"{_speed_words(generate)} is below the {asked}", rule="speed-floor")
    return Reason(code="meets-speed", text=f"{_speed_words(generate)}, with {asked}")


def answer_reason(goal: Goal, seconds: float, speed: Speeds) -> Reason:
    """Why a candidate answers too late, in words."""
    pace = f" at {rate(speed.generate.tokens_per_s)} tokens/s" if speed.generate is not None else ""
    text = (
        f"a typical answer takes {duration(seconds)}{pace}, longer than {duration(policy.longest_answer_seconds(goal))}"
    )
    return Reason(code="answer-too-late", text=text, rule="answer-time")


def _speed_words(speed: Speed) -> str:
    return f"{speed.origin} {rate(speed.tokens_per_s)} tokens/s ({rate(speed.low)} to {rate(speed.high)})"


def _reserved(goal: Goal, machine: Machine, row: DeviceMemory) -> DeviceMemory:
    available = row.available_bytes
    if available is None:
        return row
    system_ram = is_host(row) or _unified(machine)
    reserve = policy.reserve_bytes(goal, machine, host=system_ram, available_bytes=available)
    return msgspec.structs.replace(row, reserve_bytes=reserve)


def _unified(machine: Machine) -> bool:
    """Whether a GPU's row is system RAM too: one budget."""
    return bool(machine.gpus) and all(gpu.unified_memory for gpu in machine.gpus)


def _has_room(row: DeviceMemory) -> bool:
    return row.headroom_bytes is not None and row.headroom_bytes >= 0


def _shortage(row: DeviceMemory) -> str:
    return (
        f"needs {gib(row.total_bytes)} on {row.device}, {gib(-(row.headroom_bytes or 0))} more than is left of "
        f"{gib(row.available_bytes)} after a reserve of {gib(row.reserve_bytes)}"
    )


def _room(memory: tuple[DeviceMemory, ...]) -> Reason:
    words = [
        f"{gib(row.total_bytes)} of the {gib(row.available_bytes)} available on {row.device}, "
        f"{gib(row.headroom_bytes)} to spare after a reserve of {gib(row.reserve_bytes)}"
        for row in memory
    ]
    return Reason(code="fits", text="; ".join(words))
