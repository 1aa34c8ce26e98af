"""Rows in llama-bench's own formats: CSV, SQL, JSON lines and its Markdown table.

The mistake it prevents is an output that only looks alike: a CSV whose header is another, SQL that a quotation mark in
a processor's name breaks. Formats as tools/llama-bench writes them at commit 0c1e57098. Rows of several sequences,
which it does not know, carry one more column, and go to a table of their own in SQL.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from planner.measure.llama_bench import FIELDS, SEQUENCES, Row, field_kind, params_text, parse_test, size_text

__all__ = ["FORMATS", "LlamaBenchFormat"]

LlamaBenchFormat = Literal["csv", "jsonl", "md", "sql"]

_SQL_TYPES = {"text": "TEXT", "flag": "INTEGER", "integer": "INTEGER", "real": "REAL"}
_SHOWN = {
    "n_gpu_layers": "ngl", "n_threads": "threads", "split_mode": "sm", "no_kv_offload": "nkvo", "flash_attn": "fa",
    "load_mode": "lm", "embeddings": "embd", "no_op_offload": "nopo", "no_host": "noh", "repack": "rpk",
    "devices": "dev", "tensor_split": "ts", "tensor_buft_overrides": "ot",
}  # fmt: skip
_WIDTHS = {
    "model": -30, "t/s": 20, "size": 10, "params": 10, "backend": -10, "n_gpu_layers": 3, "n_threads": 7, "n_batch": 7,
    "n_ubatch": 8, "type_k": 6, "type_v": 6, "split_mode": 6, "load_mode": 10, "flash_attn": 3, "test": 15,
    "no_op_offload": 4, "no_host": 4, "repack": 3,
}  # fmt: skip
# The columns of the table that are only there where a value differs from what llama-bench takes unasked, in its order.
_UNASKED: Mapping[str, object] = {
    "n_cpu_moe": 0, "n_batch": 2048, "n_ubatch": 512, "type_k": "f16", "type_v": "f16", "main_gpu": 0,
    "split_mode": "layer", "no_kv_offload": False, "flash_attn": -1, "tensor_split": "0.00",
    "tensor_buft_overrides": "none", "load_mode": "mmap", "lazy_mode": "auto", "no_op_offload": 0, "no_host": False,
    "repack": True,
}  # fmt: skip


def _csv(rows: Sequence[Row]) -> str:
    fields = _fields(rows)
    lines = [",".join(fields)]
    lines += [",".join('"' + _plain(row, field).replace('"', '""') + '"' for field in fields) for row in rows]
    return "\n".join(lines) + "\n"


def _jsonl(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _sql(rows: Sequence[Row]) -> str:
    alone = [row for row in rows if SEQUENCES not in row]
    together = [row for row in rows if SEQUENCES in row]
    parts = [_table("llama_bench", FIELDS, alone)] if alone or not together else []
    if together:
        parts.append(_table("llama_bench_parallel", (*FIELDS, SEQUENCES), together))
    return "\n".join(parts)


def _table(name: str, fields: Sequence[str], rows: Sequence[Row]) -> str:
    columns = ",\n".join(f"  {field} {_SQL_TYPES[field_kind(field)]}" for field in fields)
    lines = [f"CREATE TABLE IF NOT EXISTS {name} (\n{columns}\n);", ""]
    for row in rows:
        values = ", ".join("'" + _plain(row, field).replace("'", "''") + "'" for field in fields)
        lines.append(f"INSERT INTO {name} ({', '.join(fields)}) VALUES ({values});")  # noqa: S608 - quoted, and run by whoever reads it
    return "\n".join(lines) + "\n"


def _markdown(rows: Sequence[Row]) -> str:
    fields = _columns(rows)
    head = [_padded(field, _SHOWN.get(field, field)) for field in fields]
    rule = ["-" * (abs(_width(field)) - 1) + (":" if _width(field) > 0 else "-") for field in fields]
    body = [[_padded(field, _cell(row, field)) for field in fields] for row in rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, rule, *body)]
    builds = dict.fromkeys(f"build: {row['build_commit']} ({row['build_number']})" for row in rows)
    return "\n".join([*lines, "", *builds]) + "\n"


def _columns(rows: Sequence[Row]) -> list[str]:
    on_cpu = all("CPU" in str(row["backends"]) for row in rows)
    fields = ["model", "size", "params", "backend"]
    fields += [] if on_cpu else ["n_gpu_layers"]
    fields += ["n_threads"] if on_cpu or len({row["n_threads"] for row in rows}) > 1 else []
    fields += [field for field, value in _UNASKED.items() if any(row[field] != value for row in rows)]
    return [*fields, "test", "t/s"]


def _cell(row: Row, field: str) -> str:
    prompt, answer, depth = (int(str(row[name])) for name in ("n_prompt", "n_gen", "n_depth"))
    test = parse_test(prompt, answer, depth, int(str(row.get(SEQUENCES, 1))))
    special: dict[str, Callable[[], str]] = {
        "model": lambda: str(row["model_type"]),
        "size": lambda: size_text(int(str(row["model_size"]))),
        "params": lambda: params_text(int(str(row["model_n_params"]))),
        "backend": lambda: str(row["backends"]),
        "test": lambda: "" if test is None else test.label,
        "t/s": lambda: f"{float(str(row['avg_ts'])):.2f} ± {float(str(row['stddev_ts'])):.2f}",
    }
    # A bar would end the cell; a file's own name may hold one.
    text = special[field]() if field in special else _plain(row, field)
    return text.replace("|", "\\|").replace("\n", " ")


def _width(field: str) -> int:
    if field in _WIDTHS:
        return _WIDTHS[field]
    width = max(len(field), 10)
    return -width if field_kind(field) == "text" else width


def _padded(field: str, text: str) -> str:
    width = _width(field)
    return text.ljust(-width) if width < 0 else text.rjust(width)


def _fields(rows: Sequence[Row]) -> tuple[str, ...]:
    return (*FIELDS, SEQUENCES) if any(SEQUENCES in row for row in rows) else FIELDS


def _plain(row: Row, field: str) -> str:
    value = row[field] if field != SEQUENCES else row.get(SEQUENCES, 1)
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.6f}" if isinstance(value, float) else str(value)


FORMATS: Mapping[LlamaBenchFormat, Callable[[Sequence[Row]], str]] = {
    "csv": _csv, "jsonl": _jsonl, "md": _markdown, "sql": _sql,
}  # fmt: skip
"""The writer of each format: rows in, the whole document out."""
