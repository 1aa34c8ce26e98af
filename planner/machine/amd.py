"""AMD GPUs through amdgpu's sysfs files; prevents taking an APU's 512 MiB carve-out for all it can use.

An APU uses its carve-out (VRAM, cut out of RAM by the firmware) and system RAM mapped for it (GTT) interchangeably; a
card's GTT is only a window into system RAM and never counts as its memory. GTT may even be set larger than the RAM
there is. Sources: the kernel's Documentation/gpu/amdgpu/driver-misc.rst, kfd topology; gfx numbers: LLVM's AMDGPU
usage guide.
"""

import re
from typing import TYPE_CHECKING, NamedTuple

from planner.machine import pci
from planner.machine.answers import Answers, Recorder
from planner.machine.gpu import Draft, Found

if TYPE_CHECKING:
    from planner.types.machine import Gpu, Memory

__all__ = ["VENDOR", "collect", "interpret"]

VENDOR = 0x1002
_KFD = "/sys/class/kfd/kfd/topology/nodes"
_NAMES = ("/usr/share/libdrm/amdgpu.ids", "/opt/amdgpu/share/libdrm/amdgpu.ids")
_FILES = (
    "mem_info_vram_total",
    "mem_info_vram_used",
    "mem_info_gtt_total",
    "mem_info_gtt_used",
    "product_name",
    "apu_thermal_cap",
    "ip_discovery/die/0/GC/0/major",
    "ip_discovery/die/0/GC/0/minor",
    "ip_discovery/die/0/GC/0/revision",
)
_KFD_LINES = ("gfx_target_version", "location_id", "domain ", "simd_count", "cpu_cores_count")
_APUS = frozenset(
    {
        *("gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036", "gfx1037"),
        *("gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153"),
    }
)


class _Pools(NamedTuple):
    """Bytes of the two memories that amdgpu manages."""

    vram_total: int | None
    vram_used: int | None
    gtt_total: int | None
    gtt_used: int | None


def collect(ask: Recorder) -> None:
    """Read amdgpu's files of every AMD device, the compute nodes and the names table."""
    mine = [device for device in pci.devices(ask.answers()) if device.vendor == VENDOR]
    if not mine:
        return
    for device in mine:
        for name in _FILES:
            ask.file(f"{device.folder}/{name}")
        for hwmon in ask.listing(f"{device.folder}/hwmon"):
            ask.file(f"{device.folder}/hwmon/{hwmon}/power1_cap")
    for node in ask.listing(_KFD):
        ask.lines(f"{_KFD}/{node}/properties", _KFD_LINES)
    numbers = tuple(f"{device.device:04X}," for device in mine)
    for path in _NAMES:
        if ask.excerpt(path, lambda text: "".join(r for r in text.splitlines(keepends=True) if r.startswith(numbers))):
            break


def interpret(raw: Answers, memory: "Memory") -> Found:
    """Every AMD GPU, cards and APUs."""
    gpus: list[Gpu] = []
    notes: list[str] = []
    for device in pci.devices(raw):
        if device.vendor != VENDOR:
            continue
        if device.driver is None:
            notes.append(f"an AMD device at {device.address} has no driver loaded")
        gpus.append(_gpu(len(gpus), raw, device, memory, notes))
    return tuple(gpus), tuple(notes)


def _gpu(index: int, raw: Answers, device: pci.PciDevice, memory: "Memory", notes: list[str]) -> "Gpu":
    pools = _pools(raw, device)
    gfx = _gfx(raw, device)
    apu = _is_apu(raw, device, gfx, pools)
    compute = _kfd_node(raw, device) is not None
    draft = Draft("amd", "rocm" if compute else "vulkan", device.folder)
    draft.put("name", _name(raw, device), "amdgpu.ids, product_name or pci.ids", "no table names this device")
    if apu and (pools.gtt_total or 0) >= (pools.vram_total or 0):
        _put_shared(draft, pools, memory)
    else:
        _put_own(draft, pools)
        if apu:
            notes.append(
                f"{device.address}: the firmware cut {(pools.vram_total or 0) >> 20} MiB out of RAM for this GPU; "
                "a smaller carve-out would let CPU and GPU share them"
            )
    draft.put("gtt_total_bytes", pools.gtt_total, f"{device.folder}/mem_info_gtt_total")
    draft.put("compute_capability", gfx, "kfd gfx_target_version or ip_discovery")
    draft.put("driver", device.driver, f"{device.folder}/uevent", "no driver loaded")
    draft.put(
        "power_limit_watts", _watts(raw, device), "hwmon power1_cap", "an APU has none" if apu else "not reported"
    )
    generation, lanes = (None, None) if apu else pci.link(raw, device)
    linked = "on the chip" if apu else "the kernel does not tell"
    draft.put("pcie_generation", generation, f"{device.folder}/max_link_speed", linked)
    draft.put("pcie_lanes", lanes, f"{device.folder}/current_link_width", linked)
    draft.put("pci_address", device.address, pci.ROOT)
    draft.gap("bandwidth_bytes_per_s", "amdgpu does not tell").gap("mig", "only NVIDIA has MIG")
    return draft.build(index)


