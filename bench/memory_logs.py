"""What llama.cpp said it allocated, on other people's machines, against what the planner says it would.

Four claims over the published load logs of mainline builds (2024 to 2026; CUDA, ROCm, Vulkan, Metal, CPU): weights and
cache agree within 1 % in 95 % of the records, on every device; all compute buffers of a record together agree within
10 % in 80 %; no compute buffer is above the safe bound, and a device holds more in all only where its engine held other
weights or another cache; every miss has its cause in ``data/memory_log_misses.toml``. Refuted by one share that is
lower, one compute buffer above the bound, one miss without a cause, or one cause beside a record that agrees. The
engine asked is the one installed here, with phantom devices in the place of the cards.

    python bench/memory_logs.py [--logs FILE] [--ids L0102,…] [--json] [--output bench/results/memory_logs.json]
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from memory_logs_answers import ask, pairs
from memory_logs_models import Models, UnknownModelError
from memory_logs_questions import NotAskedError, question, split_as_told
from memory_logs_records import DATA, Log, read_logs, read_told
from memory_logs_score import EXACT, LINE, Cause, Row, faults, judge, misses, read_causes, summarize

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.errors import PlannerError

__all__ = ["compare"]


def compare(logs: Iterable[Log], child: EngineChild) -> Iterator[Row]:
    """Each record, asked of the engine and judged."""
    told = read_told()
    with Oracle(child, devices=()) as oracle:
        models = Models(catalogue.load(), told, oracle)
        for log in logs:
            row = Row(id=log.id, model=log.model_normalised, build=log.build, year=log.year, backend=log.backend)
            try:
                file = models.file(log)
                asked = question(log, told.of(log))
                answer = ask(child, file, asked)
                found = list(pairs(log, file, asked, answer))
                again = split_as_told(log, asked, len(file.layout.layers))
                if again is not None and not all(each.within(EXACT) for each in found if each.part == "cache"):
                    # Nobody tells --tensor-split, and free memory alone would give another: the log's cache shows it.
                    answer, asked = ask(child, file, again), again
                    found = list(pairs(log, file, asked, answer))
            except (UnknownModelError, NotAskedError, PlannerError) as error:
                yield msgspec.structs.replace(row, unasked=str(error).split(" / ")[0])
                continue
            row = msgspec.structs.replace(row, types=file.types)
            yield judge(row, found, asked, answer)


def table(rows: Iterable[Row], causes: Sequence[Cause]) -> Iterator[str]:
    """The rows as text, each miss with its cause."""
    why = {(name, part): each.cause for each in causes for name in each.ids for part in each.parts}
    yield f"{'record':7}{'model':34}{'build':20}{'on':12}weights cache  compute"
    for row in rows:
        deviation = "" if row.compute_deviation is None else f"{100 * row.compute_deviation:+.1f} %"
        verdicts = f"{_verdict(row.weights):8}{_verdict(row.cache):7}{deviation:8}"
        yield f"{row.id:7}{row.model[:32]:34}{(row.build or '-')[:18]:20}{row.backend or '-':12}{verdicts}"
        for part in misses(row):
            worst = row.unasked or ", ".join(_off(row, part))
            yield f"       {part}: {worst} - {why.get((row.id, part), 'NO CAUSE WRITTEN DOWN')}"


def _verdict(value: bool | None) -> str:
    return "-" if value is None else "agree" if value else "MISS"


def _off(row: Row, part: str) -> Iterator[str]:
    if part == "bound":
        yield f"above it on {', '.join(row.above_bound)}"
        return
    kind = "compute" if part == "buffers" else part
    tolerance = LINE if kind == "compute" else EXACT
    for each, device, told, found in row.pairs:
        if each == kind and abs(found - told) > max(tolerance * told, 0.02):
            yield f"{device} {told:.2f} told, {found:.2f} found"


def main() -> int:
    """Compare, print, keep the result; 1 when a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=Path, default=DATA / "memory_logs.jsonl", help="other logs in the same form")
    parser.add_argument("--ids", default="", help="only these records, comma-separated")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--output", type=Path, help="keep the result in this file")
    options = parser.parse_args()
    wanted = set(filter(None, options.ids.split(",")))
    logs = [log for log in read_logs(options.logs) if not wanted or log.id in wanted]
    causes = read_causes()
    with EngineChild() as child:
        rows = list(compare(logs, child))
        build = child.ask("system")
    summary = summarize(rows, causes)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "engine": {name: build.get(name) for name in ("package_version", "build", "llama_cpp")},
        "summary": msgspec.to_builtins(summary),
        "rows": [msgspec.to_builtins(row) for row in rows],
    }
    text = json.dumps(result, indent=None, separators=(",", ":")).replace('{"id"', '\n{"id"')
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    if options.json:
        print(text)
    else:
        print(*table(rows, causes), sep="\n")
        print(*(f"{name}: {value}" for name, value in msgspec.to_builtins(summary).items()), sep="\n")
        print(*faults(rows, causes), sep="\n")
    return 0 if summary.held else 1


if __name__ == "__main__":
    sys.exit(main())
