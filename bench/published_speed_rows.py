"""Published llama-bench rows as cases: what a device had to do, what it is by its data sheet, how fast it was.

Rows are other people's; nothing is corrected here. What a row does not tell is derived from the shape of its model or
left unknown, and a row that cannot be judged is dropped with the reason counted. Prevents comparing formulas on
different rows: every formula gets the same cases.
"""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from planner import catalogue
from planner.estimate.device_facts import device_facts
from planner.estimate.physical import Hardware, Work
from planner.types.machine import Backend
from planner.types.model import Model

__all__ = ["LINK_BYTES_PER_S", "Case", "Kind", "Shape", "by_device", "read_cases"]

DATA = Path(__file__).parent / "data"
Kind = Literal["decode", "decode-deep", "prefill", "prefill-deep", "experts-on-cpu"]
_BACKENDS: tuple[tuple[str, Backend], ...] = (
    ("cuda", "cuda"),
    ("rocm", "rocm"),
    ("hip", "rocm"),
    ("vulkan", "vulkan"),
    ("metal", "metal"),
    ("mtl", "metal"),
    ("sycl", "sycl"),
    ("cpu", "cpu"),
)
LINK_BYTES_PER_S = 25e9
"""PCIe 4.0 × 16 as it is reached: rows do not tell the slot."""
_ARM = re.compile(r"Altra|RK3588|Qualcomm|Raspberry|BCM|Cix|Cobalt|Neoverse|Apple|Cortex|Arm", re.IGNORECASE)
_DEPTH_BEGINS = 2048
"""Tokens before the middle of a test from which a row counts as deep."""
_CPU_BANDWIDTH = {
    # data sheet arithmetic, GB/s: channels × 8 bytes × transfers, told in the row or the usual memory of that machine
    "Intel Core i9-13900K": 102.4,
    "Intel Core i7-1165G7": 51.2,
    "Intel Xeon Platinum 8480 (ES)": 307.2,
    "2 x Intel Xeon E5-2697A v4": 153.6,
    "AMD EPYC 9655": 537.6,
    "AMD EPYC 9355 (32 cores)": 614.4,
    "2 x AMD EPYC 9115": 921.6,
    "AMD Ryzen 7 5700X": 51.2,
    "Intel Core i7-14700HX": 83.2,
    "Intel Core i9-14900K": 96.0,
    "Rockchip RK3588 (4 x A76 + 4 x A55)": 34.1,
    "Apple M2 Max": 400.0,
    "Azure Cobalt 100 (64 Neoverse N2 cores)": 460.8,
    "Raspberry Pi 5 (BCM2712)": 17.1,
}


class Shape(NamedTuple):
    """A model as far as speed goes; the comment of ``data/llama_bench_models.toml`` says what each number is."""

    layers: int
    parameters: float
    experts: float = 0.0
    used: float = 1.0
    kv: float = 0.0
    window: float = 0.0
    window_tokens: int = 0
    heads: float = 0.0
    embedding: float = 0.0
    head: float = 0.0
    expert_bits: float | None = None
    recurrent: bool = False
    source: str = ""


class Case(NamedTuple):
    """One row that can be judged. ``parts`` are the devices in a pipeline with what each does for a token.

    ``dated`` marks builds of 2023 and 2024,
    ``fork`` those of other kernels. ``tokens`` and ``microbatch`` describe a prompt, ``depth`` the tokens before the
    middle of the test. ``bytes_file``, ``parameters`` and ``active`` (of the whole model) are what simple formulas use.
    """

    kind: Kind
    device: str
    model: str
    quantization: str
    backend: Backend
    vendor: str
    devices: int
    fork: bool
    dated: bool
    parts: tuple[tuple[Hardware, Work], ...]
    tokens: int
    microbatch: int
    depth: float
    tokens_per_s: float
    bytes_file: float
    bytes_active: float
    parameters: float
    active: float
    row: dict[str, Any]

    @property
    def is_prompt(self) -> bool:
        """Whether a prompt is read, and not one token after the other written."""
        return self.kind.startswith("prefill") or str(self.row["test"]).startswith("pp")


