"""NVIDIA GPUs through NVML, asked in a child that may hang or crash; prevents "no GPU" and "0 bytes" for a slow driver.

Memory that NVML does not support (GB10, Jetson) is not zero: these parts compute in system RAM. A GPU cut into MIG
slices is listed slice by slice, because CUDA gives a process one slice and never the whole card. Where NVML fails the
card is still listed, with what the kernel knows, its memory unknown.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from planner.machine import pci
from planner.machine.answers import Answers, Recorder
from planner.machine.gpu import Draft, Found

if TYPE_CHECKING:
    from planner.types.machine import Gpu, Memory

__all__ = ["VENDOR", "collect", "interpret"]

VENDOR = 0x10DE
_SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu", "/dev/dxg")
_LIBRARY = "libnvidia-ml.so.1"
_FOLDERS = (
    "/usr/lib/wsl/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu/nvidia",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/run/opengl-driver/lib",
)
_COMPATIBLE = "/proc/device-tree/compatible"
_UNIFIED = ("GB10", "Orin", "Xavier", "Thor", "Tegra", "nvgpu")
_TEGRA = {  # compute capability per Tegra: developer.nvidia.com/cuda-gpus
    "tegra210": ("NVIDIA Tegra X1", "5.3"),
    "tegra186": ("NVIDIA Tegra X2", "6.2"),
    "tegra194": ("NVIDIA Xavier", "7.2"),
    "tegra234": ("NVIDIA Orin", "8.7"),
    "tegra264": ("NVIDIA Thor", "11.0"),
}
_LARGEST = 1 << 50


class _Device(NamedTuple):
    """Answers about one GPU or one MIG slice: value or error name per NVML function."""

    values: dict[str, object]
    errors: dict[str, str]


def collect(ask: Recorder) -> None:
    """Start the NVML child, if anything shows that there is an NVIDIA driver."""
    for text in ("/proc/driver/nvidia/version", _COMPATIBLE):
        ask.file(text)
    for address in ask.listing("/proc/driver/nvidia/gpus"):
        ask.lines(f"/proc/driver/nvidia/gpus/{address}/information", ("Model:",))
    library = _library(ask)
    if library is None and not any(ask.host.exists(sign) for sign in _SIGNS):
        return
    binding = _binding()
    if binding is None:
        ask.fail("nvml", "the package nvidia-ml-py is not installed")
        return
    child = str(Path(__file__).with_name("nvml_child.py"))
    answer = ask.program("nvml", [sys.executable, "-I", child, binding, *([library] if library else [])])
    if answer.failure is not None:
        ask.fail("nvml", answer.failure)


def _library(ask: Recorder) -> str | None:
    """Where the driver's library is, without running ``ldconfig``; ``LD_LIBRARY_PATH`` first."""
    extra = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    return next((path for folder in [*extra, *_FOLDERS] if ask.host.exists(path := f"{folder}/{_LIBRARY}")), None)


def _binding() -> str | None:
    """The file of pynvml, found without importing it."""
    try:
        spec = importlib.util.find_spec("pynvml")
    except (ImportError, ValueError):
        return None
    return spec.origin if spec is not None else None


def interpret(raw: Answers, memory: "Memory") -> Found:
    """Every GPU or MIG slice, and remarks about what went wrong."""
    notes: list[str] = []
    system, found, broken = _lines(raw)
    if broken:
        notes.append(f"NVML: {broken} lines of its answer were garbage and are ignored")
    if (failure := raw.failures.get("nvml")) is not None:
        notes.append(f"NVML: {failure}; GPUs below may lack memory sizes (nvidia-smi shows whether the driver is well)")
    elif "nvmlInit" in system.errors:
        notes.append(f"NVML does not start: {system.errors['nvmlInit']}")
    gpus: list[Gpu] = []
    for number in sorted({device for device, _ in found}):
        parts = sorted(mig for device, mig in found if device == number and mig is not None)
        card = found.get((number, None), _Device({}, {}))
        if not card.values:
            continue
        slices = [found[number, part] for part in parts if _answered(found[number, part])]
        if _mig(card) and not slices:
            notes.append(f"GPU {number} is in MIG mode without a slice: CUDA cannot use it")
        for part in slices or [card]:
            gpus.append(_gpu(len(gpus), part, card, system, memory))
    gpus += _without_nvml(raw, gpus, memory, notes)
    return tuple(gpus), tuple(notes)


