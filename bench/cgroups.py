"""Runs a program under a real memory and CPU limit: a cgroup (v2, or v1 as here) made for it and removed after.

Needs the right to make groups (root, or a delegated group). Raises ``CannotLimitError`` where that is not given, so
that a bench says "unchecked" instead of passing without a limit.
"""

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["CannotLimitError", "Limited", "limited"]

ROOT = Path("/sys/fs/cgroup")
_numbers = itertools.count()


class CannotLimitError(Exception):
    """No cgroup can be made here; the message says why."""


class Limited:
    """A group of processes with limits; ``run`` starts programs in it."""

    def __init__(self, folders: list[Path], version: int) -> None:
        self._folders = folders
        self._version = version

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` inside the limits and wait for it; a kill shows as a negative return code or in `oom_kills`."""
        # A shell moves itself into the groups and becomes the program: no moment outside, no child left out.
        joins = " && ".join(f'echo $$ > "{folder}/cgroup.procs"' for folder in self._folders)
        return subprocess.run(
            ["/bin/sh", "-c", f'{joins} && exec "$@"', "sh", *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    @property
    def oom_kills(self) -> int:
        """How many processes the kernel has killed in this group for want of memory."""
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        words = (self._folders[0] / name).read_text().split()
        return int(words[words.index("oom_kill") + 1])

    @property
    def peak_bytes(self) -> int:
        """Highest memory use of the group, file cache included."""
        name = "memory.peak" if self._version == 2 else "memory.max_usage_in_bytes"
        return int((self._folders[0] / name).read_text())


@contextlib.contextmanager
def limited(memory_bytes: int, cpus: float) -> Iterator[Limited]:
    """A group that may use ``memory_bytes`` of memory (no swap beyond it) and ``cpus`` of processor time."""
    folders: list[Path] = []
    try:
        version = 2 if (ROOT / "cgroup.controllers").exists() else 1
        name = f"bench-{os.getpid()}-{next(_numbers)}"
        folders = _make_v2(name, memory_bytes, cpus) if version == 2 else _make_v1(name, memory_bytes, cpus)
        yield Limited(folders, version)
    except OSError as error:
        raise CannotLimitError(f"cannot make a cgroup: {error}") from error
    finally:
        for folder in folders:
            _remove(folder)


def _make_v1(name: str, memory_bytes: int, cpus: float) -> list[Path]:
    own = {
        controller: path
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        for controllers, path in [line.split(":", 2)[1:]]
        for controller in controllers.split(",")
    }
    memory = ROOT / "memory" / own["memory"].lstrip("/") / name
    cpu = ROOT / "cpu" / own["cpu"].lstrip("/") / name
    memory.mkdir()
    (memory / "memory.limit_in_bytes").write_text(str(memory_bytes))
    cpu.mkdir()
    (cpu / "cpu.cfs_quota_us").write_text(str(int(cpus * 100_000)))
    return [memory, cpu]


def _make_v2(name: str, memory_bytes: int, cpus: float) -> list[Path]:
    own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    folder = ROOT / own[3:].lstrip("/") / name
    folder.mkdir()
    (folder / "memory.max").write_text(str(memory_bytes))
    (folder / "memory.swap.max").write_text("0")
    (folder / "cpu.max").write_text(f"{int(cpus * 100_000)} 100000")
    return [folder]


def _remove(folder: Path) -> None:
    """Remove a group; its last process may take a moment to be gone."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.1)
