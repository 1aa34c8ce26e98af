"""Raw answers of a computer, untouched, and the recorder that asks for them; prevents detection nobody can replay.

Everything that any ``collect`` learns goes through :class:`Recorder` into one :class:`Answers`; everything that any
``interpret`` knows comes from it. So a saved capture is a bug report, a test, and a machine to plan for, at once.
"""

from typing import TYPE_CHECKING

from planner.types import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from planner.machine.host import Host

__all__ = ["Answers", "Capture", "Program", "Recorder", "natural"]

_LARGEST = (1 << 63) - 1


class Program(Report, frozen=True, kw_only=True):
    """What a program printed; ``failure`` says in words what went wrong, ``None`` when nothing did."""

    stdout: str
    failure: str | None = None


class Answers(Report, frozen=True, kw_only=True):
    """Texts of files, folders' contents, programs' outputs and a few system facts, each under its own name.

    What was not there is simply absent; what was there and could not be read stands in ``failures``.
    """

    files: dict[str, str] = {}
    listings: dict[str, tuple[str, ...]] = {}
    programs: dict[str, Program] = {}
    facts: dict[str, str | int] = {}
    failures: dict[str, str] = {}

    def text(self, path: str) -> str | None:
        """The text of a file without surrounding blanks and NUL bytes; ``None`` when absent or empty."""
        value = self.files.get(path)
        return (value.replace("\0", " ").strip() or None) if value is not None else None

    def number(self, path: str) -> int | None:
        """The natural number that a file holds; ``None`` when it holds anything else."""
        return natural(self.files.get(path))

    def folder(self, path: str) -> tuple[str, ...]:
        """Names inside a folder; empty when it was not there."""
        return self.listings.get(path, ())

    def fact(self, name: str) -> int | None:
        """A system fact that is a natural number."""
        value = self.facts.get(name)
        return value if isinstance(value, int) and value >= 0 else None

    def word(self, name: str) -> str | None:
        """A system fact that is a text."""
        value = self.facts.get(name)
        return value if isinstance(value, str) and value else None


class Capture(Report, frozen=True, kw_only=True):
    """One recorded machine: raw answers, scrubbed of whoever owns it."""

    schema: str = "planner/capture/1"
    name: str | None = None
    source: str
    answers: Answers


class Recorder:
    """Asks a host and writes down every answer; each question is asked once."""

    def __init__(self, host: "Host") -> None:
        self.host = host
        self._files: dict[str, str] = {}
        self._listings: dict[str, tuple[str, ...]] = {}
        self._programs: dict[str, Program] = {}
        self._facts: dict[str, str | int] = {}
        self._failures: dict[str, str] = {}

    def file(self, path: str) -> str | None:
        """Read a file and record it; ``None`` when it is absent or unreadable."""
        if path in self._files:
            return self._files[path]
        try:
            text = self.host.read(path)
        except OSError as error:
            self._fail(path, error)
            return None
        self._files[path] = text
        return text

    def lines(self, path: str, keep: "Sequence[str]") -> str | None:
        """Record only the lines of a file that contain one of ``keep`` (the rest would be personal or huge)."""
        return self.excerpt(
            path,
            lambda text: "".join(row for row in text.splitlines(keepends=True) if any(word in row for word in keep)),
        )

    def excerpt(self, path: str, choose: "Callable[[str], str]") -> str | None:
        """Record what ``choose`` keeps of a file's text."""
        try:
            text = choose(self.host.read(path))
        except OSError as error:
            self._fail(path, error)
            return None
        self._files[path] = text
        return text

    def listing(self, path: str) -> tuple[str, ...]:
        """Names inside a folder, sorted; empty when it is absent."""
        if path not in self._listings:
            try:
                self._listings[path] = self.host.listdir(path)
            except OSError as error:
                self._fail(path, error)
                return ()
        return self._listings[path]

    def program(self, name: str, argv: "Sequence[str]") -> Program:
        """Run a program with the host's deadline and record what it printed under ``name``."""
        answer = self.host.run(argv)
        self._programs[name] = answer
        return answer

    def fact(self, name: str, value: str | int | None) -> None:
        """Record a system fact; unknown ones are left out."""
        if value is not None:
            self._facts[name] = value

    def fail(self, name: str, reason: str) -> None:
        """Record that a question could not be asked."""
        self._failures[name] = reason

    def answers(self) -> Answers:
        """Everything recorded so far."""
        return Answers(
            files=dict(self._files),
            listings=dict(self._listings),
            programs=dict(self._programs),
            facts=dict(self._facts),
            failures=dict(self._failures),
        )

    def _fail(self, path: str, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            self._failures[path] = error.strerror or type(error).__name__


def natural(text: str | None) -> int | None:
    """A natural number below 2^63 from text, decimal or ``0x…``; ``None`` for anything else."""
    if text is None or len(text) > 64:
        return None
    try:
        value = int(text.strip(), 16 if text.strip()[:2].lower() == "0x" else 10)
    except ValueError:
        return None
    return value if 0 <= value <= _LARGEST else None