def _lines(raw: Answers) -> tuple[_Device, dict[tuple[int, int | None], _Device], int]:
    """The child's lines, sorted into the driver's, each device's and each slice's; and how many were garbage."""
    system = _Device({}, {})
    found: dict[tuple[int, int | None], _Device] = {}
    broken = 0
    program = raw.programs.get("nvml")
    for line in (program.stdout if program else "").splitlines():
        try:
            answer = json.loads(line)
            call, device, mig = str(answer["call"]), answer.get("device"), answer.get("mig")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            broken += 1
            continue
        if device is None:
            target = system
        elif isinstance(device, int) and (mig is None or isinstance(mig, int)):
            target = found.setdefault((device, mig), _Device({}, {}))
        else:
            broken += 1
            continue
        if "value" in answer:
            target.values[call] = answer["value"]
        else:
            target.errors[call] = str(answer.get("error", ""))
    return system, found, broken


def _answered(part: _Device) -> bool:
    return "nvmlDeviceGetMemoryInfo" in part.values


def _mig(card: _Device) -> bool | None:
    mode = card.values.get("nvmlDeviceGetMigMode")
    return mode[0] == 1 if isinstance(mode, list) and mode else None


def _gpu(index: int, part: _Device, card: _Device, system: _Device, memory: "Memory") -> "Gpu":
    draft = Draft("nvidia", "cuda", "NVML")
    name = _text(part.values.get("nvmlDeviceGetName")) or _text(card.values.get("nvmlDeviceGetName"))
    draft.put("name", name, "NVML nvmlDeviceGetName")
    unified = _is_unified(part, name)
    draft.put("unified_memory", unified, "the GPU's name, and whether NVML supports the question for its memory")
    if unified:
        draft.ram(memory).gap("pcie_generation pcie_lanes", "on the chip, no PCIe link")
        draft.gap("bandwidth_bytes_per_s", "NVML does not tell for memory that is shared")
    else:
        _put_memory(draft, part)
        _put_link(draft, card)
    if part is not card:
        draft.gap("bandwidth_bytes_per_s", "a MIG slice gets a share that NVML does not tell")
    elif not unified:
        draft.put("bandwidth_bytes_per_s", _bandwidth(card), "2 × memory clock × bus width, from NVML")
    capability = _capability(card.values.get("nvmlDeviceGetCudaComputeCapability"))
    watts = _number(card.values.get("nvmlDeviceGetPowerManagementLimit"))
    draft.put("compute_capability", capability, "NVML nvmlDeviceGetCudaComputeCapability")
    draft.put("mig", _mig(card), "NVML nvmlDeviceGetMigMode", "this GPU has no MIG mode")
    draft.put("driver", _text(system.values.get("nvmlSystemGetDriverVersion")), "NVML nvmlSystemGetDriverVersion")
    draft.put("power_limit_watts", watts / 1000 if watts else None, "NVML nvmlDeviceGetPowerManagementLimit")
    draft.put("pci_address", _address(card), "NVML nvmlDeviceGetPciInfo")
    return draft.build(index)


def _put_memory(draft: Draft, part: _Device) -> None:
    total, free = _memory(part)
    why = f"NVML says {part.errors.get('nvmlDeviceGetMemoryInfo', 'nothing')}"
    draft.put("memory_total_bytes", total, "NVML nvmlDeviceGetMemoryInfo", why)
    draft.put("memory_free_bytes", free, "NVML nvmlDeviceGetMemoryInfo", why)


def _put_link(draft: Draft, card: _Device) -> None:
    generation = _number(card.values.get("nvmlDeviceGetMaxPcieLinkGeneration"))
    lanes = [_number(card.values.get(f"nvmlDeviceGet{which}PcieLinkWidth")) for which in ("Curr", "Max")]
    draft.put("pcie_generation", generation or None, "NVML, highest of card and slot")
    draft.put("pcie_lanes", lanes[0] or lanes[1] or None, "NVML, link as it is now")


