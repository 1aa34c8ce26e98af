"""Errors that a user can act on, and the exit code each one ends with.

An outcome that was expected ("nothing fits") is a value, never an exception. What is raised here is broken input or
a failed effect; it carries the remedy in ``hint`` and is caught once, in :mod:`planner.cli`.
"""

from enum import IntEnum

__all__ = [
    "BadInputError",
    "EngineDiedError",
    "EngineError",
    "EngineMissingError",
    "ExitCode",
    "FileIOError",
    "MeasurementInvalidError",
    "MissingInputError",
    "PlannerError",
    "UnavailableError",
    "UsageError",
]


class ExitCode(IntEnum):
    """How a run of ``planner`` ends; stable, documented in ``docs/exit-codes.md``."""

    GOOD = 0
    USAGE = 2
    NOTHING_MEETS_THE_GOAL = 10
    DRIFTED = 11
    MEASUREMENT_INVALID = 12
    ENGINE_DIED = 13
    BAD_INPUT_FILE = 65
    MISSING_INPUT = 66
    UNAVAILABLE = 69
    BUG = 70
    IO = 74
    BUSY = 75
    NOT_PERMITTED = 77
    INTERRUPTED = 130


class PlannerError(Exception):
    """Something broke that the user can mend.

    ``code`` is a stable, machine-readable word (``unknown-model``); ``hint`` names the remedy in one line.
    """

    exit_code: ExitCode = ExitCode.BUG
    code: str = "bug"

    def __init__(
        self, message: str, *, hint: str = "", code: str | None = None, exit_code: ExitCode | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(PlannerError):
    """The command's words are off: an unknown model, an impossible context."""

    exit_code = ExitCode.USAGE
    code = "usage"


class BadInputError(PlannerError):
    """A file that was given cannot be understood; the message names the file and the place in it."""

    exit_code = ExitCode.BAD_INPUT_FILE
    code = "bad-input-file"


class MissingInputError(PlannerError):
    """A file that was named is not there."""

    exit_code = ExitCode.MISSING_INPUT
    code = "missing-input"


class UnavailableError(PlannerError):
    """A service or the engine cannot be reached or is not installed."""

    exit_code = ExitCode.UNAVAILABLE
    code = "unavailable"


class EngineMissingError(UnavailableError):
    """llama-cpp-python is not installed where it was looked for."""

    code = "engine-missing"


class EngineError(UnavailableError):
    """The engine lives and refused the question (a broken file, an unsupported setting)."""

    code = "engine-refused"


class EngineDiedError(PlannerError):
    """The engine's child process died; ``how`` names the way and ``last_words`` is the end of its stderr."""

    exit_code = ExitCode.ENGINE_DIED
    code = "engine-died"

    def __init__(self, message: str, *, how: str, last_words: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.how = how
        self.last_words = last_words


class MeasurementInvalidError(PlannerError):
    """A measurement was disturbed and must not be used."""

    exit_code = ExitCode.MEASUREMENT_INVALID
    code = "measurement-invalid"


class FileIOError(PlannerError):
    """A file could not be read or written: disk full, I/O error, no permission."""

    exit_code = ExitCode.IO
    code = "io"
