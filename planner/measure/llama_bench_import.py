"""Reads what llama-bench wrote, of this build or of others: JSON, JSON lines, CSV, SQL and Markdown tables.

Builds differ in their columns, so only what makes a row is asked for: a test and a speed. Everything else is kept as it
was written. The mistake it prevents is a half-read file: a cell that is wrong is named by row and column, and then
nothing of the file is taken. Pure: text in, rows out.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from planner.errors import BadInputError
from planner.measure.llama_bench import parse_test
from planner.types.imported import ImportedRow
from planner.types.measurement import Described, Test

__all__ = ["Format", "read_rows"]

Format = Literal["json", "jsonl", "csv", "md", "sql"]
_Fields = dict[str, str]
_Place = tuple[int, _Fields]  # number of the row, counted from one, and its columns

_INSERT = re.compile(r"\bINSERT\s+INTO\s+[\w.\"`\[\]]+\s*\(([^)]*)\)\s*VALUES\s*", re.IGNORECASE)
_VALUE = re.compile(r"\s*(?:'((?:[^']|'')*)'|([^\s,()']+))\s*([,)])")
_TEST = re.compile(r"(?:pp([0-9]{1,9}))?\+?(?:tg([0-9]{1,9}))?(?: x([0-9]{1,4}))?(?: @ d([0-9]{1,9}))?", re.ASCII)
_SPEED = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)(?:\s*(?:±|\+/-)\s*([0-9.]+|-?nan))?", re.ASCII | re.IGNORECASE)
_BUILD = re.compile(r"^build: (\S+) \((\d+)\)", re.ASCII)
_TABLE_NAMES = {
    "ngl": "n_gpu_layers", "threads": "n_threads", "sm": "split_mode", "fa": "flash_attn", "lm": "load_mode",
    "mmap": "use_mmap", "backend": "backends", "model": "model_type", "ts": "tensor_split", "nkvo": "no_kv_offload",
}  # fmt: skip
_HINT = "give what llama-bench printed with -o json, jsonl, csv, md or sql"


def read_rows(text: str, name: str) -> tuple[Format, tuple[ImportedRow, ...]]:
    """The format of ``text`` and its rows; ``name`` is what messages call it.

    Raises :class:`BadInputError` for text in no such format or without a row, and for a row that is wrong, naming row
    and column.
    """
    kind = _format(text, name)
    found = tuple(_row(each, name) for each in _READERS[kind](text, name))
    if not found:
        raise BadInputError(f"{name}: no row of llama-bench in it", hint=_HINT)
    return kind, found


def _format(text: str, name: str) -> Format:
    start = text.lstrip("\ufeff \t\r\n")
    if start[:1] in {"[", "{"}:
        return "json" if start[0] == "[" else "jsonl"
    if _INSERT.search(text):
        return "sql"
    first = start.split("\n", 1)[0]
    if "avg_ts" in first and "," in first:
        return "csv"
    if any(line.lstrip().startswith("|") for line in text.splitlines()):
        return "md"
    raise BadInputError(f"{name}: this is not what llama-bench writes", hint=_HINT)


def _json(text: str, name: str) -> Iterator[_Place]:
    try:
        listed = json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{name}: this JSON is broken: {error}", hint=_HINT) from error
    for number, each in enumerate(listed, 1):
        yield number, _flat(each, number, name)


def _jsonl(text: str, name: str) -> Iterator[_Place]:
    number = 0
    for line in text.lstrip("\ufeff").splitlines():
        if not line.strip():
            continue
        number += 1
        try:
            told = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInputError(f"{name}: row {number}: this JSON is broken: {error}", hint=_HINT) from error
        yield number, _flat(told, number, name)


def _flat(told: object, number: int, name: str) -> _Fields:
    if not isinstance(told, dict):
        raise BadInputError(f"{name}: row {number}: not an object with llama-bench's fields", hint=_HINT)
    return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}


def _csv(text: str, name: str) -> Iterator[_Place]:
    lines = csv.reader(text.lstrip("\ufeff \t\r\n").splitlines(), strict=True)
    try:
        header = next(lines)
        for number, cells in enumerate((line for line in lines if line), 1):
            yield number, _paired(header, cells, number, name)
    except csv.Error as error:
        raise BadInputError(f"{name}: line {lines.line_num}: this CSV is broken: {error}", hint=_HINT) from error


def _paired(header: Sequence[str], cells: Sequence[str], number: int, name: str) -> _Fields:
    if len(cells) != len(header):
        place = header[len(cells)] if len(cells) < len(header) else f"number {len(header) + 1}"
        raise BadInputError(
            f"{name}: row {number}, column {place}: {len(cells)} values for {len(header)} columns",
            hint="the file was cut off, or a value is not quoted",
        )
    return dict(zip(header, cells, strict=True))


def _sql(text: str, name: str) -> Iterator[_Place]:
    for number, match in enumerate(_INSERT.finditer(text), 1):
        header = [column.strip().strip('"`[]') for column in match[1].split(",")]
        if text[match.end() : match.end() + 1] != "(":
            raise BadInputError(f"{name}: row {number}: no values follow VALUES", hint=_HINT)
        cells: list[str] = []
        at = match.end() + 1
        while True:
            value = _VALUE.match(text, at)
            if value is None:
                column = header[len(cells)] if len(cells) < len(header) else f"number {len(cells) + 1}"
                raise BadInputError(f"{name}: row {number}, column {column}: no value of SQL", hint=_HINT)
            cells.append(value[1].replace("''", "'") if value[1] is not None else value[2])
            at = value.end()
            if value[3] == ")":
                break
        yield number, _paired(header, cells, number, name)


def _markdown(text: str, name: str) -> Iterator[_Place]:
    """The tables of a text; a line that names the build speaks of the table before it."""
    header: list[str] | None = None
    waiting: list[_Place] = []
    number = 0
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        build = _BUILD.match(line.strip().strip("`"))
        if build is not None:
            yield from ((at, {**fields, "build_commit": build[1], "build_number": build[2]}) for at, fields in waiting)
            header, waiting = None, []
        elif not line.strip().startswith("|") or not cells:
            header = None if not cells else header
        elif header is None:
            header = [_TABLE_NAMES.get(cell, cell) for cell in cells]
        elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            number += 1
            waiting.append((number, _paired(header, [cell.replace("\\|", "|") for cell in cells], number, name)))
    yield from waiting


_READERS = {"json": _json, "jsonl": _jsonl, "csv": _csv, "md": _markdown, "sql": _sql}


def _row(place: _Place, name: str) -> ImportedRow:
    number, fields = place
    cell = _Cells(fields, f"{name}: row {number}")
    mean, deviation = cell.speed()
    return ImportedRow(
        test=cell.test(),
        mean_tokens_per_s=mean,
        deviation_tokens_per_s=deviation,
        samples_ns=cell.samples(),
        described=Described(
            build_commit=fields.get("build_commit") or None,
            build_number=cell.integer("build_number"),
            cpu_info=fields.get("cpu_info") or None,
            gpu_info=fields.get("gpu_info") or None,
            backends=fields.get("backends") or None,
            model_filename=fields.get("model_filename") or None,
            model_type=fields.get("model_type") or None,
            model_size_bytes=cell.integer("model_size"),
            parameters=cell.integer("model_n_params"),
        ),
        fields=fields,
    )


class _Cells:
    """The columns of one row, and the complaint about one of them."""

    def __init__(self, fields: Mapping[str, str], place: str) -> None:
        self._fields = fields
        self._place = place

    def test(self) -> Test:
        """The test of the row, by a table's name for it or by llama-bench's numbers."""
        if "test" in self._fields:
            text, column = self._fields["test"], "test"
            match = _TEST.fullmatch(text)
            named = [int(each or 0) for each in match.groups()] if match else [0, 0, 0, 0]
            found = parse_test(named[0], named[1], named[3], named[2] or 1)
        else:
            prompt, answer, column = self._needed("n_prompt"), self._needed("n_gen"), "n_prompt"
            text = f"{prompt} with {answer} of n_gen"
            found = parse_test(prompt, answer, self.integer("n_depth") or 0, self.integer("n_seq") or 1)
        if found is None:
            raise BadInputError(f"{self._place}, column {column}: {text!r} names no test", hint=_HINT)
        return found

    def _needed(self, column: str) -> int:
        value = self.integer(column)
        if value is None:
            raise BadInputError(f"{self._place}, column {column}: it is missing", hint=_HINT)
        return value

    def speed(self) -> tuple[float, float | None]:
        if "avg_ts" in self._fields:
            return self._real("avg_ts"), self._real("stddev_ts") if self._fields.get("stddev_ts") else None
        if "t/s" not in self._fields:
            raise BadInputError(f"{self._place}, column avg_ts: it is missing", hint=_HINT)
        match = _SPEED.fullmatch(self._fields["t/s"].strip())
        try:
            mean = float(match[1]) if match else math.nan
            deviation = float(match[2]) if match and match[2] else None
        except ValueError:
            mean, deviation = math.nan, None
        if not math.isfinite(mean):
            raise BadInputError(f"{self._place}, column t/s: {self._fields['t/s']!r} is no speed", hint=_HINT)
        return mean, None if deviation is None or not math.isfinite(deviation) else deviation

    def samples(self) -> tuple[int, ...]:
        text = self._fields.get("samples_ns", "")
        if not text:
            return ()
        try:
            found = json.loads(text)
            samples = tuple(int(each) for each in found)
        except (ValueError, TypeError, OverflowError):
            samples = (0,)
        if any(each <= 0 for each in samples):
            raise BadInputError(f"{self._place}, column samples_ns: {text[:40]!r} are no nanoseconds", hint=_HINT)
        return samples

    def integer(self, column: str) -> int | None:
        text = self._fields.get(column, "")
        if text == "":
            return None
        if not re.fullmatch(r"-?[0-9]{1,18}", text.strip(), re.ASCII):
            raise BadInputError(f"{self._place}, column {column}: {text[:40]!r} is no whole number", hint=_HINT)
        return int(text)

    def _real(self, column: str) -> float:
        try:
            value = float(self._fields[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0:
            raise BadInputError(
                f"{self._place}, column {column}: {self._fields[column][:40]!r} is no number", hint=_HINT
            )
        return value