def _is_unified(part: _Device, name: str | None) -> bool:
    """Parts that compute in system RAM: by name, or because NVML does not support (or answers 0 to) the question.

    Drivers for GB10 differ: most say "not supported", some answer zero.
    """
    if any(word in (name or "") for word in _UNIFIED):
        return True
    info = part.values.get("nvmlDeviceGetMemoryInfo")
    zero = isinstance(info, dict) and info.get("total") == 0
    return zero or part.errors.get("nvmlDeviceGetMemoryInfo") == "NVMLError_NotSupported"


def _memory(part: _Device) -> tuple[int | None, int | None]:
    info = part.values.get("nvmlDeviceGetMemoryInfo")
    if not isinstance(info, dict):
        return None, None
    total, free = _number(info.get("total")), _number(info.get("free"))
    if not total:
        return None, None
    return total, None if free is None else min(free, total)


def _bandwidth(card: _Device) -> int | None:
    """Bytes per second: two transfers a clock over the bus, as CUDA's deviceQuery sample computes it."""
    clock = _number(card.values.get("nvmlDeviceGetMaxClockInfo"))
    width = _number(card.values.get("nvmlDeviceGetMemoryBusWidth"))
    if not clock or not width or clock > 100_000 or width > 100_000:
        return None
    return 2 * clock * 1_000_000 * width // 8


def _capability(value: object) -> str | None:
    if isinstance(value, list) and len(value) == 2 and all(_number(part) is not None for part in value):
        return f"{value[0]}.{value[1]}"
    return None


def _address(card: _Device) -> str | None:
    info = card.values.get("nvmlDeviceGetPciInfo")
    text = _text(info.get("busId")) if isinstance(info, dict) else None
    return text.lower()[-12:] if text else None


def _text(value: object) -> str | None:
    return value.strip()[:200] or None if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST else None


def _without_nvml(raw: Answers, known: "list[Gpu]", memory: "Memory", notes: list[str]) -> "list[Gpu]":
    """Cards that the kernel lists and NVML did not: named, with unknown memory; Jetsons by their device tree."""
    seen = {gpu.pci_address for gpu in known}
    gpus: list[Gpu] = []
    for device in pci.devices(raw):
        if device.vendor != VENDOR or device.address.lower() in seen:
            continue
        if device.driver is None:
            notes.append(f"an NVIDIA device at {device.address} has no driver loaded")
        model = raw.text(f"/proc/driver/nvidia/gpus/{device.address}/information") or ""
        name = model.removeprefix("Model:").strip() or device.name
        gpus.append(_bare(len(known) + len(gpus), raw, device, name))
    compatible = raw.text(_COMPATIBLE) or ""
    tegra = next((chip for chip in _TEGRA if f"nvidia,{chip}" in compatible), None)
    if tegra is not None and not known and not gpus:
        gpus.append(_jetson(_TEGRA[tegra], memory))
    return gpus


def _bare(index: int, raw: Answers, device: pci.PciDevice, name: str | None) -> "Gpu":
    generation, lanes = pci.link(raw, device)
    open_driver = device.driver in ("nouveau", "nova")
    draft = Draft("nvidia", "vulkan" if open_driver else "cuda", device.folder)
    draft.put("name", name, "kernel driver or pci.ids")
    draft.put("unified_memory", value=False, source="a card on the PCI bus")
    draft.put("driver", device.driver, f"{device.folder}/uevent", "no driver loaded")
    draft.put("pcie_generation", generation, device.folder).put("pcie_lanes", lanes, device.folder)
    draft.put("pci_address", device.address, pci.ROOT)
    draft.gap("memory_total_bytes memory_free_bytes bandwidth_bytes_per_s", "NVML did not answer for this card")
    return draft.gap("compute_capability mig power_limit_watts", "NVML did not answer for this card").build(index)


def _jetson(chip: tuple[str, str], memory: "Memory") -> "Gpu":
    draft = Draft("nvidia", "cuda", _COMPATIBLE).put("name", chip[0], _COMPATIBLE).ram(memory)
    draft.put("unified_memory", value=True, source="a Tegra chip")
    draft.put("compute_capability", chip[1], "NVIDIA's list of CUDA GPUs")
    draft.gap("bandwidth_bytes_per_s mig driver power_limit_watts", "this Jetson's driver has no NVML")
    return draft.gap("pcie_generation pcie_lanes pci_address", "on the chip, no PCIe link").build(0)