def _put_shared(draft: Draft, pools: _Pools, memory: "Memory") -> None:
    """An APU: the carve-out plus what it may map of RAM, which is never more than there is."""
    vram = pools.vram_total or 0
    mapped = min(pools.gtt_total or 0, memory.total_bytes)
    left = max(0, mapped - (pools.gtt_used or 0))
    free = max(0, vram - (pools.vram_used or 0)) + min(left, memory.usable_bytes)
    draft.put("unified_memory", value=True, source="an APU whose carve-out is not larger than its GTT")
    draft.put("memory_total_bytes", vram + mapped, "mem_info_vram_total + mem_info_gtt_total (at most all of RAM)")
    draft.put("memory_free_bytes", min(free, vram + mapped), "free carve-out + smaller of free GTT and usable RAM")


def _put_own(draft: Draft, pools: _Pools) -> None:
    """A card, or an APU whose large carve-out is lost to the system anyway."""
    total, used = pools.vram_total, pools.vram_used
    free = None if total is None or used is None else max(0, total - used)
    why = "the driver has no mem_info files"
    draft.put("unified_memory", value=False, source="memory of its own (VRAM)")
    draft.put("memory_total_bytes", total, "mem_info_vram_total", why)
    draft.put("memory_free_bytes", free, "mem_info_vram_total − mem_info_vram_used", why)


def _pools(raw: Answers, device: pci.PciDevice) -> _Pools:
    values = [raw.number(f"{device.folder}/{name}") for name in _FILES[:4]]
    return _Pools(*[value if value is not None and value < 1 << 50 else None for value in values])


def _is_apu(raw: Answers, device: pci.PciDevice, gfx: str | None, pools: _Pools) -> bool:
    """Whether GPU and CPU are one chip: by its gfx number, by a file only APUs have, or by a telling ratio.

    Old APUs tell neither: then no power cap and a GTT of at least eight carve-outs decide.
    """
    if gfx in _APUS or raw.text(f"{device.folder}/apu_thermal_cap") is not None:
        return True
    if gfx is not None or not pools.vram_total or not pools.gtt_total:
        return False
    return _watts(raw, device) is None and pools.gtt_total >= 8 * pools.vram_total


def _gfx(raw: Answers, device: pci.PciDevice) -> str | None:
    """``gfx1151``: from the compute node (decimal 110501), else from the chip's own list of its parts."""
    node = _kfd_node(raw, device)
    version = (node or {}).get("gfx_target_version", 0)
    parts = [version // 10000, version // 100 % 100, version % 100]
    if not version:
        numbers = [raw.number(f"{device.folder}/{name}") for name in _FILES[-3:]]
        parts = [number for number in numbers if number is not None and number < 256]
    if len(parts) != 3 or not any(parts):
        return None
    if not version and parts[0] == 9:  # before 10 the part's version is not the shader's
        return None
    return f"gfx{parts[0]}{parts[1]:x}{parts[2]:x}"


def _kfd_node(raw: Answers, device: pci.PciDevice) -> dict[str, int] | None:
    """The compute node of a device: its location is the bus number × 256 + device and function."""
    match = re.fullmatch(r"([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])", device.address)
    if match is None:
        return None
    domain, bus, slot, function = (int(part, 16) for part in match.groups())
    for node in raw.folder(_KFD):
        properties = _properties(raw.files.get(f"{_KFD}/{node}/properties", ""))
        here = properties.get("location_id") == (bus << 8 | slot << 3 | function)
        if properties.get("simd_count") and here and properties.get("domain", 0) == domain:
            return properties
    return None


def _properties(text: str) -> dict[str, int]:
    return {
        words[0]: int(words[1]) for line in text.splitlines() if len(words := line.split()) == 2 and _short(words[1])
    }


def _short(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


def _name(raw: Answers, device: pci.PciDevice) -> str | None:
    """The marketing name: libdrm's table by device and revision, the board's own, the PCI table."""
    for path in _NAMES:
        for line in raw.files.get(path, "").splitlines():
            parts = [part.strip() for part in line.split(",", 2)]
            if len(parts) == 3 and parts[:2] == [f"{device.device:04X}", f"{device.revision or 0:02X}"]:
                return parts[2]
    return raw.text(f"{device.folder}/product_name") or device.name


def _watts(raw: Answers, device: pci.PciDevice) -> float | None:
    for hwmon in raw.folder(f"{device.folder}/hwmon"):
        microwatts = raw.number(f"{device.folder}/hwmon/{hwmon}/power1_cap")
        if microwatts:
            return microwatts / 1e6
    return None
