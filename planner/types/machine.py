"""What a computer is, as far as a deployment plan needs it; the mistake it prevents is a number without a source.

Every struct with ``sources`` and ``notes`` obeys one law, held by a test: a field that has a value has an entry in
``sources`` that says where it was read; a field that is ``None`` has an entry in ``notes`` that says why.
"""

from typing import Literal

from planner.types import Report

__all__ = [
    "Backend",
    "Cache",
    "CgroupLimit",
    "CoreKind",
    "Cpu",
    "Disk",
    "Engine",
    "EngineDevice",
    "Gpu",
    "Machine",
    "MachineKind",
    "Memory",
    "NumaNode",
    "Power",
]

MachineKind = Literal["detected", "recorded", "described"]
Backend = Literal["cpu", "cuda", "rocm", "vulkan", "sycl", "metal"]


class Cache(Report, frozen=True, kw_only=True):
    """One kind of cache: ``size_bytes`` of one instance and how many ``instances`` the machine has."""

    level: int
    kind: Literal["data", "instruction", "unified"]
    size_bytes: int
    instances: int | None = None


class CoreKind(Report, frozen=True, kw_only=True):
    """A group of equal physical cores: ``performance``, ``efficiency``, ``low-power`` or ``uniform``."""

    name: str
    cores: int
    max_mhz: int | None = None


class NumaNode(Report, frozen=True, kw_only=True):
    """One NUMA node with its memory and how many logical CPUs belong to it."""

    node: int
    memory_total_bytes: int | None
    logical_cpus: int


class Cpu(Report, frozen=True, kw_only=True):
    """The processor and what of it this process may use.

    ``isa`` lists, in llama.cpp's own spelling (``AVX2``, ``AVX512_VNNI``, ``NEON``, ``DOTPROD``), the instruction
    sets that its kernels use. ``usable_threads`` is the minimum of affinity, cgroup quota (rounded up) and physical
    cores inside the affinity mask.
    """

    model: str | None
    vendor: str | None
    sockets: int | None
    physical_cores: int | None
    logical_cpus: int
    core_kinds: tuple[CoreKind, ...] = ()
    isa: tuple[str, ...] = ()
    caches: tuple[Cache, ...] = ()
    numa_nodes: tuple[NumaNode, ...] = ()
    affinity_cpus: int | None
    quota_cpus: float | None
    usable_threads: int
    sources: dict[str, str] = {}
    notes: dict[str, str] = {}


class CgroupLimit(Report, frozen=True, kw_only=True):
    """One memory limit of an ancestor cgroup; ``available_bytes`` = limit − (usage − inactive file cache)."""

    path: str
    version: Literal["v1", "v2"]
    limit_bytes: int
    used_bytes: int
    available_bytes: int


class Memory(Report, frozen=True, kw_only=True):
    """RAM; ``usable_bytes`` is the minimum of ``available_bytes`` and of every cgroup limit above this process.

    ``bandwidth_bytes_per_s`` is a fact from a data sheet (described machines), never measured here.
    """

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int | None
    swap_free_bytes: int | None
    limits: tuple[CgroupLimit, ...] = ()
    usable_bytes: int
    bandwidth_bytes_per_s: int | None = None
    sources: dict[str, str] = {}
    notes: dict[str, str] = {}


class Disk(Report, frozen=True, kw_only=True):
    """The file system where models go; ``path`` never names a user."""

    path: str
    total_bytes: int | None
    free_bytes: int | None
    sources: dict[str, str] = {}
    notes: dict[str, str] = {}


class Power(Report, frozen=True, kw_only=True):
    """Mains or battery; ``on_battery`` is ``None`` where the system does not tell."""

    on_battery: bool | None
    battery_percent: float | None
    sources: dict[str, str] = {}
    notes: dict[str, str] = {}


class Gpu(Report, frozen=True, kw_only=True):
    """One device that computes and holds weights.

    ``unified_memory`` means its memory *is* system RAM: one budget, not two. ``memory_total_bytes`` is then what the
    GPU may address of it.
    """

    index: int
    vendor: Literal["nvidia", "amd", "intel", "apple"]
    name: str | None
    backend: Backend
    memory_total_bytes: int | None
    memory_free_bytes: int | None
    unified_memory: bool
    gtt_total_bytes: int | None = None
    bandwidth_bytes_per_s: int | None = None
    compute_capability: str | None = None
    mig: bool | None = None
    driver: str | None = None
    power_limit_watts: float | None = None
    pcie_generation: int | None = None
    pcie_lanes: int | None = None
    pci_address: str | None = None
    engine_device: str | None = None
    sources: dict[str, str] = {}
    notes: dict[str, str] = {}


class EngineDevice(Report, frozen=True, kw_only=True):
    """A device as the engine itself lists it (``CPU``, ``CUDA0``).

    ggml reports the CPU's free memory as its total, so RAM is never planned from here.
    """

    name: str
    description: str
    kind: Literal["cpu", "gpu", "igpu", "accel", "other"]
    memory_total_bytes: int | None
    memory_free_bytes: int | None


class Engine(Report, frozen=True, kw_only=True):
    """The llama.cpp build that answers: versions, its own system info, its devices.

    ``build`` identifies the very shared library (a hash of its contents): everything cached from the engine is keyed
    by it, so an upgrade is seen and never inherited.
    """

    package_version: str
    build: str
    llama_cpp: str | None
    system_info: str
    gpu_offload: bool
    devices: tuple[EngineDevice, ...]


class Machine(Report, frozen=True, kw_only=True):
    """One computer: detected now, recorded once and replayed, or described by a person from data sheets."""

    schema: str = "planner/machine/1"
    name: str
    kind: MachineKind
    os: str
    kernel: str | None
    architecture: str
    cpu: Cpu
    memory: Memory
    disk: Disk | None
    power: Power
    gpus: tuple[Gpu, ...] = ()
    engine: Engine | None = None
    source: str
    notes: tuple[str, ...] = ()
