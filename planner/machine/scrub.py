"""Removes whoever owns a machine from its capture; prevents a bug report from carrying names, serials and addresses.

Names are replaced in the keys of a capture as well as in the texts, always by the same stand-in, so that a path read
from one answer still finds the file recorded under it.
"""

import re
from typing import TYPE_CHECKING

import msgspec

from planner.machine.answers import Answers, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["scrub"]

_HOMES = re.compile(r"/(home|Users)/[^/\s:\"']+")
_UUID = re.compile(r"\b[0-9a-fA-F]{8}[-_][0-9a-fA-F]{4}[-_][0-9a-fA-F]{4}[-_][0-9a-fA-F]{4}[-_][0-9a-fA-F]{12}\b")
_LONG_ID = re.compile(r"(?<![0-9a-zA-Z])[0-9a-f]{32}(?:[0-9a-f]{32})?(?![0-9a-zA-Z])")
_MAC = re.compile(r"\b(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b")
_SERIAL_LINE = re.compile(r"(?im)^(\s*\"?[^:\n]*(?:serial|uuid|udid)[^:\n]*:)[^\n]*$")
_KEEP_WORDS = frozenset({"root", "user", "users", "system", "machine", "localhost", "docker", "container"})
_PERSONAL = re.compile(r"^(/proc/self/|/sys/fs/cgroup|/sys/class/power_supply)")
"""Where host and user names may turn up; a user called ``amd`` must not change ``/proc/cpuinfo``."""


class _StandIns:
    """Numbers identifiers in the order in which they turn up."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, match: re.Match[str]) -> str:
        return self._known.setdefault(match[0], f"id{len(self._known) + 1}")


def scrub(answers: Answers, private_words: "Sequence[str]") -> Answers:
    """The same answers without host and user names, home folders, serial numbers, UUIDs and hardware addresses."""
    stand_ins = _StandIns()
    words = [word for word in private_words if len(word) > 1 and word.lower() not in _KEEP_WORDS]
    names = (
        re.compile(r"(?<![0-9A-Za-z])(?:" + "|".join(map(re.escape, words)) + r")(?![0-9A-Za-z])") if words else None
    )

    def plain(text: str) -> str:
        text = _HOMES.sub(r"/\1/user", text)
        return _MAC.sub("mac", _LONG_ID.sub(stand_ins, _UUID.sub(stand_ins, text)))

    def personal(text: str) -> str:
        return names.sub("name", plain(text)) if names is not None else plain(text)

    def cleaner(key: str) -> "Callable[[str], str]":
        return personal if _PERSONAL.match(key) or not key.startswith("/") else plain

    return Answers(
        files={cleaner(key)(key): _without_serials(cleaner(key)(text)) for key, text in answers.files.items()},
        listings={cleaner(k)(k): tuple(cleaner(k)(name) for name in names_) for k, names_ in answers.listings.items()},
        programs={key: _program(program) for key, program in answers.programs.items()},
        facts={
            key: personal(value) if isinstance(value, str) and key == "disk.path" else value
            for key, value in answers.facts.items()
        },
        failures={cleaner(key)(key): personal(text) for key, text in answers.failures.items()},
    )


def _program(program: Program) -> Program:
    text = _MAC.sub("mac", _UUID.sub("uuid", _HOMES.sub(r"/\1/user", program.stdout)))
    return msgspec.structs.replace(program, stdout=_without_serials(text))


def _without_serials(text: str) -> str:
    """Empty the value of every line whose name speaks of a serial number or UUID, JSON members included."""
    return _SERIAL_LINE.sub(_emptied, text)


def _emptied(match: re.Match[str]) -> str:
    if '"' not in match[1]:
        return match[1]
    return f'{match[1]} ""{"," if match[0].rstrip().endswith(",") else ""}'
