"""Limits of control groups above this process: memory and CPU quota; v1, v2, hybrid, nested, behind namespaces.

The mistakes it prevents: reading only ``/sys/fs/cgroup/memory.max`` (the limit may sit in any ancestor, or in the
middle of a host-wide tree), and counting file cache as used (the kernel gives inactive file pages back first). Sources:
cgroups(7), the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst; the working set is kubelet's.
"""

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from planner.machine.answers import Answers, Recorder, natural
from planner.types.machine import CgroupLimit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["CGROUP", "MOUNTS", "Cgroups", "Group", "collect", "groups", "interpret"]

CGROUP = "/proc/self/cgroup"
MOUNTS = "/proc/self/mountinfo"
Version = Literal["v1", "v2"]
_MEMORY_FILES: "dict[Version, tuple[str, ...]]" = {
    "v1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
    "v2": ("memory.max", "memory.high", "memory.current", "memory.stat"),
}
_CPU_FILES: "dict[Version, tuple[str, ...]]" = {"v1": ("cpu.cfs_quota_us", "cpu.cfs_period_us"), "v2": ("cpu.max",)}
_NO_LIMIT = 1 << 60
"""v1 writes "no limit" as the largest multiple of the page size below 2^63; nothing real is an exbibyte."""


class Mount(NamedTuple):
    """One mounted hierarchy: which controllers, which part of it (``root``) and where (``point``)."""

    version: Version
    controllers: frozenset[str]
    root: str
    point: str


class Group(NamedTuple):
    """One control group above (or of) this process, by the folder where its files are."""

    version: Version
    folder: str


class Cgroups(NamedTuple):
    """What the control groups allow."""

    limits: tuple[CgroupLimit, ...]
    quota_cpus: float | None
    quota_source: str
    notes: tuple[str, ...]


def collect(ask: Recorder) -> None:
    """Read the membership, the mounts, and the limit files of every ancestor that is visible."""
    ask.file(CGROUP)
    ask.lines(MOUNTS, (" - cgroup ", " - cgroup2 "))
    raw = ask.answers()
    for controller, files in (("memory", _MEMORY_FILES), ("cpu", _CPU_FILES)):
        for group in groups(raw, controller):
            for name in files[group.version]:
                ask.file(f"{group.folder}/{name}")


def interpret(raw: Answers) -> Cgroups:
    """Every finite memory limit and the smallest CPU quota along the ancestry."""
    notes: list[str] = []
    limits = tuple(limit for group in groups(raw, "memory") if (limit := _limit(raw, group, notes)) is not None)
    quotas = [(quota, group.folder) for group in groups(raw, "cpu") if (quota := _quota(raw, group, notes)) is not None]
    quota, folder = min(quotas, default=(None, ""))
    if _hidden(raw):
        notes.append("this process sits at the root of a cgroup namespace: limits set above it cannot be seen")
    return Cgroups(limits, quota, f"CPU quota of {folder}" if folder else "", tuple(notes))


def groups(raw: Answers, controller: str) -> tuple[Group, ...]:
    """Folders of this process's control group and all its visible ancestors, innermost first.

    The path of ``/proc/self/cgroup`` counts from the hierarchy's (or namespace's) root, a mount may show only a part
    of the hierarchy: the part is cut off the path. When the mount list is hidden the usual places are tried.
    """
    found: dict[str, Group] = {}
    for version, path in _memberships(raw.files.get(CGROUP, ""), controller):
        mounts = [mount for mount in _mounts(raw.files.get(MOUNTS, "")) if _serves(mount, version, controller)]
        for mount in _best(mounts, path) or [_usual(version, controller)]:
            for folder in _ancestry(mount, path):
                found.setdefault(folder, Group(version, folder))
    return tuple(found.values())


def _memberships(text: str, controller: str) -> "Iterator[tuple[Version, str]]":
    """(version, path) for each line of ``/proc/self/cgroup`` that concerns the controller."""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        if number == "0" and not names:
            yield "v2", path
        elif controller in names.split(","):
            yield "v1", path


def _mounts(text: str) -> "Iterator[Mount]":
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if not separator or len(left) < 5 or len(right) < 3:
            continue
        version: Version = "v2" if right[0] == "cgroup2" else "v1"
        yield Mount(version, frozenset(right[2].split(",")), _unescape(left[3]), _unescape(left[4]).rstrip("/"))


