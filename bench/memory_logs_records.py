"""The published load logs, read: what llama.cpp printed that it allocated, and what of its settings is known.

``data/memory_logs.jsonl`` holds what the logs print, ``data/memory_logs_settings.toml`` what they do not and where it
was found. Sizes are MiB as printed (two decimals); a key that the log does not tell is ``None`` and never zero.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

__all__ = ["Bytes", "Log", "Mix", "ModelEntry", "Settings", "Told", "read_logs", "read_told"]

DATA = Path(__file__).parent / "data"
Bytes = dict[str, float]
"""MiB by buffer name, as the log names them."""
_SPLIT_IN_NAME = re.compile(r"_ts(\d+(?:-\d+)+)")


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A "size = …" line of a cache or of a recurrent state."""

    size_mib: float
    cells: int | None = None
    layers: int | None = None
    seqs: str | int | None = None


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """One load as it was published; ``url`` is where, ``build`` and ``date`` are as printed there."""

    id: str
    engine: str
    backend: str | None = None
    build: str | None = None
    date: str | None = None
    url: str | None = None
    model_normalised: str
    arch: str | None = None
    quant: str | None = None
    gguf_file: str | None = None
    file_size_gib: float | None = None
    tensor_type_counts: dict[str, int] | None = None
    n_tensors: int | None = None
    hparams: dict[str, int | float | str] | None = None
    ngl: int | None = None
    offloaded: str | None = None
    n_ctx: int | None = None
    n_ctx_seq: int | None = None
    n_seq_max: int | None = None
    n_batch: int | None = None
    n_ubatch: int | None = None
    flash_attn: int | str | None = None
    flash_attn_resolved: str | None = None
    type_k: str | None = None
    type_v: str | None = None
    kv_unified: str | bool | None = None
    mmap: bool | None = None
    overrides: list[str] | None = None
    gpus: list[str] | None = None
    model_buffers: Bytes | None = None
    model_buffer_parts: dict[str, list[float]] | None = None
    kv_buffers: Bytes | None = None
    kv_summary: list[Summary] | None = None
    kv_by_cache_mib: Bytes | None = None
    recurrent_buffers: Bytes | None = None
    recurrent_summary: list[Summary] | None = None
    compute_buffers: Bytes | None = None
    breakdown: list[str] | None = None
    graph_splits: str | int | None = None

    @property
    def year(self) -> int | None:
        """The year of its build: of the date, or of the build number where no date is told."""
        if self.date:
            return int(self.date[:4])
        found = re.search(r"\d{4,5}", (self.build or "").removeprefix("b"))
        number = int(found[0]) if found else None
        # Build numbers of 1 January, from the dated records and the tags: 4400 (2025), 7560 (2026).
        return None if number is None else 2024 if number < 4400 else 2025 if number < 7560 else 2026

    def dimension(self, name: str) -> int | None:
        """A number of the printed hyperparameters; ``None`` where it is not told or one per layer."""
        value = (self.hparams or {}).get(name)
        return value if isinstance(value, int) else None


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of ``[[settings]]``."""

    ids: list[str] = []
    urls: list[str] = []
    overrides: list[str] | None = None
    cpu_moe: int | None = None
    tensor_split: list[float] | None = None
    split_mode: str | None = None
    kv_offload: bool | None = None
    gpu_layers: int | None = None
    model: str | None = None
    quant: str | None = None
    context: int | None = None
    batch: int | None = None
    ubatch: int | None = None
    unasked: str | None = None
    source: str

    def about(self, log: Log) -> bool:
        """Whether it says something of ``log``."""
        return log.id in self.ids or any(part in (log.url or "") for part in self.urls)


class Mix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The types of a file's tensors, worked out from the counts that the log prints."""

    file: str
    types: list[tuple[str, str]]
    rest: str
    exact: bool = True

    def type_of(self, name: str, otherwise: str) -> str:
        """The type of a tensor whose type in the unquantized layout is ``otherwise``."""
        if otherwise == "F32":
            return otherwise
        return next((kind for pattern, kind in self.types if re.search(pattern, name)), self.rest)


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that the catalogue does not hold."""

    names: list[str]
    architecture: str
    context_native: int
    shape: dict[str, int | float | bool]


class Told(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``memory_logs_settings.toml`` as a whole."""

    settings: list[Settings]
    mixes: list[Mix]
    models: list[ModelEntry]

    def of(self, log: Log) -> Mapping[str, object]:
        """What is told of ``log``, by key; a later table overrules an earlier one."""
        found: dict[str, object] = {}
        for table in self.settings:
            if table.about(log):
                found |= {key: value for key, value in msgspec.to_builtins(table).items() if value is not None}
        named = _SPLIT_IN_NAME.search(log.url or "")
        if named:  # the sweep's logs carry the split in their names
            found["tensor_split"] = [float(part) for part in named[1].split("-")]
        return found

    def mix(self, log: Log) -> Mix | None:
        """The types of the log's file, where no recipe gives them."""
        return next((each for each in self.mixes if (log.gguf_file or "").startswith(each.file)), None)


def read_logs(path: Path = DATA / "memory_logs.jsonl") -> list[Log]:
    """The logs of builds of llama.cpp itself, in the order of the file; those of forks are left out."""
    rows = (msgspec.json.decode(line, type=Log) for line in path.read_bytes().splitlines() if line.strip())
    return [log for log in rows if log.engine == "llama.cpp"]


def read_told(path: Path = DATA / "memory_logs_settings.toml") -> Told:
    """What the logs do not print."""
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Told)
