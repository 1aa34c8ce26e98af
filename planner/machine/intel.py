"""Intel GPUs through i915 and xe sysfs files; prevents "Arc, 0 GB" and a budget of its own for an integrated GPU.

Arc cards tell their memory in driver files; older kernels do not, then the size of the card's memory window (PCI BAR 2,
with Resizable BAR) bounds it and the model's data sheet decides. Integrated GPUs sit at 00:02.0 and use system RAM, of
which Mesa's Vulkan driver offers three quarters (half when there are at most 4 GiB).
"""

from typing import TYPE_CHECKING

from planner.machine import pci
from planner.machine.answers import Answers, Recorder, natural
from planner.machine.gpu import Draft, Found

if TYPE_CHECKING:
    from planner.types.machine import Gpu, Memory

__all__ = ["VENDOR", "collect", "interpret"]

VENDOR = 0x8086
_GIB = 1 << 30
_CARDS: dict[int, tuple[str, int]] = {  # data sheets; sizes as in Intel's product pages (A770 also exists with 8 GB)
    0x56A0: ("Intel Arc A770", 16),
    0x56A1: ("Intel Arc A750", 8),
    0x56A2: ("Intel Arc A580", 8),
    0x56A5: ("Intel Arc A380", 6),
    0x56A6: ("Intel Arc A310", 4),
    0xE20B: ("Intel Arc B580", 12),
    0xE20C: ("Intel Arc B570", 10),
    0xE211: ("Intel Arc Pro B60", 24),
    0xE212: ("Intel Arc Pro B50", 16),
}


def collect(ask: Recorder) -> None:
    """Read memory sizes, the memory window and the power limit of every Intel GPU."""
    for device in pci.devices(ask.answers()):
        if device.vendor != VENDOR:
            continue
        ask.file(f"{device.folder}/resource")
        for name in ask.listing(device.folder):
            if name.startswith("tile"):
                ask.file(f"{device.folder}/{name}/physical_vram_size_bytes")
        for card in ask.listing(f"{device.folder}/drm"):
            for name in ("lmem_total_bytes", "lmem_avail_bytes"):
                ask.file(f"{device.folder}/drm/{card}/{name}")
        for hwmon in ask.listing(f"{device.folder}/hwmon"):
            for name in ("power1_cap", "power1_max"):
                ask.file(f"{device.folder}/hwmon/{hwmon}/{name}")


def interpret(raw: Answers, memory: "Memory") -> Found:
    """Every Intel GPU, cards and integrated ones."""
    gpus: list[Gpu] = []
    notes: list[str] = []
    for device in pci.devices(raw):
        if device.vendor != VENDOR:
            continue
        if device.driver is None:
            notes.append(f"an Intel GPU at {device.address} has no driver loaded")
        gpus.append(_gpu(len(gpus), raw, device, memory))
    return tuple(gpus), tuple(notes)


def _gpu(index: int, raw: Answers, device: pci.PciDevice, memory: "Memory") -> "Gpu":
    integrated = device.address.endswith(":00:02.0")
    known = _CARDS.get(device.device)
    draft = Draft("intel", "vulkan", device.folder)
    draft.put("name", device.name or (known[0] if known else None), "pci.ids or device number", "no table names it")
    draft.put("unified_memory", integrated, "its PCI address: integrated GPUs are at 00:02.0")
    if integrated:
        share = memory.total_bytes // 2 if memory.total_bytes <= 4 * _GIB else memory.total_bytes // 4 * 3
        draft.put("memory_total_bytes", share, "share of system RAM that Mesa's Vulkan driver offers")
        draft.put("memory_free_bytes", min(share, memory.usable_bytes), "smaller of that share and usable RAM")
        draft.gap("pcie_generation pcie_lanes power_limit_watts", "on the chip")
    else:
        _put_card(draft, raw, device)
    draft.put("driver", device.driver, f"{device.folder}/uevent", "no driver loaded")
    draft.put("pci_address", device.address, pci.ROOT)
    draft.gap("bandwidth_bytes_per_s compute_capability", "the driver does not tell").gap("mig", "only NVIDIA has MIG")
    return draft.build(index)


def _put_card(draft: Draft, raw: Answers, device: pci.PciDevice) -> None:
    total, source = _card_memory(raw, device)
    free = _lmem(raw, device, "lmem_avail_bytes")
    draft.put("memory_total_bytes", total, source, "neither driver nor data sheet tell")
    free = min(free, total) if free is not None and total is not None else None
    draft.put("memory_free_bytes", free, "drm/lmem_avail_bytes", "the driver does not tell without root")
    draft.put("power_limit_watts", _watts(raw, device), "hwmon power1_cap or power1_max")
    draft.gap("pcie_generation pcie_lanes", "Arc reports its inner link (2.5 GT/s ×1), not the slot's")


def _card_memory(raw: Answers, device: pci.PciDevice) -> tuple[int | None, str]:
    tiles = [
        size
        for name in raw.folder(device.folder)
        if (size := raw.number(f"{device.folder}/{name}/{_XE_SIZE}")) is not None
    ]
    if 0 < sum(tiles) < 1 << 50:
        return sum(tiles), f"xe {_XE_SIZE}"
    if total := _lmem(raw, device, "lmem_total_bytes"):
        return total, "i915 lmem_total_bytes"
    window = _window(raw, device)
    known = _CARDS.get(device.device)
    if known is not None:
        # A window of 256 MiB is the old fixed size and says nothing; a larger one is the memory rounded up.
        size = known[1] * _GIB
        return (min(size, window) if window and window > 256 << 20 else size), "data sheet of this device number"
    return None, ""


_XE_SIZE = "physical_vram_size_bytes"


def _lmem(raw: Answers, device: pci.PciDevice, name: str) -> int | None:
    for card in raw.folder(f"{device.folder}/drm"):
        size = raw.number(f"{device.folder}/drm/{card}/{name}")
        if size is not None and size < 1 << 50:
            return size
    return None


def _window(raw: Answers, device: pci.PciDevice) -> int | None:
    """Bytes of PCI BAR 2, through which the CPU sees the card's memory: third line of ``resource``, start and end."""
    lines = raw.files.get(f"{device.folder}/resource", "").splitlines()
    words = lines[2].split() if len(lines) > 2 else []
    if len(words) < 2:
        return None
    start, end = natural(words[0]), natural(words[1])
    return end - start + 1 if start and end and start < end else None


def _watts(raw: Answers, device: pci.PciDevice) -> float | None:
    for hwmon in raw.folder(f"{device.folder}/hwmon"):
        for name in ("power1_cap", "power1_max"):
            microwatts = raw.number(f"{device.folder}/hwmon/{hwmon}/{name}")
            if microwatts:
                return microwatts / 1e6
    return None
