"""Knows llama-bench's fields, their order and their spelling, and tells a measurement in them.

Whatever reads llama-bench's CSV, SQL, JSON lines or Markdown then reads ours. The definitions are those of
tools/llama-bench at commit 0c1e57098: speeds are the mean of the repetitions' rates with the sample's deviation (our
own documents say the median), and ``n_prompt`` and ``n_gen`` are what was really timed. The mistake it prevents: a
number that was composed or taken on made-up weights and looks like a file's; the field of the file's name says so.
Pure.
"""

from collections.abc import Mapping
from statistics import fmean, stdev
from typing import Literal

from planner.types.measurement import Measurement, Test, TestKind, TestResult

__all__ = [
    "FIELDS",
    "SEQUENCES",
    "FieldKind",
    "Row",
    "field_kind",
    "params_text",
    "parse_test",
    "rows",
    "size_text",
]

FieldKind = Literal["text", "flag", "integer", "real"]
Row = dict[str, str | bool | int | float | list[int] | list[float]]
"""One row: all of :data:`FIELDS` in order, then the samples; ``n_seq`` where several sequences ran together."""

SEQUENCES = "n_seq"
"""Our own field behind llama-bench's, only where several sequences were decoded together, which it cannot do."""

_FIELDS: tuple[tuple[str, FieldKind], ...] = (
    ("build_commit", "text"), ("build_number", "integer"), ("cpu_info", "text"), ("gpu_info", "text"),
    ("backends", "text"), ("model_filename", "text"), ("model_type", "text"), ("model_size", "integer"),
    ("model_n_params", "integer"), ("n_batch", "integer"), ("n_ubatch", "integer"), ("n_threads", "integer"),
    ("cpu_mask", "text"), ("cpu_strict", "flag"), ("poll", "integer"), ("type_k", "text"), ("type_v", "text"),
    ("n_gpu_layers", "integer"), ("n_cpu_moe", "integer"), ("split_mode", "text"), ("main_gpu", "integer"),
    ("no_kv_offload", "flag"), ("flash_attn", "integer"), ("devices", "text"), ("tensor_split", "text"),
    ("tensor_buft_overrides", "text"), ("load_mode", "text"), ("lazy_mode", "text"), ("embeddings", "flag"),
    ("no_op_offload", "integer"), ("no_host", "flag"), ("repack", "flag"), ("fit_target", "integer"),
    ("fit_min_ctx", "integer"), ("n_prompt", "integer"), ("n_gen", "integer"), ("n_depth", "integer"),
    ("test_time", "text"), ("avg_ns", "integer"), ("stddev_ns", "integer"), ("avg_ts", "real"), ("stddev_ts", "real"),
)  # fmt: skip
FIELDS = tuple(name for name, _ in _FIELDS)
"""The fields of llama-bench in the order of its CSV and SQL."""

_KINDS: Mapping[str, FieldKind] = dict(_FIELDS)
_FLASH = {"auto": -1, "off": 0, "on": 1}


def field_kind(field: str) -> FieldKind:
    """How llama-bench writes a field; one that it does not know is text, but our number of sequences an integer."""
    return "integer" if field == SEQUENCES else _KINDS.get(field, "text")


def rows(measurement: Measurement) -> tuple[Row, ...]:
    """Each result of a measurement as a row; what llama-bench would write where it does not know stands for unknown."""
    return tuple(_row(measurement, result) for result in measurement.results)


