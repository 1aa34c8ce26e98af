"""Rows for devices that the engine itself sees; the buffers are those of published load logs, no GPU is here."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.engine.answers import Buffer, Buffers, LayerBytes, Weights
from planner.estimate.devices import DRIVER_BYTES, in_one_budget, memory_on_devices, unified_budget_bytes
from planner.estimate.rows import device_row
from planner.machine import load
from planner.types.settings import Settings

MIB = 1 << 20
SETTINGS = Settings(context_tokens=4096, load_mode="mmap")


def buffer(name, *, host, cache=0.0, compute=0.0):
    """A buffer type in MiB, as a log tells it."""
    return Buffer(name=name, host=host, model_bytes=0, context_bytes=int(cache * MIB), compute_bytes=int(compute * MIB))


def weights(**buffers):
    """Weights by buffer type in MiB."""
    sizes = {name: int(size * MIB) for name, size in buffers.items()}
    layer = LayerBytes(dense_bytes=1, expert_bytes=0)
    return Weights(
        file_bytes=sum(sizes.values()),
        buffers=sizes,
        mapped=sizes,
        layers=(layer,),
        input_bytes=0,
        head_bytes=0,
        tied=True,
    )


def on(name, device, held, full):
    """Rows by device on a shipped machine whose GPU the engine calls ``device``."""
    found = load(name)
    gpus = tuple(msgspec.structs.replace(gpu, engine_device=device) for gpu in found.gpus[:1])
    machine = msgspec.structs.replace(found, gpus=gpus)
    return machine, memory_on_devices(machine, SETTINGS, held, full, process_bytes=0, origin="engine")


def test_a_full_offload_is_split_as_the_engine_prints_it():
    """Qwen3-0.6B Q8_0 on one GPU: 604.15 + 448 + 298.75 MiB there, 157.65 mapped and 10.01 pinned on the host."""
    full = Buffers(
        buffers=(
            buffer("ROCm0", host=False, cache=448.0, compute=298.75),
            buffer("ROCm_Host", host=True, compute=10.01),
        ),
        output_bytes=607744,
    )
    _, rows = on("rx-7900-xtx", "ROCm0", weights(ROCm0=604.15, CPU=157.65), full)
    gpu, host = rows
    assert (gpu.device, host.device) == ("ROCm0", "CPU")
    assert gpu.weights_bytes == int(604.15 * MIB)
    assert gpu.total_bytes == int(604.15 * MIB) + int(448.0 * MIB) + int(298.75 * MIB) + DRIVER_BYTES["rocm"]
    assert host.weights_mapped_bytes == int(157.65 * MIB)
    # Pinned memory has the GPU's name and is RAM all the same.
    assert host.compute_bytes == int(10.01 * MIB)
    assert gpu.available_bytes == load("rx-7900-xtx").gpus[0].memory_free_bytes


def test_repacked_weights_on_the_host_are_a_second_copy():
    """Layers left on the CPU: the mapped file and the repacked form both count."""
    full = Buffers(buffers=(buffer("CUDA0", host=False, compute=300.0), buffer("CPU", host=True)))
    _, rows = on("rtx-4090", "CUDA0", weights(CUDA0=1000.0, CPU=400.0, CPU_REPACK=300.0), full)
    host = rows[-1]
    assert (host.weights_mapped_bytes, host.weights_repacked_bytes) == (400 * MIB, 300 * MIB)


def test_unified_memory_is_one_row_with_one_budget():
    """On a Mac what the GPU and the host hold shares the RAM: one row, never more than the GPU may address."""
    full = Buffers(
        buffers=(buffer("MTL0", host=False, cache=576.0, compute=300.0), buffer("CPU", host=True, compute=20.0))
    )
    held = weights(MTL0=4700.0, CPU=300.0)
    machine, (row,) = on("m3-max-64gb", "MTL0", held, full)
    assert row.weights_bytes <= held.file_bytes
    assert row.cache_bytes == 576 * MIB
    assert row.available_bytes == unified_budget_bytes(machine) <= machine.memory.usable_bytes
    assert row.total_bytes == row.weights_bytes + (576 + 320) * MIB + row.overhead_bytes


@given(st.lists(st.integers(0, 1 << 40), min_size=11, max_size=11), st.booleans())
def test_a_total_is_the_sum_of_its_parts(parts, known):
    """Whatever the parts: four groups add up, and resident is never more than the total."""
    names = (
        "mapped", "private", "repacked", "cache", "compute", "output", "work", "process", "companion", "server",
        "margin",
    )  # fmt: skip
    untouched = min(parts) if known else None
    row = device_row(
        "X", **dict(zip(names, parts, strict=True)), untouched=untouched, available_bytes=None, origin="engine"
    )
    assert row.total_bytes == sum(parts)
    assert row.total_bytes == row.weights_bytes + row.cache_bytes + row.compute_bytes + row.overhead_bytes
    assert (row.resident_bytes is None) == (untouched is None)
    assert (row.resident_bytes or 0) <= row.total_bytes


def test_a_machine_without_unified_memory_keeps_its_rows():
    """Two budgets stay two."""
    full = Buffers(buffers=(buffer("CUDA0", host=False, compute=300.0), buffer("CPU", host=True)))
    held = weights(CUDA0=1000.0, CPU=400.0)
    machine, rows = on("rtx-4090", "CUDA0", held, full)
    assert [row.device for row in rows] == ["CUDA0", "CPU"]
    assert in_one_budget(machine, SETTINGS, held, rows) == rows


@pytest.mark.parametrize("name", ["m2-air-8gb", "strix-halo-128gb", "gb10"])
def test_the_shipped_machines_with_unified_memory_have_one_budget(name):
    """And it is smaller than the whole RAM."""
    machine = load(name)
    assert unified_budget_bytes(machine) is not None
    assert unified_budget_bytes(machine) < machine.memory.total_bytes


@pytest.mark.parametrize("mode", ["mmap", "none"])
def test_weights_beside_a_card_are_mapped_or_pinned_once(mode):
    """The engine names pinned memory; under mmap the same tensors are pages of the file."""
    full = Buffers(buffers=(buffer("CUDA0", host=False, compute=300.0), buffer("CUDA_Host", host=True, compute=20.0)))
    found, settings = load("rtx-4090"), msgspec.structs.replace(SETTINGS, load_mode=mode)
    rows = memory_on_devices(
        found, settings, weights(CUDA0=1000.0, CUDA_Host=400.0), full, process_bytes=0, origin="phantom"
    )
    assert [row.device for row in rows] == ["CUDA0", "CPU"]
    assert rows[1].weights_bytes == 400 * MIB
    assert (rows[1].weights_mapped_bytes > 0) == (mode == "mmap")
    assert (rows[1].weights_private_bytes > 0) == (mode == "none")
