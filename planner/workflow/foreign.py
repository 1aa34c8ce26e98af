"""What other programs measure: their executables run here, their outputs read, and both laid beside one's own.

The mistake it prevents is a number of unknown origin that ends up in a plan: an import is kept apart, is shown as what
it is, and calibrates nothing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from planner import machine
from planner.engine.phantom import write_phantom
from planner.errors import BadInputError, MissingInputError, UsageError
from planner.files import phantom_folder
from planner.measure.bench import RANDOM_FOR_ROUTING
from planner.measure.difference import Difference, differences
from planner.measure.imports import ImportStore, same_model
from planner.measure.llama_bench_import import read_rows
from planner.measure.llama_bench_run import LlamaBench, measure_with_llama_bench
from planner.measure.lock import measurement_lock
from planner.measure.session import question
from planner.measure.store import MeasurementStore, kept_measurements
from planner.measure.suite import Subject, default_tests
from planner.types.imported import Imported, ImportedRow, Kept
from planner.types.measurement import Measurement, Test
from planner.types.settings import Settings
from planner.workflow.session import Session, models_folder
from planner.workflow.timing import Progress

__all__ = ["against", "elsewhere", "import_file", "kept", "read_measurement", "run_llama_bench"]

_MOST_BYTES = 64 << 20
_WAIT_S = 5.0


def kept() -> Kept:
    """All measurements and imports in the cache; a damaged file is named in ``notes``."""
    notes: list[str] = []
    return Kept(
        machine_key=machine.machine_key(machine.detect(models_dir=models_folder())),
        measurements=kept_measurements(warn=notes.append),
        imported=ImportStore(warn=notes.append).all(),
        notes=tuple(notes),
    )


def import_file(path: Path) -> Imported:
    """Read llama-bench's output at ``path`` and keep it; nothing of a file that is wrong is kept.

    Raises :class:`MissingInputError` and :class:`BadInputError`, the latter naming row and column.
    """
    data = _read(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: byte {error.start} is no UTF-8", hint="save it as UTF-8") from error
    kind, rows = read_rows(text, str(path))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    imported = Imported(source=path.name, format=kind, imported_at=now, rows=rows)
    ImportStore().keep(imported)
    return imported


def elsewhere(measurement: Measurement) -> tuple[ImportedRow, ...]:
    """The imported rows of the same model and the same tests as a measurement."""
    tests = {msgspec.structs.replace(result.test, threads=None) for result in measurement.results}
    return tuple(
        row
        for imported in ImportStore().all()
        for row in imported.rows
        if row.test in tests and same_model(row, measurement.described)
    )


def read_measurement(path: Path) -> Measurement:
    """A measurement that ``planner measure --json`` wrote; raises :class:`BadInputError` for anything else."""
    try:
        return msgspec.json.decode(_read(path), type=Measurement)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInputError(
            f"{path}: no measurement: {error}", hint="give what planner measure --json wrote"
        ) from error


def against(measurement: Measurement, before: Measurement, name: str) -> Measurement:
    """The measurement with a note for each test on whether it differs from the one ``before``, called ``name``."""
    found = differences(before, measurement)
    told = [_sentence(each, name) for each in found] or [f"no test of {name} was timed here as well"]
    return msgspec.structs.replace(measurement, notes=(*measurement.notes, *told))


def _sentence(each: Difference, name: str) -> str:
    label = "" if each.test is None else each.test.label
    change = f"{abs(each.speed_ratio - 1):.1%} {'faster' if each.speed_ratio > 1 else 'slower'} than in {name}"
    if each.why_not:
        return f"{label}: {change}, no claim: {each.why_not}"
    limits = f"{each.probability:.1%} by chance, {each.least:.0%} at least"
    return f"{label}: {change}: {'a difference' if each.claimed else 'no difference'} ({limits})"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise MissingInputError(f"{path} cannot be read: {error.strerror}", hint="name a file that is there") from error
    if len(data) > _MOST_BYTES:
        raise BadInputError(f"{path} is larger than {_MOST_BYTES >> 20} MiB", hint="split it")
    return data


def run_llama_bench(
    session: Session,
    program: LlamaBench,
    subject: Subject,
    settings: Settings,
    tests: Sequence[Test],
    *,
    budget_s: float,
    effort: Literal["quick", "full"],
    progress: Progress | None,
) -> Measurement:
    """Time a model with somebody's own llama-bench: its file, or a phantom of it on this disk.

    Raises :class:`UsageError` for several sequences, which llama-bench cannot decode together, and what
    :func:`planner.measure.llama_bench_run.measure_with_llama_bench` raises.
    """
    if any(test.sequences > 1 for test in tests):
        raise UsageError("llama-bench decodes one sequence at a time", hint="leave out --parallel or --engine")

    def told(stage: str, done: float, total: float) -> None:
        if progress is not None:
            progress("measure", done, total, f"{subject.model} {subject.quantization}: {stage}")

    wanted = tests or default_tests(settings.context_tokens, quick=True)
    whole = subject.whole()
    with measurement_lock(wait_s=_WAIT_S), phantom_folder() as folder:
        file = subject.file
        if file is None:
            file = Path(folder) / "phantom.gguf"
            gpu = session.oracle.has_gpu
            routed = any("ffn_gate_inp" in tensor.name for tensor in whole.tensors)
            # As the planner's own phantoms: random routers, and random blocks throughout for a GPU.
            seed, only = (1 if routed or gpu else None), (() if gpu else RANDOM_FOR_ROUTING)
            write_phantom(file, whole, random_seed=seed, random_only=only)
        measured = measure_with_llama_bench(
            program,
            file,
            settings,
            wanted,
            model=subject.model,
            quantization=subject.quantization,
            machine_key=machine.machine_key(session.machine),
            layers=len(whole.layers),
            contents="phantom" if subject.file is None else "file",
            budget_s=budget_s,
            effort=effort,
            progress=told,
        )
    store = MeasurementStore(measured.machine_key, program.build)
    store.keep(question(subject, settings, wanted, whole_tests=True), measured, effort=effort)
    return measured