class _DroppedError(Exception):
    """A row that cannot be judged, with the reason."""


def read_cases(path: Path) -> tuple[list[Case], Counter[str]]:
    """The cases of a file of rows, and how many rows were dropped for which reason."""
    shapes = _Shapes()
    cases, dropped = [], Counter[str]()
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            cases.append(_case(json.loads(line), shapes))
        except _DroppedError as reason:
            dropped[str(reason)] += 1
    return cases, dropped


class _Shapes:
    def __init__(self) -> None:
        tables = tomllib.loads((DATA / "llama_bench_models.toml").read_text(encoding="utf-8"))
        self._own = {name: Shape(**table) for name, table in tables["models"].items()}
        self._names: dict[str, str] = tables["catalogue"]
        self._models = {model.id: model for model in catalogue.load().models.values()}
        self._bits = {each.name: each.bits_per_weight for each in catalogue.load().quantizations.values()}

    def of(self, name: str) -> Shape:
        if name in self._own:
            return self._own[name]
        model = self._models.get(self._names.get(name, name.casefold()))
        if model is None:
            raise _DroppedError(f"shape of {name} unknown")
        return _shape(model)

    def bits(self, quantization: str) -> float | None:
        base = quantization.removeprefix("UD-").removesuffix("_XL") if quantization.startswith("UD-") else quantization
        known = {"F16": 16.0, "BF16": 16.0, "MXFP4 MoE": 4.25, "Q4_K": 4.85, "Q2_K_M": 3.0, "Q5_1": 6.0}
        return self._bits.get(base) or known.get(base) or self._bits.get(f"{base}_M")


