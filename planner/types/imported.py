"""Speeds that another program told, kept as they were told: nobody here knows under which conditions they were taken.

The mistake it prevents is a stranger's number among one's own: what was imported is a type of its own, so nothing can
take it for a measurement of this machine.
"""

from planner.types import Report
from planner.types.measurement import Described, Measurement, Origin, Test

__all__ = ["Imported", "ImportedRow", "Kept"]


class ImportedRow(Report, frozen=True, kw_only=True):
    """One row of llama-bench's: a test with the mean and deviation of tokens per second, as its output defines them.

    ``fields`` are all columns of the row as they were written, known or not; ``samples_ns`` is empty where the format
    has none (only JSON has).
    """

    test: Test
    mean_tokens_per_s: float
    deviation_tokens_per_s: float | None = None
    samples_ns: tuple[int, ...] = ()
    described: Described = Described()
    fields: dict[str, str] = {}


class Imported(Report, frozen=True, kw_only=True):
    """The rows of one file that was imported; the conditions of all of them are unknown."""

    schema: str = "planner/imported/1"
    source: str
    format: str
    imported_at: str
    origin: Origin = "published"
    rows: tuple[ImportedRow, ...]


class Kept(Report, frozen=True, kw_only=True):
    """Everything that is kept: measured with every engine build (on every machine that shares the cache), and imported.

    ``machine_key`` is this machine's.
    """

    schema: str = "planner/kept/1"
    machine_key: str
    measurements: tuple[Measurement, ...]
    imported: tuple[Imported, ...]
    notes: tuple[str, ...] = ()
