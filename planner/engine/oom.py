"""Whether the kernel's OOM killer struck: the difference between "killed" and "out of memory".

A signal 9 looks the same whoever sent it, and "killed" makes people look for a culprit where there is none. Linux
counts its OOM kills per control group (cgroup v2 ``memory.events``; v1 ``memory.oom_control``, or ``memory.failcnt``
on kernels before 4.13) and for the whole system (``/proc/vmstat``). The group of the child decides where it can be
read, since a neighbour container's kill shows in the system's count too.
"""

from pathlib import Path

__all__ = ["OomWatch"]


class OomWatch:
    """The counters that concern process ``pid``, as they stood when the watch began.

    The files are found while the process lives: under cgroup v1 a zombie is shown in the root group. Where there is
    no ``/proc`` nothing is counted, and nothing is claimed.
    """

    def __init__(self, pid: int, *, proc: Path = Path("/proc")) -> None:
        self._groups = {}
        for folder, names in _memory_groups(pid, proc):
            counts = ((folder / file, line, _counter(folder / file, line)) for file, line in names)
            for file, line, count in counts:
                if count is not None:
                    self._groups[file, line] = count
                    break
        self._system_file = proc / "vmstat"
        self._system = _counter(self._system_file, "oom_kill")

    @property
    def knows_the_group(self) -> bool:
        """Whether the process's own group is watched, and not only the whole system."""
        return bool(self._groups)

    def struck(self) -> bool:
        """Whether an OOM kill that can concern the process was counted since the watch began."""
        if self._groups:
            return any((_counter(file, line) or 0) > count for (file, line), count in self._groups.items())
        return self._system is not None and (_counter(self._system_file, "oom_kill") or 0) > self._system


def _memory_groups(pid: int, proc: Path) -> list[tuple[Path, tuple[tuple[str, str], ...]]]:
    """Folders of the memory control groups of ``pid``, each with the counters (file, line) to try, best first."""
    mounts = _mounts(proc)
    found: list[tuple[Path, tuple[tuple[str, str], ...]]] = []
    for line in _text(proc / str(pid) / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" and "cgroup2" in mounts:
            found.append((_folder(mounts["cgroup2"], path), (("memory.events", "oom_kill"),)))
        elif "memory" in controllers.split(",") and "cgroup" in mounts:
            names = (("memory.oom_control", "oom_kill"), ("memory.failcnt", ""))
            found.append((_folder(mounts["cgroup"], path), names))
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
    """The number on the line ``name`` of a file, or of a file with nothing but a number (``name`` is empty)."""
    for line in _text(file).splitlines():
        *names, value = line.split() or [""]
        if names == name.split() and value.isdecimal():
            return int(value)
    return None


def _text(file: Path) -> str:
    """The file's text; empty where it is missing or closed to us."""
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""
