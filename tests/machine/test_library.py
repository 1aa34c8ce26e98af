"""Machines by name and by file: what is shipped, what is accepted, how the rest is refused."""

import os
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import BadInputError, ExitCode, FileIOError, MissingInputError, PlannerError
from planner.files import profiles_dir
from planner.machine import load, names
from planner.types.machine import Machine

PROMISED = (
    *("laptop-8gb", "laptop-16gb-igpu", "rtx-3060-12gb", "rtx-4090", "2x-rtx-3090", "rtx-5090", "m3-max-64gb"),
    *("m2-air-8gb", "strix-halo-128gb", "epyc-768gb", "h100-80gb", "8x-h100", "container-4gb"),
)
GIB = 1 << 30


def document(name="rtx-4090"):
    """A shipped machine as the plain document that ``detect --json`` prints."""
    return msgspec.json.decode(msgspec.json.encode(load(name)))


def write(tmp_path, value, name="machine.json"):
    """A file with a JSON document, a text or bytes in it."""
    path = tmp_path / name
    data = (
        value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else msgspec.json.encode(value)
    )
    path.write_bytes(data)
    return str(path)


def test_every_promised_machine_is_shipped():
    """The thirteen names of the first milestone."""
    assert set(PROMISED) <= set(names())


@pytest.mark.parametrize("name", names())
def test_a_shipped_machine_loads_under_its_name_and_says_what_it_is(name):
    """Described ones are called described; a recorded one is a capture."""
    machine = load(name)
    assert machine.name == name
    is_capture = (profiles_dir() / "machines" / f"{name}.json").exists()
    assert machine.kind == ("recorded" if is_capture else "described")
    assert machine.memory.usable_bytes <= machine.memory.available_bytes < machine.memory.total_bytes * 1.0001
    for gpu in machine.gpus:
        assert gpu.memory_total_bytes > GIB
        assert gpu.memory_free_bytes <= gpu.memory_total_bytes
        assert gpu.bandwidth_bytes_per_s > 10**10
    if not is_capture:
        assert machine.memory.bandwidth_bytes_per_s > 10**10
        stated = {text for part in (machine.cpu, machine.memory, *machine.gpus) for text in part.sources.values()}
        assert not [text for text in stated if text.startswith("stated in")]


@pytest.mark.parametrize(
    ("name", "threads", "usable_gib", "gpus", "gpu_gib"),
    [
        ("container-4gb", 1, 3.95, 0, 0),
        ("epyc-768gb", 128, 748, 0, 0),
        ("8x-h100", 112, 2003, 8, 637.2),
        ("2x-rtx-3090", 16, 121.6, 2, 48),
        ("m2-air-8gb", 8, 4.4, 1, 5.33),
    ],
)
def test_the_numbers_of_shipped_machines_are_as_described(name, threads, usable_gib, gpus, gpu_gib):
    """Threads, memory and GPUs of a few, spelled out."""
    machine = load(name)
    assert machine.cpu.usable_threads == threads
    assert machine.memory.usable_bytes == pytest.approx(usable_gib * GIB, rel=0.001)
    assert len(machine.gpus) == gpus
    assert sum(gpu.memory_total_bytes for gpu in machine.gpus) == pytest.approx(gpu_gib * GIB, rel=0.001)


def test_a_machine_in_json_comes_back_as_it_was(tmp_path):
    """What detect --json prints is what --machine reads."""
    machine = load("2x-rtx-3090")
    assert load(write(tmp_path, machine)) == machine


def test_a_detected_machine_is_recorded_once_it_is_a_file(tmp_path):
    """Detected means: here and now."""
    assert load(write(tmp_path, {**document(), "kind": "detected"})).kind == "recorded"


def test_a_capture_in_a_file_is_interpreted(tmp_path, captures):
    """What detect --capture saves is what --machine reads."""
    machine = load(write(tmp_path, captures["gb10-dgx-spark"]))
    assert (machine.kind, machine.gpus[0].name) == ("recorded", "NVIDIA GB10")


def test_a_short_description_is_enough(tmp_path):
    """Plain values are taken from the file; the file is their source; what follows is worked out."""
    text = """
name = "mine"
os = "Linux"
architecture = "x86_64"
cpu = { physical_cores = 6, quota_cpus = 2.5 }
memory = { total_bytes = { gib = 16, source = "the label" }, available_bytes = { mib = 8192, source = "free" } }
[[gpus]]
count = 2
vendor = "nvidia"
backend = "cuda"
unified_memory = false
name = "X"
memory_total_bytes = { gib = 1.5, source = "the box" }
"""
    path = write(tmp_path, text, "mine.toml")
    machine = load(path)
    assert (machine.kind, machine.cpu.usable_threads, machine.cpu.logical_cpus) == ("described", 3, 6)
    assert machine.memory.usable_bytes == 8 * GIB
    assert [gpu.index for gpu in machine.gpus] == [0, 1]
    assert machine.gpus[0].memory_total_bytes == 3 * GIB // 2
    assert machine.gpus[0].memory_free_bytes is None
    assert machine.cpu.sources["physical_cores"] == f"stated in {path}"
    assert machine.memory.sources["total_bytes"] == "the label"


