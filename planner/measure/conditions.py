"""Watches the machine while something is timed, and says in words what made the timing doubtful.

A speed taken beside another busy process is a speed of that process too; the load average tells it too late and
mixes us with the others. So the time that *others* used is counted: everything that ran minus what our own processes
ran. What the system does not tell is ``None`` and disturbs nothing.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil  # type: ignore[import-untyped, unused-ignore]

from planner.types.measurement import Conditions

__all__ = ["Snapshot", "Watch", "compare", "snapshot"]

T = TypeVar("T")

MAX_STEAL = 0.10
"""Share of CPU time that the hypervisor may give to others; a few per cent are what a virtual machine is."""
MAX_PRESSURE = 0.10
"""Share of the time in which some process waited for a CPU (Linux PSI)."""
MAX_FREQUENCY_DROP = 0.10
MAX_SWAPPED_IN_PAGES = 0
MAX_MEMORY_PRESSURE = 0.10
"""Share of the time in which some process waited for memory to be freed or read back (Linux PSI)."""
MAX_THROTTLES = 0
MAX_MAJOR_FAULTS = 16
"""Page-ins from disk of our own processes: an interpreter loads a module now and then, weights fault by thousands."""
MAX_CONTENTION = 0.10
"""Share of our threads' CPU time that others may take away."""

_PROC, _SYSFS = Path("/proc"), Path("/sys")
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one moment; seconds of CPU time are since boot, ``None`` where the system does not tell."""

    at_s: float
    cpus: int
    busy_s: float | None = None
    steal_s: float | None = None
    total_s: float | None = None
    own_s: float | None = None
    pressure_s: float | None = None
    swapped_in_pages: int | None = None
    major_faults: int | None = None
    mhz: float | None = None
    load_1min: float | None = None
    on_battery: bool | None = None
    memory_pressure_s: float | None = None
    throttles: int | None = None


class Watch:
    """Takes a snapshot now and, at :meth:`finish`, says under which conditions the time in between passed.

    ``pids`` are our own processes (this one and those it waited for are counted anyway); ``threads`` is how many of
    them compute at once, ``tolerance`` the share of the usual limits up to which others may disturb.
    """

    def __init__(
        self,
        pids: Iterable[int] = (),
        *,
        threads: int = 1,
        tolerance: float = 1.0,
        proc: Path = _PROC,
        sysfs: Path = _SYSFS,
    ) -> None:
        self._pids = (os.getpid(), *pids)
        self._threads, self._tolerance = threads, tolerance
        self._roots = (proc, sysfs)
        self._before = self._now()

    def finish(self) -> Conditions:
        """The conditions since the watch began; may be asked again."""
        return compare(self._before, self._now(), threads=self._threads, tolerance=self._tolerance)

    def _now(self) -> Snapshot:
        proc, sysfs = self._roots
        return snapshot(self._pids, proc=proc, sysfs=sysfs)


def snapshot(pids: Iterable[int] = (), *, proc: Path = _PROC, sysfs: Path = _SYSFS) -> Snapshot:
    """Counters of this moment, of the machine and of the processes ``pids``; never raises, costs a millisecond."""
    busy, steal, total = _cpu_seconds(proc)
    own, faults = _own(pids, proc)
    return Snapshot(
        at_s=time.monotonic(),
        cpus=os.cpu_count() or 1,
        busy_s=busy,
        steal_s=steal,
        total_s=total,
        own_s=own,
        pressure_s=_pressure_seconds(proc, "cpu"),
        swapped_in_pages=_vmstat(proc, "pswpin"),
        major_faults=faults,
        mhz=_fastest_mhz(sysfs),
        load_1min=_load(),
        on_battery=_on_battery(sysfs),
        memory_pressure_s=_pressure_seconds(proc, "memory"),
        throttles=_throttles(sysfs),
    )


def compare(before: Snapshot, after: Snapshot, *, threads: int, tolerance: float = 1.0) -> Conditions:
    """What happened between two snapshots while ``threads`` of ours computed; pure.

    ``tolerance`` scales how much of the CPU others may take: a share below one is stricter than for a measurement.
    """
    wall = max(after.at_s - before.at_s, 1e-3)
    others = _others(before, after, wall)
    steal = _ratio(_delta(before.steal_s, after.steal_s), _delta(before.total_s, after.total_s))
    pressure = _ratio(_delta(before.pressure_s, after.pressure_s), wall)
    memory = _ratio(_delta(before.memory_pressure_s, after.memory_pressure_s), wall)
    throttled = _delta(before.throttles, after.throttles)
    drop = None if not before.mhz or after.mhz is None else max(0.0, 1 - after.mhz / before.mhz)
    swapped = _delta(before.swapped_in_pages, after.swapped_in_pages)
    faults = _delta(before.major_faults, after.major_faults)
    taken = None if others is None else max(0.0, others + threads - after.cpus) / threads
    found = [
        _if_above(taken, tolerance * MAX_CONTENTION, f"other processes used {others or 0:.1f} of {after.cpus} CPUs"),
        _if_above(steal, tolerance * MAX_STEAL, f"the hypervisor took {steal or 0:.0%} of the CPU time (steal)"),
        _if_above(
            pressure, tolerance * MAX_PRESSURE, f"processes waited for a CPU {pressure or 0:.0%} of the time (PSI)"
        ),
        _if_above(memory, MAX_MEMORY_PRESSURE, f"processes waited for memory {memory or 0:.0%} of the time (PSI)"),
        _if_above(throttled, MAX_THROTTLES, f"the CPU throttled itself {throttled or 0:.0f} times for heat"),
        _if_above(drop, MAX_FREQUENCY_DROP, f"the CPU's clock fell by {drop or 0:.0%}"),
        _if_above(swapped, MAX_SWAPPED_IN_PAGES, f"{swapped or 0:.0f} pages were swapped in"),
        _if_above(faults, MAX_MAJOR_FAULTS, f"{faults or 0:.0f} page faults went to the disk: memory is too small"),
        "the machine runs on battery" if after.on_battery else None,
    ]
    return Conditions(
        load_1min=after.load_1min,
        steal_ratio=steal,
        on_battery=after.on_battery,
        other_cpus=others,
        pressure_ratio=pressure,
        frequency_drop_ratio=drop,
        swapped_in_pages=None if swapped is None else int(swapped),
        major_faults=None if faults is None else int(faults),
        memory_pressure_ratio=memory,
        throttled=None if throttled is None else int(throttled),
        disturbed=tuple(sentence for sentence in found if sentence is not None),
    )


def _others(before: Snapshot, after: Snapshot, wall_s: float) -> float | None:
    """How many CPUs other processes kept busy on average."""
    busy, own = _delta(before.busy_s, after.busy_s), _delta(before.own_s, after.own_s)
    if busy is None or own is None:
        return None
    return max(0.0, busy - own) / wall_s


def _delta(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else max(0.0, after - before)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _if_above(value: float | None, limit: float, sentence: str) -> str | None:
    return sentence if value is not None and value > limit else None


def _cpu_seconds(proc: Path) -> tuple[float | None, float | None, float | None]:
    """Busy, stolen and all CPU seconds of the machine; fields as in proc_stat(5)."""
    if (proc / "stat").exists():
        with contextlib.suppress(OSError, ValueError, IndexError):
            first = (proc / "stat").read_text(encoding="ascii", errors="replace").split("\n", 1)[0].split()
            user, nice, system, idle, iowait, irq, softirq, steal = (int(field) / _CLOCK_TICKS for field in first[1:9])
            busy = user + nice + system + irq + softirq
            return busy, steal, busy + idle + iowait + steal
        return None, None, None
    with contextlib.suppress(OSError, RuntimeError, psutil.Error):
        times = psutil.cpu_times()
        busy = float(sum(times) - times.idle)
        return busy, None, float(sum(times))
    return None, None, None


def _own(pids: Iterable[int], proc: Path) -> tuple[float | None, int | None]:
    """CPU seconds and major faults of our processes; a process that ended in between makes the sum unknown."""
    # Programs that we ran and waited for (llama-bench among them) were ours too.
    ended = _asked(os.times)
    seconds, faults = 0.0 if ended is None else ended.children_user + ended.children_system, 0
    for pid in dict.fromkeys(pids):
        try:
            times = psutil.Process(pid).cpu_times()
            seconds += times.user + times.system
            faults += _major_faults(pid, proc)
        except (psutil.Error, OSError):
            return None, None
        except (ValueError, IndexError):
            return seconds, None
    return seconds, faults


def _major_faults(pid: int, proc: Path) -> int:
    """``majflt``, the 12th field of proc_pid_stat(5); the second is a name that may hold blanks."""
    text = (proc / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    return int(text.rsplit(")", 1)[1].split()[9])


def _pressure_seconds(proc: Path, resource: str) -> float | None:
    """Seconds in which at least one process waited for ``resource`` (cpu, memory), since boot."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = (proc / "pressure" / resource).read_text(encoding="ascii", errors="replace")
        # The first line is "some avg10=… total=MICROSECONDS", the second, if any, "full …".
        return int(text.splitlines()[0].rsplit("total=", 1)[1]) / 1e6
    return None