def _row(measurement: Measurement, result: TestResult) -> Row:
    test, told = result.test, measurement.described
    processed = result.tokens_timed * test.sequences
    rates = [processed * 1e9 / sample for sample in result.samples_ns]
    prompt, answer = _timed(result)
    row: Row = {
        "build_commit": told.build_commit or "unknown",
        "build_number": told.build_number or 0,
        "cpu_info": told.cpu_info or "",
        "gpu_info": told.gpu_info or "",
        "backends": told.backends or "",
        "model_filename": _file(measurement, result),
        "model_type": told.model_type or f"{measurement.model} {measurement.quantization}",
        "model_size": told.model_size_bytes or 0,
        "model_n_params": told.parameters or 0,
        **_settings(measurement, test),
        "n_prompt": prompt,
        "n_gen": answer,
        "n_depth": test.depth,
        "test_time": measurement.taken_at.replace("+00:00", "Z"),
        "avg_ns": round(fmean(result.samples_ns)),
        "stddev_ns": round(_deviation(result.samples_ns)),
        "avg_ts": fmean(rates),
        "stddev_ts": _deviation(rates),
        "samples_ns": list(result.samples_ns),
        "samples_ts": rates,
    }
    if test.sequences > 1:
        row[SEQUENCES] = test.sequences
    return row


def _deviation(values: tuple[int, ...] | list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _timed(result: TestResult) -> tuple[int, int]:
    """Tokens of a prompt and of an answer that were timed; a shortened mixed test keeps its proportion."""
    test, tokens = result.test, result.tokens_timed
    if test.kind == "mixed":
        prompt = min(tokens - 1, max(1, round(tokens * test.prompt_tokens / test.tokens)))
        return prompt, tokens - prompt
    return (tokens, 0) if test.kind == "prompt" else (0, tokens)


def _file(measurement: Measurement, result: TestResult) -> str:
    """The file's name; of what was no file a name that no file has."""
    name = f"{measurement.model}:{measurement.quantization}"
    if result.origin != "measured":
        return f"composed from slices of {measurement.layers_timed} of {measurement.layers_total} layers of {name}"
    if measurement.contents == "phantom":
        return f"phantom of {name}"
    return measurement.described.model_filename or name


def _settings(measurement: Measurement, test: Test) -> Row:
    told = measurement.settings
    own = told.threads_batch if test.kind == "prompt" else told.threads
    overrides = ";".join(f"{pattern}={buffer}" for pattern, buffer in told.tensor_overrides)
    return {
        "n_batch": told.batch,
        "n_ubatch": told.ubatch,
        "n_threads": test.threads or own,
        "cpu_mask": "0x0",
        "cpu_strict": False,
        "poll": 50,
        "type_k": told.cache_type_k,
        "type_v": told.cache_type_v,
        "n_gpu_layers": told.gpu_layers,
        "n_cpu_moe": told.cpu_moe_layers,
        "split_mode": told.split_mode,
        "main_gpu": told.main_gpu,
        "no_kv_offload": not told.kv_offload,
        "flash_attn": _FLASH[told.flash_attention],
        "devices": "auto",
        "tensor_split": "/".join(f"{share:.2f}" for share in told.tensor_split) or "0.00",
        "tensor_buft_overrides": overrides or "none",
        "load_mode": told.load_mode,
        "lazy_mode": told.lazy_mode,
        "embeddings": False,
        "no_op_offload": int(not told.op_offload),
        "no_host": not told.host_buffer,
        "repack": told.repack,
        "fit_target": 0,
        "fit_min_ctx": 0,
    }


def parse_test(prompt: int, answer: int, depth: int, sequences: int = 1, threads: int | None = None) -> Test | None:
    """The test that llama-bench's numbers name; ``None`` for one without a token or with a negative number."""
    if min(prompt, answer, depth) < 0 or prompt + answer == 0 or sequences < 1:
        return None
    kind: TestKind = "mixed" if prompt and answer else "prompt" if prompt else "generate"
    return Test(
        kind=kind,
        tokens=prompt + answer,
        prompt_tokens=prompt if answer else 0,
        depth=depth,
        sequences=sequences,
        threads=threads,
    )


def size_text(size_bytes: int) -> str:
    """A model's size as llama-bench's table has it: ``4.58 GiB``."""
    return f"{size_bytes / 2**20:.2f} MiB" if size_bytes < 2**30 else f"{size_bytes / 2**30:.2f} GiB"


def params_text(parameters: int) -> str:
    """A model's parameters as llama-bench's table has them: ``8.03 B``."""
    return f"{parameters / 1e6:.2f} M" if parameters < 10**9 else f"{parameters / 1e9:.2f} B"
