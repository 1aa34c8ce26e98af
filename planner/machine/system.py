"""Which operating system this is, and whether it is a guest of another one (WSL, a container)."""

from typing import NamedTuple

from planner.machine.answers import Answers, Recorder

__all__ = ["Platform", "collect", "interpret"]

_RELEASE_FILES = ("/etc/os-release", "/usr/lib/os-release")
_CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")


class Platform(NamedTuple):
    """The operating system in words, the kernel, the architecture, and remarks."""

    os: str
    kernel: str | None
    architecture: str
    notes: tuple[str, ...]


def collect(ask: Recorder) -> None:
    """Read ``uname`` and the distribution's name."""
    system = ask.host.system()
    ask.fact("system.sysname", system.sysname)
    ask.fact("system.release", system.release)
    ask.fact("system.machine", system.machine)
    if system.sysname == "Darwin":
        return
    for path in _RELEASE_FILES:
        if ask.lines(path, ("PRETTY_NAME=",)):
            break
    for path in _CONTAINER_MARKS:
        if ask.host.exists(path):
            ask.fact("system.container", path)


def interpret(raw: Answers, sysctl: dict[str, str]) -> Platform:
    """What runs here; unknown parts say so in words."""
    release = raw.word("system.release")
    name = raw.word("system.sysname") or "unknown"
    mac = f"macOS {sysctl.get('kern.osproductversion', '')}".strip()
    name = mac if name == "Darwin" else _pretty_name(raw) or name
    notes = []
    if release is not None and "microsoft" in release.lower():
        name += " on WSL 2" if "wsl2" in release.lower() else " on WSL"
        notes.append("Windows shares this machine: WSL sees only the memory that .wslconfig leaves it")
    if raw.word("system.container") is not None:
        notes.append("inside a container")
    if sysctl.get("sysctl.proc_translated") == "1":
        notes.append("this Python runs under Rosetta: use a native arm64 Python for the engine's full speed")
    return Platform(name, release, raw.word("system.machine") or "unknown", tuple(notes))


def _pretty_name(raw: Answers) -> str | None:
    for path in _RELEASE_FILES:
        for line in raw.files.get(path, "").splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.removeprefix("PRETTY_NAME=").strip().strip("\"'") or None
    return None