def test_an_unknown_name_suggests_the_closest():
    """Exit code 66, with names to choose from."""
    with pytest.raises(MissingInputError) as caught:
        load("rtx4090")
    assert "rtx-4090" in caught.value.hint
    assert caught.value.exit_code == ExitCode.MISSING_INPUT
    with pytest.raises(MissingInputError) as caught:
        load("zzzzzzzzzzzzzz")
    assert "container-4gb" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"memory": {"total_bytes": -1}}, "$.memory.total_bytes"),
        ({"memory": {"total_bytes": 0}}, "$.memory.total_bytes"),
        ({"memory": {"total_bytes": 1 << 61}}, "$.memory.total_bytes"),
        ({"memory": {"total_bytes": "much"}}, "$.memory.total_bytes"),
        ({"cpu": {"usable_threads": 0}}, "$.cpu.usable_threads"),
        ({"cpu": {"logical_cpus": 10**9}}, "$.cpu.logical_cpus"),
        ({"cpu": {"quota_cpus": -2.5}}, "$.cpu.quota_cpus"),
        ({"cpu": {"quota_cpus": 0.0}}, "$.cpu.quota_cpus"),
        ({"gpus": [{"memory_free_bytes": -5}]}, "$.gpus[0].memory_free_bytes"),
        ({"gpus": "none"}, "$.gpus"),
        ({"cpu": None}, "$.cpu"),
        ({"kind": "dreamt"}, "$.kind"),
    ],
)
def test_nonsense_is_refused_with_its_place(tmp_path, change, place):
    """Exit code 65; file and place stand in the message."""
    plain = document()
    for key, value in change.items():
        if isinstance(value, dict):
            plain[key].update(value)
        elif isinstance(value, list):
            plain[key][0].update(value[0])
        else:
            plain[key] = value
    path = write(tmp_path, plain)
    with pytest.raises(BadInputError) as caught:
        load(path)
    assert path in caught.value.message
    assert place in caught.value.message
    assert caught.value.exit_code == ExitCode.BAD_INPUT_FILE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        b"\xff\xfe\x00\x01",
        "{",
        "{}",
        "[]",
        "[" * 100_000,
        '{"schema": "planner/machine/1", "x": ' + '{"a":' * 50_000 + "1" + "}" * 50_001,
        '{"schema": "planner/machine/2"}',
        '{"schema": 5}',
        '{"schema": "planner/machine/1"}',
        '{"schema": "planner/capture/1", "source": "x", "answers": {"files": 5}}',
        '{"schema": "planner/capture/1", "source": "x", "answers": {}}',
        "name = ",
        "surprise = 1",
        'cpu = "fast"',
        "gpus = 7",
        "[cpu]\ncores = 4",
        "[cpu]\nphysical_cores = { is = 4 }",
        "[memory]\ntotal_bytes = { gib = nan, source = 'x' }",
        "[[gpus]]\ncount = 1000000",
        "just some words",
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path, text):
    """Never another exception, never a hang, always the file's name."""
    path = write(tmp_path, text)
    with pytest.raises(BadInputError) as caught:
        load(path)
    assert path in caught.value.message
    assert caught.value.hint


def test_contradictions_take_the_smaller_number_and_say_so(tmp_path):
    """More free than total, more usable than the limit, more threads than CPUs."""
    plain = document("container-4gb")
    plain["memory"]["available_bytes"] = plain["memory"]["total_bytes"] * 2
    plain["memory"]["usable_bytes"] = 64 * GIB
    plain["cpu"]["usable_threads"] = 64
    plain["gpus"] = [{**document()["gpus"][0], "memory_total_bytes": GIB, "memory_free_bytes": 2 * GIB}]
    machine = load(write(tmp_path, plain))
    assert machine.memory.available_bytes == machine.memory.total_bytes
    assert machine.memory.usable_bytes == machine.memory.limits[0].available_bytes
    assert machine.cpu.usable_threads == 1
    assert machine.gpus[0].memory_free_bytes == GIB
    assert len(machine.notes) == 3


def test_a_file_cannot_repaint_the_terminal(tmp_path):
    """Control characters and direction overrides are replaced everywhere."""
    plain = document()
    plain["cpu"]["model"] = "\x1b[31mred\u202e"
    plain["notes"] = ["\x07ding"]
    machine = load(write(tmp_path, plain))
    assert machine.cpu.model == "�[31mred�"
    assert machine.notes == ("�ding",)


def test_a_file_over_eight_mebibytes_is_refused(tmp_path):
    """Whatever it holds."""
    with pytest.raises(BadInputError, match="8 MiB"):
        load(write(tmp_path, b"{" + b" " * (8 << 20)))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    """A named pipe without a writer, a folder, an endless device."""
    os.mkfifo(tmp_path / "pipe")
    started = time.monotonic()
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(BadInputError, match="regular file"):
            load(str(path))
    assert time.monotonic() - started < 5


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(tmp_path):
    """Exit code 77."""
    path = write(tmp_path, "{}")
    os.chmod(path, 0)  # noqa: PTH101 - a plain name
    with pytest.raises(FileIOError) as caught:
        load(path)
    assert caught.value.exit_code == ExitCode.NOT_PERMITTED


@pytest.mark.parametrize("name", ["a" * 5000, "nul\0byte", "../../etc/passwd-not-there", ""])
def test_an_impossible_name_is_a_missing_input_or_bad_input(name):
    """No exception of the operating system comes through."""
    with pytest.raises(PlannerError):
        load(name)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_one_changed_value_never_raises_anything_foreign(tmp_path_factory, data):
    """Any single member replaced by anything: a machine that keeps the laws, or one clear error."""
    plain = document(data.draw(st.sampled_from(("container-4gb", "2x-rtx-3090"))))
    target, key = _somewhere(plain, data)
    target[key] = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just([]) | st.just({})
    )
    path = write(tmp_path_factory.mktemp("changed"), plain)
    try:
        machine = load(path)
    except BadInputError:
        return
    assert isinstance(machine, Machine)
    assert 1 <= machine.cpu.usable_threads <= machine.cpu.logical_cpus
    assert 0 <= machine.memory.usable_bytes <= machine.memory.available_bytes <= machine.memory.total_bytes


def _somewhere(value, data):
    """A random member of a nested document."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = data.draw(st.sampled_from(keys))
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            return value, key
        value = inner