def _shape(model: Model) -> Shape:
    def size(name: str, default: int = 0) -> int:
        return model.size(name) or default

    layers, width, heads = size("n_layer"), size("n_embd"), size("n_head")
    recurrent = model.architecture in {"qwen35", "qwen35moe", "qwen3next", "kimi-linear"}
    looking = layers // 4 if recurrent else layers
    if rank := size("kv_lora_rank"):
        kv = 2 * (rank + size("qk_rope")) * looking
        widths = heads * (2 * rank + size("qk_rope"))
    else:
        head = size("head_dim") or (width // heads if heads else 0)
        kv = 4 * (size("n_head_kv") or heads) * head * looking
        widths = 2 * heads * head
    experts = 3.0 * size("n_expert") * width * size("n_ff_exp") * (layers - size("n_dense_lead"))
    table = float(size("n_vocab") * width)
    return Shape(
        layers=layers,
        parameters=float(model.parameters),
        experts=experts,
        used=size("n_expert_used") / size("n_expert") if experts else 1.0,
        kv=kv,
        heads=float(widths * looking),
        embedding=0.0 if model.shape.get("tied") else table,
        head=table,
        recurrent=recurrent,
        source=f"planner's catalogue: {model.id}",
    )


def _case(row: dict[str, Any], shapes: _Shapes) -> Case:
    match = re.fullmatch(r"(pp|tg)(\d+)", row["test"])
    if match is None:
        raise _DroppedError("a mixed test")
    prompt, tokens = match[1] == "pp", int(match[2])
    backend = _backend(row)
    if row["tok_s"] is None or row["tok_s"] <= 0:
        raise _DroppedError("no speed")
    shape = shapes.of(row["model_norm"])
    quantization = row["quant"] or ""
    file_bytes = _file_bytes(row, shape, shapes, quantization)
    depth = (row["n_depth"] or 0) + tokens / 2
    on_cpu = bool(row["ot"]) or bool(row["n_cpu_moe"])
    partial = not on_cpu and backend != "cpu" and row["ngl"] is not None and row["ngl"] < shape.layers
    if partial:
        raise _DroppedError("layers partly on the CPU, of which little is told")
    parts = _parts(row, shape, backend, quantization, file_bytes, depth, on_cpu=on_cpu)
    deep = (row["n_depth"] or 0) > 0 or depth > _DEPTH_BEGINS
    kind: Kind = "prefill" if prompt else "decode"
    if on_cpu:
        kind = "experts-on-cpu"
    elif deep:
        kind = "prefill-deep" if prompt else "decode-deep"
    gpu = row["gpu"] if backend != "cpu" else None
    facts = device_facts(gpu)
    return Case(
        kind=kind,
        device=f"{facts.name if facts else gpu or row['cpu']}",
        model=row["model_norm"],
        quantization=quantization,
        backend=backend,
        vendor=_vendor(facts.name if facts else str(gpu or "")),
        devices=row["gpu_count"] or 1,
        fork=_is_fork(row),
        dated=_is_dated(row),
        parts=parts,
        tokens=tokens,
        microbatch=row["n_ubatch"] or 512,
        depth=depth,
        tokens_per_s=float(row["tok_s"]),
        bytes_file=file_bytes,
        bytes_active=_active_bytes(shape, file_bytes),
        parameters=row_parameters(row, shape),
        active=row_parameters(row, shape) - shape.experts * (1 - shape.used),
        row=row,
    )


def row_parameters(row: dict[str, Any], shape: Shape) -> float:
    """The count that llama-bench printed, else the one of the shape."""
    return row["params_b"] * 1e9 if row["params_b"] else shape.parameters


def _backend(row: dict[str, Any]) -> Backend:
    told = (row["backend"] or ("cuda" if "NVIDIA" in (row["gpu"] or "") else "")).casefold()
    for start, backend in _BACKENDS:
        if told.startswith(start):
            return backend
    raise _DroppedError(f"backend {row['backend']}")


def _is_fork(row: dict[str, Any]) -> bool:
    told = f"{row['note']} {row['build']}"
    if "mainline llama.cpp with AMX" in told or told.startswith("mainline llama.cpp"):
        return False
    if "table 2 is mainline" in told:  # told in one note for four tables; only the sizes of table 2 are mainline's
        return row["size_gib"] not in _ALTRA_MAINLINE or "rtr=1" in told
    return "ik_llama" in f"{told} {row['url']}" or "a llama.cpp fork" in told or "fork" in str(row["build"])


_ALTRA_MAINLINE = {1.38, 1.61, 1.58, 1.7, 1.79, 2.14, 2.36, 3.05}


def _is_dated(row: dict[str, Any]) -> bool:
    """Whether a build is from 2023 or 2024: before CUDA graphs everywhere, and when Vulkan was young."""
    return bool(row["date"]) and row["date"] < "2025"


def _vendor(name: str) -> str:
    for word, vendor in (("NVIDIA", "nvidia"), ("AMD", "amd"), ("Intel", "intel"), ("Apple", "apple")):
        if word in name:
            return vendor
    return ""


def _file_bytes(row: dict[str, Any], shape: Shape, shapes: _Shapes, quantization: str) -> float:
    if row["size_gib"]:
        return float(row["size_gib"]) * (1 << 30)
    bits = shapes.bits(quantization)
    if bits is None:
        raise _DroppedError("neither size nor quantization told")
    return row_parameters(row, shape) * bits / 8


def _expert_bytes(shape: Shape, file_bytes: float) -> float:
    if shape.expert_bits:
        return min(file_bytes, shape.experts * shape.expert_bits / 8)
    return file_bytes * shape.experts / shape.parameters


def _active_bytes(shape: Shape, file_bytes: float) -> float:
    experts = _expert_bytes(shape, file_bytes)
    rest = shape.parameters - shape.experts
    return (file_bytes - experts) * (1 - shape.embedding / rest) + experts * shape.used


def _parts(
    row: dict[str, Any],
    shape: Shape,
    backend: Backend,
    quantization: str,
    file_bytes: float,
    depth: float,
    *,
    on_cpu: bool,
) -> tuple[tuple[Hardware, Work], ...]:
    experts = _expert_bytes(shape, file_bytes)
    rest = _active_bytes(shape, file_bytes) - experts * shape.used
    moved = _moved_share(row, shape) if on_cpu else 0.0
    layer_numbers = shape.parameters - shape.experts - shape.embedding - shape.head
    work = Work(
        weights_bytes=rest + experts * shape.used * (1 - moved),
        resident_bytes=rest + experts * (1 - moved),
        layers=shape.layers,
        parameters=max(0.0, layer_numbers) + shape.experts * shape.used * (1 - moved),
        quantization=_type(shape, quantization),
        mixture=shape.experts > 0,
        recurrent=shape.recurrent,
        cache_bytes=shape.kv * depth + shape.window * min(depth, shape.window_tokens),
        attention=shape.heads,
    )
    hardware = _hardware(row, backend, file_bytes, on_cpu=on_cpu)
    count = (row["gpu_count"] or 1) if backend != "cpu" else 1
    split = tuple((hardware, _share(work, 1 / count)) for _ in range(count))
    if not moved:
        return split
    there = Work(
        weights_bytes=experts * shape.used * moved,
        resident_bytes=experts * moved,
        layers=0,
        parameters=shape.experts * shape.used * moved,
        quantization=_type(shape, quantization),
        mixture=True,
    )
    return (*split, (_cpu(row), there))


def _type(shape: Shape, quantization: str) -> str:
    """What most bytes are in: a gpt-oss file called F16 holds its experts in MXFP4 all the same."""
    return "MXFP4" if shape.expert_bits else quantization


def _moved_share(row: dict[str, Any], shape: Shape) -> float:
    if row["n_cpu_moe"]:
        return min(1.0, row["n_cpu_moe"] / shape.layers)
    told = row["ot"] or ""
    if told == "exps=CPU":
        return 1.0
    if match := re.match(r"blk (\d+)-(\d+)", told):
        return (int(match[2]) - int(match[1]) + 1) / shape.layers
    raise _DroppedError("which experts lie on the CPU is not told")


def _share(work: Work, share: float) -> Work:
    return work._replace(
        weights_bytes=work.weights_bytes * share,
        resident_bytes=work.resident_bytes * share,
        layers=work.layers * share,
        parameters=work.parameters * share,
        cache_bytes=work.cache_bytes * share,
        attention=work.attention * share,
    )


def _hardware(row: dict[str, Any], backend: Backend, file_bytes: float, *, on_cpu: bool) -> Hardware:
    if backend == "cpu":
        return _cpu(row)
    facts = device_facts(row["gpu"])
    if facts is None:
        raise _DroppedError(f"no data sheet of {row['gpu']}")
    if facts.memory_gb and file_bytes > 1.05e9 * facts.memory_gb * (row["gpu_count"] or 1) and not on_cpu:
        raise _DroppedError("the file is larger than the device's memory")
    bandwidth = facts.bandwidth_bytes_per_s or _cpu(row).bandwidth_bytes_per_s
    if bandwidth is None:
        raise _DroppedError("bandwidth unknown")
    return Hardware(backend, bandwidth, facts.matrix_flops_per_s, facts.memory, facts.generation)


def _cpu(row: dict[str, Any]) -> Hardware:
    known = _CPU_BANDWIDTH.get(row["cpu"] or "")
    if known is None and "DDR5, 2 channels (AM5)" in (row["ram"] or ""):
        known = 96.0
    threads = row["threads"] or _cores(row)
    generation = "arm" if _ARM.search(row["cpu"] or "") else "x86"
    return Hardware("cpu", known * 1e9 if known else None, generation=generation, threads=threads)


def _cores(row: dict[str, Any]) -> int:
    match = re.search(r"(\d+)[- ](?:cores?|vCPU|Neoverse)", row["cpu"] or "")
    return int(match[1]) if match else 8


def by_device(cases: Iterable[Case]) -> dict[str, list[Case]]:
    """The cases of each device."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.device, []).append(case)
    return found