def _vmstat(proc: Path, name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (proc / "vmstat").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return None


def _numbers(folder: Path, pattern: str) -> list[int]:
    """The whole numbers in the files of a tree of sysfs that match; those that cannot be read are left out."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError, ValueError):
                found.append(int(path.read_text(encoding="ascii", errors="replace")))
    return found


def _throttles(sysfs: Path) -> int | None:
    """How often cores and packages have slowed down for heat since boot (x86; Documentation/ABI, sysfs-devices-cpu)."""
    counts = _numbers(sysfs / "devices" / "system" / "cpu", "cpu[0-9]*/thermal_throttle/*_throttle_count")
    return sum(counts) if counts else None


def _fastest_mhz(sysfs: Path) -> float | None:
    """The clock of the fastest core: idle cores slow down and mean nothing."""
    khz = _numbers(sysfs / "devices" / "system" / "cpu", "cpu[0-9]*/cpufreq/scaling_cur_freq")
    if khz:
        return max(khz) / 1e3
    cores = _asked(lambda: psutil.cpu_freq(percpu=True)) or []
    return max((core.current for core in cores), default=0.0) or None


def _load() -> float | None:
    with contextlib.suppress(OSError):
        return os.getloadavg()[0]
    return None


def _on_battery(sysfs: Path) -> bool | None:
    """Whether a battery of the machine itself discharges; a mouse has one too, and says that its scope is a device."""
    states: list[str] = []
    with contextlib.suppress(OSError):
        for supply in (sysfs / "class" / "power_supply").iterdir():
            told = {name: _word(supply / name) for name in ("type", "scope", "status")}
            if told["type"] == "battery" and told["scope"] != "device":
                states.append(told["status"])
    if states:
        return "discharging" in states
    battery = _asked(psutil.sensors_battery)
    return None if battery is None or battery.power_plugged is None else not battery.power_plugged


def _word(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="ascii", errors="replace").strip().lower()
    return ""


def _asked(question: Callable[[], T]) -> T | None:
    """What psutil answers, ``None`` where this system has no such sensor (it then lacks the very function)."""
    try:
        return question()
    except (AttributeError, NotImplementedError, OSError, RuntimeError, psutil.Error):
        return None
