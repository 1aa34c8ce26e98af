"""Data sheets by a driver's name: what is found, what is refused, and that every number has a source."""

import pytest

from planner import machine
from planner.errors import BadInputError
from planner.estimate.device_facts import device_facts, read_devices
from planner.files import profiles_dir

DEVICES = read_devices(profiles_dir() / "devices")


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 3090 24GB", "NVIDIA GeForce RTX 3090"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB"),
        ("NVIDIA A100 80GB PCIe", "NVIDIA A100 80GB PCIe"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", "NVIDIA GeForce RTX 4060 Laptop"),
        ("AMD Radeon RX 7900 XTX (RADV NAVI31)", "AMD Radeon RX 7900 XTX"),
        ("Radeon 8060S Graphics", "AMD Radeon 8060S / Ryzen AI Max+ 395 (Strix Halo)"),
        ("Intel(R) Arc(TM) B580 Graphics", "Intel Arc B580"),
        ("Apple M3 Max", "Apple M3 Max"),
        ("Tesla T4", "NVIDIA T4"),
    ],
)
def test_a_name_as_a_driver_gives_it_finds_its_data_sheet(name, entry):
    """Vendor's words, brackets and a memory size do not count."""
    assert device_facts(name).name == entry


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 6090",
        "NVIDIA A100",
        "AMD Radeon",
        "Apple M9",
    ],
)
def test_a_near_match_is_no_match(name):
    """A laptop chip is not the desktop card of that number."""
    assert device_facts(name) is None


def test_every_number_has_a_source_and_is_of_a_possible_size():
    """Bandwidth between 20 GB/s and 20 TB/s, matrix rate between 1 and 5,000 TFLOPS."""
    assert len(DEVICES) > 100
    for device in DEVICES:
        for fact, least, most in ((device.bandwidth_gb_per_s, 20, 20_000), (device.matrix_tflops, 1, 5_000)):
            if fact is not None:
                assert least < fact.value < most, device.name
                assert len(fact.source) > 3, device.name
    assert all(device.bandwidth_gb_per_s or device.memory == "ddr" for device in DEVICES)


def test_every_gpu_of_a_shipped_machine_is_known_and_told_alike_in_both_places():
    """The description of a machine and the table agree on bandwidth within 2 %."""
    for gpu in (gpu for name in machine.names() for gpu in machine.load(name).gpus):
        facts = device_facts(gpu.name)
        assert facts is not None, gpu.name
        assert facts.bandwidth_bytes_per_s == pytest.approx(gpu.bandwidth_bytes_per_s, rel=0.02)
        assert facts.matrix_flops_per_s is not None


def test_a_name_that_stands_twice_is_refused(tmp_path):
    """Also when it is spelled with the vendor's words once and without them the other time."""
    entry = '[[devices]]\nname = "{}"\ngeneration = "ada"\nmemory = "gddr"\n'
    (tmp_path / "a.toml").write_text(entry.format("RTX 9") + entry.format("NVIDIA GeForce RTX 9"))
    with pytest.raises(BadInputError, match="two devices are called"):
        read_devices(tmp_path)
    (tmp_path / "a.toml").write_text('[[devices]]\nname = "x"\nspeed = 3\n')
    with pytest.raises(BadInputError, match=r"a\.toml"):
        read_devices(tmp_path)
