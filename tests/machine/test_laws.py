"""Laws of every machine: sources beside values, no more memory than any limit, no exception from any garbage."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.machine import Capture, collect, interpret, load, machine_key, names
from planner.machine.answers import Answers, Program

TREES = Path(__file__).parent / "trees"
NAMES = sorted(path.stem for path in TREES.glob("*.toml"))


def parts(machine):
    """Every struct of a machine that carries sources and notes."""
    return [part for part in (machine.cpu, machine.memory, machine.disk, machine.power, *machine.gpus) if part]


def unsourced(machine):
    """Fields that break the law: a value without a source, a gap without a reason."""
    broken = []
    for part in parts(machine):
        for field in part.__struct_fields__:
            value = getattr(part, field)
            if value is None and not part.notes.get(field):
                broken.append((type(part).__name__, field, "no note"))
            if isinstance(value, str | int | float) and not part.sources.get(field):
                broken.append((type(part).__name__, field, "no source"))
            if value is None and field in part.sources:
                broken.append((type(part).__name__, field, "a source without a value"))
    return broken


@pytest.mark.parametrize("name", NAMES)
def test_a_detected_value_has_a_source_and_a_gap_has_a_note(name, plant):
    """The law of planner.types.machine, on every tree."""
    assert unsourced(interpret(collect(plant(name), Path("/models")))) == []


@pytest.mark.parametrize("name", names())
def test_a_shipped_machine_has_a_source_for_each_value(name):
    """The same law for machines that people described."""
    assert unsourced(load(name)) == []


def test_this_machine_obeys_the_law_too():
    """The same law on whatever runs the tests."""
    from planner.machine import detect

    machine = detect(models_dir=Path("/nowhere/at/all"))
    assert unsourced(machine) == []
    assert machine.kind == "detected"
    assert machine.memory.total_bytes > 0


SIZES = st.one_of(st.none(), st.integers(0, 1 << 40), st.sampled_from([(1 << 63) - 4096, 0]))


@st.composite
def v2_trees(draw):
    """Nested v2 groups, each with or without limits, and RAM."""
    depth = draw(st.integers(0, 4))
    files = {"/proc/self/mountinfo": "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n"}
    path = ""
    for level in range(depth + 1):
        path += f"/g{level}" if level else ""
        base = f"/sys/fs/cgroup{path}"
        for name, value in (("max", draw(SIZES)), ("high", draw(SIZES))):
            files[f"{base}/memory.{name}"] = "max\n" if value is None else f"{value}\n"
        files[f"{base}/memory.current"] = f"{draw(st.integers(0, 1 << 40))}\n"
        files[f"{base}/memory.stat"] = f"inactive_file {draw(st.integers(0, 1 << 41))}\n"
    files["/proc/self/cgroup"] = f"0::{path or '/'}\n"
    total = draw(st.integers(1, 1 << 31))
    files["/proc/meminfo"] = f"MemTotal: {total} kB\nMemAvailable: {draw(st.integers(0, 1 << 31))} kB\n"
    return files


@given(v2_trees())
@settings(max_examples=100, deadline=None)
def test_usable_memory_never_exceeds_any_limit(files):
    """Not RAM, not what is available, not any ancestor's limit or what is left of it."""
    memory = interpret(Capture(source="law", answers=Answers(files=files))).memory
    assert memory.usable_bytes <= memory.available_bytes <= memory.total_bytes
    for limit in memory.limits:
        assert memory.usable_bytes <= limit.available_bytes <= limit.limit_bytes
    finite = [
        int(text)
        for path, text in files.items()
        if path.endswith(("memory.max", "memory.high")) and text != "max\n" and int(text) < 1 << 60
    ]
    assert memory.usable_bytes <= min(finite, default=memory.total_bytes)
    assert memory.usable_bytes >= 0


GARBAGE = st.one_of(
    st.text(max_size=80),
    st.sampled_from(
        [
            "",
            "\0",
            "-1",
            "0-999999999999",
            "9" * 400,
            "0x",
            "1e9",
            "max max",
            "NaN",
            "{}",
            "[[[[",
            "MemTotal: x kB",
            "::",
        ]
    ),
    st.binary(max_size=40).map(lambda data: data.decode("utf-8", "replace")),
)


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_garbage_in_any_answer_never_raises(captures, data):
    """Any file, folder or program may hold anything: the result is a machine, with notes, that still obeys the laws."""
    answers = captures[data.draw(st.sampled_from(NAMES))].answers
    files = dict(answers.files)
    for path in data.draw(st.lists(st.sampled_from(sorted(files) or ["/x"]), max_size=5)):
        files[path] = data.draw(GARBAGE)
    programs = dict(answers.programs)
    for name in sorted(programs):
        if data.draw(st.booleans()):
            lines = programs[name].stdout.splitlines()
            lines.insert(data.draw(st.integers(0, len(lines))), data.draw(GARBAGE))
            programs[name] = Program(stdout="\n".join(lines), failure=data.draw(st.none() | st.just("died of SIGSEGV")))
    changed = msgspec.structs.replace(answers, files=files, programs=programs)
    machine = interpret(Capture(source="garbage", answers=changed))
    assert unsourced(machine) == []
    assert not [note for note in machine.notes if "please report" in note]
    assert 1 <= machine.cpu.usable_threads <= 65536
    assert 0 <= machine.memory.usable_bytes <= machine.memory.total_bytes
    for gpu in machine.gpus:
        assert gpu.memory_free_bytes is None or 0 <= gpu.memory_free_bytes <= (gpu.memory_total_bytes or 0)
    msgspec.json.decode(msgspec.json.encode(machine), type=type(machine))


@given(st.text(max_size=200))
def test_a_line_of_nvml_garbage_costs_a_note(line):
    """Whatever a broken driver prints, the next line still counts."""
    text = (
        line.replace("\n", " ")
        + '\n{"device": 0, "mig": null, "call": "nvmlDeviceGetName", "value": "NVIDIA GeForce"}\n'
    )
    answers = Answers(programs={"nvml": Program(stdout=text)})
    machine = interpret(Capture(source="garbage", answers=answers))
    assert machine.gpus[0].name == "NVIDIA GeForce"


def test_the_key_ignores_what_changes_while_the_machine_runs(plant):
    """Free memory and disk do not make another machine; threads and GPUs do."""
    machine = interpret(collect(plant("nvidia-2x-rtx-3090"), Path("/models")))
    less = msgspec.structs.replace(
        machine, memory=msgspec.structs.replace(machine.memory, available_bytes=1, usable_bytes=1), disk=None
    )
    fewer = msgspec.structs.replace(machine, gpus=machine.gpus[:1])
    pinned = msgspec.structs.replace(machine, cpu=msgspec.structs.replace(machine.cpu, usable_threads=1))
    assert machine_key(less) == machine_key(machine)
    assert len({machine_key(machine), machine_key(fewer), machine_key(pinned)}) == 3
