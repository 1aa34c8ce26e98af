"""RAM that a process here may really use; prevents planning 800 GB inside a 90 GiB container.

Usable is the minimum over the kernel's MemAvailable, every control group above us, and the address-space limit. Free is
not available: file cache counts as available, because the kernel gives it back.
"""

import re
from typing import TYPE_CHECKING

from planner.machine.answers import Answers, Recorder, natural
from planner.machine.evidence import Evidence
from planner.types.machine import Memory

if TYPE_CHECKING:
    from planner.machine.cgroup import Cgroups

__all__ = ["collect", "interpret", "meminfo"]

MEMINFO = "/proc/meminfo"
LIMITS = "/proc/self/limits"
_PAGE = re.compile(r"page size of (\d+) bytes")


def collect(ask: Recorder) -> None:
    """Read ``/proc/meminfo`` and the process limits, or macOS's ``sysctl`` and ``vm_stat``."""
    if ask.host.system().sysname == "Darwin":
        ask.program("vm_stat", ["/usr/bin/vm_stat"])
    else:
        ask.file(MEMINFO)
        ask.lines(LIMITS, ("Max address space",))
    ask.fact("memory.physical_bytes", ask.host.physical_memory())


def interpret(raw: Answers, cgroups: "Cgroups", sysctl: dict[str, str]) -> Memory:
    """Total, available, swap and what is usable, with every limit above us."""
    evidence = Evidence()
    numbers = meminfo(raw.files.get(MEMINFO, ""))
    total = _total(raw, numbers, sysctl, evidence)
    available = min(_available(raw, numbers, total, evidence), total)
    swap_total, swap_free = _swap(numbers, sysctl)
    bounds = {"what the system has available": available}
    bounds |= {f"cgroup {limit.path}": limit.available_bytes for limit in cgroups.limits}
    if (space := _address_space(raw)) is not None:
        bounds["the address-space limit (ulimit -v)"] = space
    tightest = min(bounds, key=lambda name: bounds[name])
    evidence.sure("usable_bytes", bounds[tightest], f"minimum of {len(bounds)} bounds: {tightest}")
    if cgroups.limits:
        evidence.sources["limits"] = "control groups above this process"
    else:
        evidence.note("limits", "no control group above this process limits memory")
    for note in cgroups.notes:
        evidence.note("limits", note)
    return Memory(
        total_bytes=total,
        available_bytes=available,
        swap_total_bytes=evidence.take("swap_total_bytes", swap_total, "the system's swap counters"),
        swap_free_bytes=evidence.take("swap_free_bytes", swap_free, "the system's swap counters"),
        limits=cgroups.limits,
        usable_bytes=bounds[tightest],
        bandwidth_bytes_per_s=evidence.take(
            "bandwidth_bytes_per_s", None, "", "no system tells it; only described machines carry a data sheet's figure"
        ),
        sources=evidence.sources,
        notes=evidence.notes,
    )


def meminfo(text: str) -> dict[str, int]:
    """``/proc/meminfo`` as bytes by name; lines that are no number are left out."""
    numbers: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        value = natural(words[0]) if words else None
        if value is not None and value < 1 << 50:
            numbers[name.strip()] = value * (1024 if words[-1] == "kB" else 1)
    return numbers


def _total(raw: Answers, numbers: dict[str, int], sysctl: dict[str, str], evidence: Evidence) -> int:
    for value, source in (
        (numbers.get("MemTotal"), f"{MEMINFO} MemTotal"),
        (natural(sysctl.get("hw.memsize")), "sysctl hw.memsize"),
        (raw.fact("memory.physical_bytes"), "sysconf(SC_PHYS_PAGES)"),
    ):
        if value:
            return evidence.sure("total_bytes", value, source)
    evidence.note("total_bytes", "nothing tells how much RAM there is: counted as none, so that nothing is promised")
    return evidence.sure("total_bytes", 0, "nothing readable")


def _available(raw: Answers, numbers: dict[str, int], total: int, evidence: Evidence) -> int:
    if (value := numbers.get("MemAvailable")) is not None:
        return evidence.sure("available_bytes", value, f"{MEMINFO} MemAvailable")
    if "MemFree" in numbers:
        # What procps does on kernels without MemAvailable (before 3.14, WSL 1): shared memory is no cache to give back.
        cache = numbers.get("Cached", 0) + numbers.get("SReclaimable", 0) - numbers.get("Shmem", 0)
        value = numbers["MemFree"] + numbers.get("Buffers", 0) + max(0, cache)
        return evidence.sure(
            "available_bytes", value, f"{MEMINFO} MemFree + Buffers + Cached, for want of MemAvailable"
        )
    if (value := _vm_stat(raw)) is not None:
        return evidence.sure("available_bytes", value, "vm_stat: free + file-backed + purgeable pages")
    evidence.note("available_bytes", "unknown: counted as half of the total")
    return evidence.sure("available_bytes", total // 2, "half of the total, for want of anything better")


def _vm_stat(raw: Answers) -> int | None:
    """Available bytes on macOS: free, file-backed and purgeable pages; the rest is what Activity Monitor calls used.

    Inactive pages are not counted: most hold programs' memory, which macOS could only compress, not give away.
    """
    program = raw.programs.get("vm_stat")
    page = _PAGE.search(program.stdout) if program else None
    if program is None or page is None:
        return None
    pages: dict[str, int] = {}
    for line in program.stdout.splitlines():
        name, _, rest = line.partition(":")
        value = natural(rest.strip().rstrip("."))
        if value is not None:
            pages[name.strip()] = value
    names = ("Pages free", "File-backed pages", "Pages purgeable")
    if "Pages free" not in pages:
        return None
    size = natural(page[1]) or 0
    return sum(pages.get(name, 0) for name in names) * size or None


def _swap(numbers: dict[str, int], sysctl: dict[str, str]) -> tuple[int | None, int | None]:
    if "SwapTotal" in numbers:
        free = numbers.get("SwapFree")
        return numbers["SwapTotal"], None if free is None else min(free, numbers["SwapTotal"])
    usage = dict(re.findall(r"(total|free) = ([\d.]+)M", sysctl.get("vm.swapusage", "")))
    return _mebibytes(usage.get("total")), _mebibytes(usage.get("free"))


def _mebibytes(text: str | None) -> int | None:
    try:
        value = float(text) if text is not None and len(text) < 24 else None
    except ValueError:
        return None
    return None if value is None else int(value * (1 << 20))


def _address_space(raw: Answers) -> int | None:
    """The soft ``RLIMIT_AS``; weights that are mapped count against it as well."""
    for line in raw.files.get(LIMITS, "").splitlines():
        if line.startswith("Max address space"):
            return natural(line.removeprefix("Max address space").split()[0]) if len(line.split()) > 3 else None
    return None
