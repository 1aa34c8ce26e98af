"""The published loads asked of the engine of their own time: llama-cpp-python 0.3.21 (llama.cpp f535774, April 2026).

The claim: what differs between a log and the planner's answer is the build, not the phantom devices. Most published
logs are of builds from March to May 2026, so an engine of that time must give their compute buffers to the rounding.
Refuted where fewer than half of all records with compute lines agree within 0.1 % in every buffer, on every device.

``--site`` is a folder with that version's ``llama_cpp`` package and its libraries (build the sdist; the CPU build
is enough). The planner does not support so old a binding: ``--worker`` is the worker of its own commit 37457a8,
whose CUDA rules are those of that time (later ones keep memory for joined operations and for attention's scratch, as
CUDA does since mid 2026). It runs here, in this process, with the load mode spelt as it was then.

    git archive 37457a8 planner/engine/worker | tar x -C DIR
    python bench/memory_logs_older.py --site SITE --worker DIR/planner/engine/worker [--output FILE]
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from memory_logs_answers import Pair, by_device, side_by_side, told_by_device
from memory_logs_models import File, Models, UnknownModelError
from memory_logs_questions import NotAskedError, Question, question
from memory_logs_records import Log, read_logs, read_told

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.engine.phantom import write_phantom

_EXACT = 0.001
_COMPUTE = re.compile(r"(\S+) compute buffer size = +([\d.]+) MiB")
_MIB = 1 << 20
_TYPES_THEN = 40


class Case(NamedTuple):
    """A record with its file and its question."""

    log: Log
    file: File
    asked: Question


def cases() -> list[Case]:
    """All records with compute lines that can be asked; the types of their files come from the engine here."""
    told, found = read_told(), []
    with EngineChild() as child, Oracle(child, devices=()) as oracle:
        models = Models(catalogue.load(), told, oracle)
        for log in read_logs():
            try:
                case = Case(log, models.file(log), question(log, told.of(log)))
            except (UnknownModelError, NotAskedError):
                continue
            if log.compute_buffers and case.asked.devices:
                found.append(case)
    return found


def older_engine(site: Path, worker: Path) -> Any:  # noqa: ANN401 - the worker's engine wraps an untyped binding
    """The engine of ``site``, through the worker's own files."""
    sys.path[:0] = [str(worker), str(site)]
    import tensors  # noqa: PLC0415 - only now on the path
    from llama import engine  # noqa: PLC0415

    tensors._TYPES = min(tensors._TYPES, _TYPES_THEN)  # noqa: SLF001
    eng = engine()
    current = eng.model_params

    def params(*arguments: object, **named: object) -> object:
        made = current(*arguments, **named)
        made.use_mmap = made.use_direct_io = False  # load_mode = none, as it was spelt then
        return made

    eng.model_params = params
    return eng


def answers(eng: Any, todo: list[Case]) -> Iterator[tuple[Case, list[Pair]]]:  # noqa: ANN401
    """Each case with its compute buffers beside the log's; what this engine refuses is left out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phantom.gguf"
        for case in todo:
            write_phantom(path, case.file.layout)
            # The worker of that commit let integrated chips read host buffers, which CUDA, ROCm and Vulkan do not.
            devices = [{**device, "integrated": False} for device in msgspec.to_builtins(case.asked.devices)]
            try:
                model = eng.load_model(str(path), case.asked.settings, no_alloc=True, devices=devices)
                eng.take_lines()
                context = eng.make_context(model, case.asked.settings)
            except Exception as refusal:  # noqa: BLE001 - the worker's own exception is not importable before
                print(f"{case.log.id} refused: {refusal}")
                continue
            lines = eng.take_lines()
            eng.api.llama_free(context)
            eng.api.llama_model_free(model)
            sizes = {found[1]: round(float(found[2]) * _MIB) for line in lines if (found := _COMPUTE.search(line))}
            told = told_by_device(case.log.compute_buffers or {}, case.asked)
            yield case, list(side_by_side("compute", told, by_device(sizes, case.asked)))


def main() -> int:
    """Ask, print what differs, keep the result; 1 when the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path, required=True, help="folder with the older llama_cpp package")
    parser.add_argument("--worker", type=Path, required=True, help="folder of the worker's files at commit 37457a8")
    parser.add_argument("--output", type=Path, help="keep the result in this file")
    options = parser.parse_args()
    todo = cases()
    eng = older_engine(options.site, options.worker)
    rows = []
    for case, found in answers(eng, todo):
        exact = all(each.within(_EXACT) for each in found)
        rows.append(
            {"id": case.log.id, "build": case.log.build, "exact": exact, "buffers": [each[1:] for each in found]}
        )
        if not exact:
            print(case.log.id, case.log.build, *(f"{each.device} {each.told:.2f}/{each.found:.2f}" for each in found))
    exact = sum(bool(row["exact"]) for row in rows)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "engine": {"package_version": eng.package_version, "llama_cpp": "f535774"},
        "records": len(rows),
        "every_buffer_within_0.1_percent": exact,
        "rows": rows,
    }
    if options.output:
        text = json.dumps(result, separators=(",", ":")).replace('{"id"', '\n{"id"')
        options.output.write_text(text + "\n", encoding="utf-8")
    print(f"{exact} of {len(rows)} records agree within 0.1 % in every compute buffer")
    return 0 if 2 * exact >= len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
