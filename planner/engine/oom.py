"""Whether the kernel's OOM killer struck: the difference between "killed" and "out of memory".

A signal 9 looks the same whoever sent it, and "killed" makes people look for a culprit where there is none. Linux
counts its OOM kills per control group (cgroup v2 ``memory.events``; v1 ``memory.oom_control``, or ``memory.failcnt``
on kernels before 4.13) and for the whole system (``/proc/vmstat``). The group of the child decides where it can be
read, since a neighbour container's kill shows in the system's count too.
"""

from pathlib import Path

from planner.types import Record

__all__ = ["OomKills", "count_oom_kills"]


class OomKills(Record, frozen=True, kw_only=True):
    """Counters at one moment: by file for the groups of a process, and of the whole system (``None``: not told)."""

    groups: dict[str, int] = {}
    system: int | None = None

    def grew_since(self, earlier: "OomKills") -> bool:
        """Whether an OOM kill that can concern the process was counted after ``earlier``."""
        shared = self.groups.keys() & earlier.groups.keys()
        if shared:
            return any(self.groups[name] > earlier.groups[name] for name in shared)
        return self.system is not None and earlier.system is not None and self.system > earlier.system


def count_oom_kills(pid: int, *, proc: Path = Path("/proc")) -> OomKills:
    """The counters that concern process ``pid``, a zombie included; empty where there is no ``/proc``."""
    groups = {}
    for folder, names in _memory_groups(pid, proc):
        for name in names:
            count = _counter(folder / name, "oom_kill")
            if count is not None:
                groups[str(folder / name)] = count
                break
    return OomKills(groups=groups, system=_counter(proc / "vmstat", "oom_kill"))


def _memory_groups(pid: int, proc: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """Folders of the memory control groups of ``pid``, each with the counters to try there, best first."""
    mounts = _mounts(proc)
    found: list[tuple[Path, tuple[str, ...]]] = []
    for line in _text(proc / str(pid) / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" and "cgroup2" in mounts:
            found.append((_folder(mounts["cgroup2"], path), ("memory.events",)))
        elif "memory" in controllers.split(",") and "cgroup" in mounts:
            found.append((_folder(mounts["cgroup"], path), ("memory.oom_control", "memory.failcnt")))
    return found


def _mounts(proc: Path) -> dict[str, tuple[Path, str]]:
    """Mount point and mounted root of ``cgroup2`` and of the v1 memory controller (``cgroup``)."""
    mounts: dict[str, tuple[Path, str]] = {}
    for line in _text(proc / "self" / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, system = before.split(" "), after.split(" ")
        kind = system[0]
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in system[-1].split(",")):
            mounts.setdefault(kind, (Path(fields[4]), fields[3]))
    return mounts


def _folder(mount: tuple[Path, str], path: str) -> Path:
    """Where the group ``path`` stands below its mount; a container sees only the part below the mounted root."""
    point, root = mount
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return point / path.lstrip("/")


def _counter(file: Path, name: str) -> int | None:
    """The number after ``name`` in a file of ``name value`` lines, or the only number of the file."""
    for line in _text(file).splitlines():
        words = line.split()
        if words[:1] == [name] or len(words) == 1:
            return int(words[-1])
    return None


def _text(file: Path) -> str:
    """The file's text; empty where it is missing or closed to us."""
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""
