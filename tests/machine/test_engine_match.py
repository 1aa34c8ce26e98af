"""The engine's devices find their GPUs; what only one side sees is said."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from planner.machine import detect, load, match_engine
from planner.machine.isa import _FLAGS
from planner.types.machine import Engine, EngineDevice

GIB = 1 << 30


def engine(*devices, offload=True):
    """An engine with a CPU and these devices: name, description, kind, total and free GiB."""
    listed = [EngineDevice(name="CPU", description="x", kind="cpu", memory_total_bytes=GIB, memory_free_bytes=GIB)]
    for name, description, kind, total, free in devices:
        listed.append(
            EngineDevice(
                name=name,
                description=description,
                kind=kind,
                memory_total_bytes=None if total is None else int(total * GIB),
                memory_free_bytes=None if free is None else int(free * GIB),
            )
        )
    return Engine(
        package_version="0.3.36", build="b", llama_cpp=None, system_info="", gpu_offload=offload, devices=tuple(listed)
    )


def names(machine):
    """Each GPU's name in the engine."""
    return [gpu.engine_device for gpu in machine.gpus]


def test_equal_cards_match_in_order():
    """Two RTX 3090: CUDA0 is the first, CUDA1 the second; NVML's memory stays."""
    machine = load("2x-rtx-3090")
    card = "NVIDIA GeForce RTX 3090"
    matched = match_engine(machine, engine(("CUDA0", card, "gpu", 23.6, 23.3), ("CUDA1", card, "gpu", 23.6, 23.3)))
    assert names(matched) == ["CUDA0", "CUDA1"]
    assert matched.gpus[0].memory_total_bytes == machine.gpus[0].memory_total_bytes
    assert matched.gpus[0].sources["engine_device"] == "the engine's device list, CUDA0"
    assert "engine_device" not in matched.gpus[0].notes


def test_a_cpu_build_knows_no_gpu_and_says_why():
    """The GPU is there, the engine cannot use it."""
    matched = match_engine(load("rtx-4090"), engine(offload=False))
    assert names(matched) == [None]
    assert matched.gpus[0].notes["engine_device"] == "this engine was built for the CPU only"
    assert matched.engine is not None


def test_a_card_listed_by_two_backends_is_one_card():
    """CUDA0 and Vulkan0 of the same card: the first name wins, no second GPU appears."""
    matched = match_engine(
        load("rtx-4090"),
        engine(
            ("CUDA0", "NVIDIA GeForce RTX 4090", "gpu", 23.5, 23.0),
            ("Vulkan0", "NVIDIA GeForce RTX 4090", "gpu", 24.0, 23.0),
        ),
    )
    assert names(matched) == ["CUDA0"]


@pytest.mark.parametrize(
    ("machine", "device", "backend"),
    [
        ("strix-halo-128gb", ("Vulkan0", "AMD Radeon Graphics (RADV GFX1151)", "igpu", 126.9, 126.9), "vulkan"),
        ("strix-halo-128gb", ("ROCm0", "AMD Radeon Graphics", "gpu", 62.5, 120), "rocm"),
        ("rx-7900-xtx", ("Vulkan0", "AMD Radeon RX 7900 XTX (RADV NAVI31)", "gpu", 24.0, 23.9), "vulkan"),
        ("arc-b580-12gb", ("SYCL0", "Intel(R) Arc(TM) B580 Graphics", "gpu", 11.6, 11.6), "sycl"),
        ("m3-max-64gb", ("MTL0", "Apple M3 Max", "gpu", 48, 48), "metal"),
        ("m3-max-64gb", ("Metal", "Apple M3 Max", "gpu", 48, 48), "metal"),
    ],
)
def test_names_match_across_spellings(machine, device, backend):
    """Drivers write the same card in many ways; the backend is the engine's."""
    matched = match_engine(load(machine), engine(device))
    assert names(matched) == [device[0]]
    assert matched.gpus[0].backend == backend


def test_a_share_of_ram_becomes_the_engines_own_figure():
    """Metal's share on a recent macOS replaces our assumption; free never grows."""
    machine = load("m3-max-64gb")
    gpu = match_engine(machine, engine(("Metal", "Apple M3 Max", "gpu", 53.0, 53.0))).gpus[0]
    assert gpu.memory_total_bytes == 53 * GIB
    assert gpu.memory_free_bytes == machine.gpus[0].memory_free_bytes


def test_more_free_than_total_is_clamped():
    """As Vulkan reports on Intel (llama.cpp issue 29277)."""
    gpu = match_engine(load("container-4gb"), engine(("Vulkan0", "Intel(R) Graphics", "igpu", 10, 14))).gpus[0]
    assert (gpu.memory_total_bytes, gpu.memory_free_bytes) == (10 * GIB, 10 * GIB)


def test_a_device_that_only_the_engine_sees_becomes_a_gpu():
    """It carries the engine as its source."""
    matched = match_engine(load("container-4gb"), engine(("CUDA0", "NVIDIA GeForce RTX 5090", "gpu", 31.4, 30.8)))
    gpu = matched.gpus[0]
    assert (gpu.vendor, gpu.backend, gpu.engine_device) == ("nvidia", "cuda", "CUDA0")
    assert gpu.sources["memory_total_bytes"] == "the engine's device list, CUDA0"
    assert gpu.notes["driver"]


def test_two_vendors_do_not_swap():
    """A laptop with an Intel iGPU and an NVIDIA card, listed by the engine in the other order."""
    intel, nvidia = load("arc-b580-12gb").gpus[0], load("rtx-3060-12gb").gpus[0]
    machine = msgspec.structs.replace(load("container-4gb"), gpus=(intel, msgspec.structs.replace(nvidia, index=1)))
    matched = match_engine(
        machine,
        engine(
            ("Vulkan0", "NVIDIA GeForce RTX 3060", "gpu", 12.0, 11.5),
            ("Vulkan1", "Intel(R) Arc(tm) B580 Graphics (BMG G21)", "gpu", 12.0, 11.5),
        ),
    )
    assert names(matched) == ["Vulkan1", "Vulkan0"]


def test_a_second_answer_replaces_the_first():
    """Matching again with a CPU build takes the engine's name away."""
    once = match_engine(load("rtx-4090"), engine(("CUDA0", "NVIDIA GeForce RTX 4090", "gpu", 23.5, 23.0)))
    again = match_engine(once, engine(offload=False))
    assert names(again) == [None]
    assert "engine_device" not in again.gpus[0].sources


@pytest.mark.engine
def test_the_engines_own_isa_is_part_of_ours():
    """Every instruction set that the engine prints as its own is one that detection found on this processor."""
    pytest.importorskip("llama_cpp")
    code = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    printed = {name for name, value in re.findall(r"([A-Z0-9_]+) = (\d)", answer.stdout) if value == "1"}
    common = printed & {name for name, _ in _FLAGS}
    assert common
    assert common <= set(detect(models_dir=Path("/models")).cpu.isa)
