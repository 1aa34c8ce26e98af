"""The whole catalogue against the engine and against what others published.

Four claims, one row for each model: the engine loads the phantom that the catalogue describes; it counts as many
parameters as the layout holds, and the catalogue states what the layout computes; that is what llama.cpp printed for
other people's files, and what the publisher's label names; a dry run of quantizing gives the published file size
within 1 % (plus what the page rounds away; the tokenizer, which a phantom lacks, is estimated from the vocabulary).
Refuted by one model that does not load, one count that differs, or one size that is further off and has no cause
written beside it in ``data/file_sizes.toml``.

    python bench/catalogue.py [--family SUBSTRING] [--json] [--output bench/results/catalogue.json]
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from examination import Row, examine, read_evidence

from planner import catalogue
from planner.engine.child import EngineChild
from planner.types.model import Model

LABELS_OFF = {
    "kimi-linear-48b-a3b": "named 48B; files of 49,122,681,728 parameters, the layout's count to the last digit",
}
"""Labels that no rounding explains: what the name says, and what was found."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All rows in numbers, and whether the claims hold."""

    models: int
    load: int
    counts_equal: int
    counts_printed_elsewhere: int
    counts_printed_that_agree: int
    labels_compared: int
    labels_that_agree: int
    sizes_compared: int
    models_with_three_sizes: int
    architectures_with_sizes: int
    median_deviation_percent: float | None
    worst_deviation_percent: float | None
    differ: int
    differ_unknown_cause: int
    held: bool


def summarize(rows: Sequence[Row]) -> Summary:
    """The summary; sizes of one shape count once, however many models share it, and mixes not at all."""
    compared = {(each.source, each.quantization): each for line in rows for each in line.sizes if each.mix is None}
    deviations = [abs(each.deviation) for each in compared.values() if each.held]
    labelled = [line for line in rows if line.label_held is not None]
    counted = [each for line in rows for each in line.printed]
    return Summary(
        models=len(rows),
        load=sum(line.loads for line in rows),
        counts_equal=sum(line.counts_agree for line in rows),
        counts_printed_elsewhere=len(counted),
        counts_printed_that_agree=sum(each.held for each in counted),
        labels_compared=len(labelled),
        labels_that_agree=sum(bool(line.label_held) for line in labelled),
        sizes_compared=len(compared),
        models_with_three_sizes=sum(len(line.quantizations_compared) >= 3 for line in rows),
        architectures_with_sizes=len({line.architecture for line in rows if line.quantizations_compared}),
        median_deviation_percent=round(100 * statistics.median(deviations), 3) if deviations else None,
        worst_deviation_percent=round(100 * max(deviations), 2) if deviations else None,
        differ=sum(not each.held for each in compared.values()),
        differ_unknown_cause=sum((each.cause or "").startswith("unknown") for each in compared.values()),
        held=not faults(rows),
    )


def faults(rows: Iterable[Row]) -> list[str]:
    """Every claim that does not hold, in words; an explanation of what is no longer off is a fault as well."""
    return [fault for line in rows for fault in _faults(line)]


def _faults(line: Row) -> Iterator[str]:
    if not line.loads:
        yield f"{line.model} does not load: {line.problem}"
        return
    if not line.counts_agree:
        yield (
            f"{line.model}: {line.stated:,} parameters stated, {line.computed:,} computed, "
            f"{line.in_file:,} in the file, {line.engine:,} counted by the engine"
        )
    yield from (
        f"{line.model}: printed as {each.parameters} in {each.source}" for each in line.printed if not each.held
    )
    if line.label_held is (line.model in LABELS_OFF):
        yield f"{line.model}: label {line.label:,.0f}, {100 * (line.label_deviation or 0):+.2f} %"
    for each in line.sizes:
        if each.mix is None and each.held is (each.cause is not None):
            yield (
                f"{line.model} {each.quantization}: {each.published} published, {100 * each.deviation:+.2f} %, "
                f"{each.cause or 'no cause known'} ({each.source})"
            )


def table(rows: Iterable[Row]) -> Iterator[str]:
    """The rows as text."""
    yield f"{'model':36} {'arch':14} {'loads':>7} {'parameters':>17} {'engine':>7} {'label':>7}  published sizes"
    for line in rows:
        if not line.loads:
            yield f"{line.model:36} {line.architecture:14} {'no':>7} {line.problem}"
            continue
        label = "-" if line.label_deviation is None else f"{100 * line.label_deviation:+.1f} %"
        agree = "equal" if line.counts_agree else "DIFFERS"
        yield (
            f"{line.model:36} {line.architecture:14} {line.milliseconds:4.0f} ms {line.computed:17,} {agree:>7} "
            f"{label:>7}  {_sizes_in_words(line)}"
        )
        for each in line.sizes:
            if each.mix is None and not each.held:
                cause = each.cause or "NO CAUSE KNOWN"
                yield f"    {each.quantization:7} {each.published}: {100 * each.deviation:+.1f} %, {cause}"


def _sizes_in_words(line: Row) -> str:
    held = [each for each in line.sizes if each.held and each.mix is None]
    if not held:
        return "none known"
    worst = max(held, key=lambda each: abs(each.deviation))
    types = len({each.quantization for each in held})
    several = "" if len(held) == 1 else f"{len(held)} sizes of {types} types, worst "
    return f"{several}{worst.quantization} {worst.published} {100 * worst.deviation:+.2f} %"


def chosen(catalogued: catalogue.Catalogue, family: str) -> list[Model]:
    """The models to examine: all that can be planned, or those of a family."""
    return [model for model in catalogued.models.values() if family.lower() in f"{model.family} {model.id}".lower()]


def kept(rows: Sequence[Row], summary: Summary, build: object) -> dict[str, object]:
    """The result as it is kept: the sizes of a shape stand with the first model that has it."""
    seen: set[str | None] = {None}
    lean = []
    for line in rows:
        lean.append(line if line.sizes_of not in seen else msgspec.structs.replace(line, sizes=()))
        seen.add(line.sizes_of)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "engine_build": build,
        "summary": msgspec.to_builtins(summary),
        "labels_off": LABELS_OFF,
        "rows": msgspec.to_builtins(lean),
    }


def main() -> int:
    """Examine, print, keep the result; 1 when a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="", help="only models whose family or id contains this")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--output", type=Path, help="keep the result in this file")
    options = parser.parse_args()
    catalogued = catalogue.load()
    rows = list(examine(catalogued, chosen(catalogued, options.family), read_evidence(catalogued)))
    summary = summarize(rows)
    with EngineChild() as child:
        result = kept(rows, summary, child.ask("system")["build"])
    text = json.dumps(result, indent=1)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    if options.json:
        print(text)
    else:
        print(*table(rows), sep="\n")
        print(*(f"{name}: {value}" for name, value in msgspec.to_builtins(summary).items()), sep="\n")
        print(*faults(rows), sep="\n")
    return 0 if summary.held else 1


if __name__ == "__main__":
    sys.exit(main())
