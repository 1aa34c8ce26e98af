"""Room where models go; the path that is shown never names a user."""

from pathlib import Path

from planner.machine.answers import Answers, Recorder
from planner.machine.evidence import Evidence
from planner.types.machine import Disk

__all__ = ["collect", "interpret"]


def collect(ask: Recorder, models_dir: Path) -> None:
    """Ask the file system that holds ``models_dir`` (or will, once it is made) for its room."""
    home = ask.host.home()
    shown = str(models_dir)
    if home is not None and home != Path("/") and models_dir.is_relative_to(home):
        shown = str(Path("~") / models_dir.relative_to(home))
    ask.fact("disk.path", shown)
    room = ask.host.space(models_dir)
    if room is not None:
        ask.fact("disk.total_bytes", room.total_bytes)
        ask.fact("disk.free_bytes", room.free_bytes)


def interpret(raw: Answers) -> Disk | None:
    """The file system where models go; ``None`` when nobody asked."""
    path = raw.word("disk.path")
    if path is None:
        return None
    evidence = Evidence()
    total, free = raw.fact("disk.total_bytes"), raw.fact("disk.free_bytes")
    if total is not None and free is not None and free > total:
        free = total
    return Disk(
        path=evidence.sure("path", path, "the folder for models"),
        total_bytes=evidence.take("total_bytes", total, "statvfs", "the file system did not answer"),
        free_bytes=evidence.take(
            "free_bytes", free, "statvfs, what an ordinary user may fill", "the file system did not answer"
        ),
        sources=evidence.sources,
        notes=evidence.notes,
    )