def _serves(mount: Mount, version: Version, controller: str) -> bool:
    return mount.version == version and (version == "v2" or controller in mount.controllers)


def _best(mounts: "list[Mount]", path: str) -> list[Mount]:
    """The mounts that show our own ancestry; when none does, the first, whose top is then all we can see."""
    return [mount for mount in mounts if _below(mount.root, path)] or mounts[:1]


def _below(root: str, path: str) -> bool:
    return root in ("/", path) or path.startswith(f"{root}/")


def _usual(version: Version, controller: str) -> Mount:
    point = "/sys/fs/cgroup" if version == "v2" else f"/sys/fs/cgroup/{controller}"
    return Mount(version, frozenset({controller}), "/", point)


def _ancestry(mount: Mount, path: str) -> "Iterator[str]":
    """Folders from our own group up to the mount point."""
    inside = path.removeprefix(mount.root) if mount.root != "/" else path
    parts = [part for part in inside.split("/") if part] if _below(mount.root, path) else []
    if ".." in parts:  # our group lies outside this namespace: only the top could concern us
        parts = []
    for length in range(len(parts), -1, -1):
        yield "/".join([mount.point, *parts[:length]])


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _limit(raw: Answers, group: Group, notes: list[str]) -> CgroupLimit | None:
    bounds = _bounds(raw, group, notes)
    if not bounds:
        return None
    limit = min(bounds)
    used = raw.number(f"{group.folder}/{'memory.current' if group.version == 'v2' else 'memory.usage_in_bytes'}")
    if used is None:
        notes.append(f"{group.folder}: usage unreadable, counted as nothing")
        used = 0
    key = "inactive_file" if group.version == "v2" else "total_inactive_file"
    cache = min(_stat(raw, group, key) or 0, used)
    return CgroupLimit(
        path=group.folder,
        version=group.version,
        limit_bytes=limit,
        used_bytes=used,
        available_bytes=max(0, limit - (used - cache)),
    )


def _bounds(raw: Answers, group: Group, notes: list[str]) -> list[int]:
    """Finite limits of one group: v2 ``max`` and ``high`` (above it the kernel throttles to a crawl), v1 ``limit``.

    v1's ``hierarchical_memory_limit`` also tells what ancestors allow that a bind mount hides.
    """
    names = ("memory.max", "memory.high") if group.version == "v2" else ("memory.limit_in_bytes",)
    found = [_bound(raw, f"{group.folder}/{name}", notes) for name in names]
    if group.version == "v1":
        found.append(_stat(raw, group, "hierarchical_memory_limit"))
    return [bound for bound in found if bound is not None and bound < _NO_LIMIT]


def _bound(raw: Answers, path: str, notes: list[str]) -> int | None:
    text = raw.text(path)
    if text is None or text in ("max", "-1"):
        return None
    value = natural(text)
    if value is None:
        notes.append(f"{path}: not a number, ignored")
    return value


def _stat(raw: Answers, group: Group, key: str) -> int | None:
    for line in raw.files.get(f"{group.folder}/memory.stat", "").splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return natural(value)
    return None


def _quota(raw: Answers, group: Group, notes: list[str]) -> float | None:
    """CPUs that a group may use at once: quota ÷ period; ``None`` without a quota."""
    if group.version == "v2":
        words = (raw.text(f"{group.folder}/cpu.max") or "max").split()
        pair: Iterable[str | None] = words if len(words) == 2 else (words[0], "100000")
    else:
        pair = [raw.text(f"{group.folder}/{name}") for name in _CPU_FILES["v1"]]
    quota_us, period_us = pair
    if quota_us in (None, "max", "-1"):
        return None
    quota, period = natural(quota_us), natural(period_us)
    if not quota or not period:
        notes.append(f"{group.folder}: CPU quota is not a number, ignored")
        return None
    return quota / period


def _hidden(raw: Answers) -> bool:
    """A cgroup that has a memory.max file is not the real root, yet it calls itself ``/``."""
    for version, path in _memberships(raw.files.get(CGROUP, ""), "memory"):
        if version == "v2" and path == "/":
            return any(f"{group.folder}/memory.max" in raw.files for group in groups(raw, "memory"))
    return False
