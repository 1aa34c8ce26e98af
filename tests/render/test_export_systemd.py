"""Units that systemd itself accepts, finds locked down, and reads as exactly the planned command."""

import os
import re
import shutil
import subprocess

import pytest
from msgspec.structs import replace

from planner.errors import BadInputError, UsageError
from planner.render.export import export
from planner.types.deployment import GpuUse

ANALYZE = shutil.which("systemd-analyze")
CARDS = {
    "cpu": (),
    "nvidia": (GpuUse(device="CUDA0", backend="cuda", vendor="nvidia"),),
    "amd": (GpuUse(device="ROCm0", backend="rocm", vendor="amd"),),
    "intel": (GpuUse(device="SYCL0", backend="sycl", vendor="intel"),),
    "unknown": (GpuUse(device="Vulkan0", backend="vulkan", vendor=None),),
}
needs_analyze = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here")


def lines_of(text, key):
    """Every value of ``key`` in a unit; a line feed ends a line, and nothing else of Unicode's."""
    return [line.partition("=")[2] for line in text.split("\n") if line.startswith(f"{key}=")]


@pytest.fixture
def written(deployed, tmp_path):
    """Writes the units of a deployment with a program that is here; gives their paths."""

    def write(gpus=(), **named):
        made = replace(deployed(program="/bin/sh", **named), gpus=gpus)
        paths = {}
        for name, text in export("systemd", made).items():
            path = paths[name.split("/")[0]] = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        return paths

    return write


@needs_analyze
@pytest.mark.parametrize("vendor", CARDS)
@pytest.mark.parametrize("exposed", [False, True], ids=["loopback", "exposed"])
def test_systemd_verifies_both_units_in_silence(vendor, exposed, written, tmp_path):
    """``systemd-analyze verify`` ends with 0 for unknown keys too: any output is a failure."""
    named = {"host": "::", "api_key_file": "/etc/k e%y"} if exposed else {}
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    for scope, path in written(CARDS[vendor], **named).items():
        words = [ANALYZE, "verify", f"--{scope}", str(path)]
        run = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30, env=environment)
        assert (run.stdout, run.stderr, run.returncode) == ("", "", 0)


@needs_analyze
@pytest.mark.parametrize("vendor", CARDS)
@pytest.mark.parametrize("exposed", [False, True], ids=["loopback", "exposed"])
def test_the_systems_unit_is_locked_down(vendor, exposed, written):
    """An exposure of at most 2.0 of 10; one without these lines has 9.6."""
    named = {"host": "::", "api_key_file": "/etc/keys"} if exposed else {}
    path = written(CARDS[vendor], **named)["system"]
    words = [ANALYZE, "security", "--offline=true", "--no-pager", "--threshold=20", str(path)]
    run = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert run.returncode == 0, run.stdout[-300:]
    assert float(re.search(r"Overall exposure level .*: ([\d.]+)", run.stdout)[1]) <= 2.0


def test_memory_is_what_was_planned(deployed):
    """The limit of the plan; locking only where the plan locks."""
    made = deployed()
    for text in export("systemd", made).values():
        assert lines_of(text, "MemoryMax") == [str(made.host_memory_bytes)]
        assert lines_of(text, "LimitMEMLOCK") == []
    locked = replace(made, settings=replace(made.settings, load_mode="mmap+mlock"))
    for text in export("systemd", locked).values():
        assert lines_of(text, "LimitMEMLOCK") == [str(made.host_memory_bytes)]


def test_only_loopback_and_one_port_unless_it_is_exposed(deployed):
    """Then the keys come through systemd, and a file without any stops the start."""
    loopback = export("systemd", deployed(port=9000))["system/qwen3-8b-q4-k-m.service"]
    assert lines_of(loopback, "IPAddressAllow") == ["localhost"]
    assert lines_of(loopback, "SocketBindAllow") == ["tcp:9000"]
    assert "api-key" not in loopback
    files = export("systemd", deployed(host="::", api_key_file="/etc/llama/keys"))
    system, user = files["system/qwen3-8b-q4-k-m.service"], files["user/qwen3-8b-q4-k-m.service"]
    assert lines_of(system, "IPAddressAllow") == []
    assert lines_of(system, "LoadCredential") == ["api-key:/etc/llama/keys"]
    assert "--api-key-file %d/api-key" in lines_of(system, "ExecStart")[0]
    assert "--api-key-file /etc/llama/keys" in lines_of(user, "ExecStart")[0]
    assert lines_of(system, "ExecStartPre") == [":grep -q ^[^#] %d/api-key"]
    assert lines_of(user, "ExecStartPre") == [":grep -q ^[^#] /etc/llama/keys"]


def test_a_program_in_a_home_is_seen_with_its_libraries(deployed):
    """The homes are hidden but for what the server needs; elsewhere nothing more is shown."""

    def shown(program):
        text = export("systemd", deployed(program=program))["system/qwen3-8b-q4-k-m.service"]
        return lines_of(text, "BindReadOnlyPaths")

    assert shown("/home/alice/llama.cpp/bin/llama-server") == ["/models/qwen3-8b", "/home/alice/llama.cpp/bin"]
    assert shown("/usr/bin/llama-server") == shown("llama-server") == ["/models/qwen3-8b"]


def test_what_a_unit_cannot_hold_is_refused(deployed):
    """Relative paths, Metal, and a program with a specifier in its name."""
    for named in ({"weights": "x.gguf"}, {"host": "::", "api_key_file": "keys"}):
        with pytest.raises(UsageError, match="from the root on"):
            export("systemd", deployed(**named))
    with pytest.raises(UsageError, match="Metal"):
        export("systemd", replace(deployed(), gpus=(GpuUse(device="MTL0", backend="metal"),)))
    with pytest.raises(BadInputError, match="percent"):
        export("systemd", deployed(program="/opt/100%/llama-server"))


def test_systemd_reads_exactly_the_planned_command(deployed, hostile_names, read_by_systemd):
    """The lines of two thousand units in one, read by systemd's own parser: command, mounts and description."""
    made, refused, unit = [], {}, ["[Service]", "Type=oneshot", f"Environment=FIRST={os.getpid()}"]
    for name in hostile_names:
        each = deployed(name, program="/bin/sh")
        try:
            files = export("systemd", each)
        except BadInputError as error:
            refused[name] = error.message
            continue
        system, user = (files[f"{scope}/{each.name}.service"] for scope in ("system", "user"))
        (start,) = lines_of(system, "ExecStart")
        assert [start] == lines_of(user, "ExecStart")
        made.append(each)
        unit += [f"ExecStart={start}", *(f"BindReadOnlyPaths={path}" for path in lines_of(system, "BindReadOnlyPaths"))]
    assert len(made) > 1200
    assert all(re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe]|\s$|\\$", name) for name in refused)
    assert all("U+" in message for message in refused.values())
    commands, block = read_by_systemd("\n".join(unit) + "\n")
    mounts = re.findall(r"^\t+BindReadOnlyPaths: (.*):rbind$", block, re.MULTILINE)
    assert not {f"{each.weights[0]}:{each.weights[0]}" for each in made} ^ set(mounts)
    assert len(commands) == len(mounts) == len(made)
    for each, command, mount in zip(made, commands, mounts, strict=True):
        assert command == each.argv
        assert mount == f"{each.weights[0]}:{each.weights[0]}"


def test_no_name_ends_a_line(deployed, hostile_names):
    """Every unit has the same lines but for the names in them, each with its own key."""
    keys = {}
    for name in hostile_names:
        try:
            files = export("systemd", deployed(name))
        except BadInputError:
            continue
        for scope, text in files.items():
            assert not re.search(r"\\$", text, re.MULTILINE)
            said = tuple(line.partition("=")[0] for line in text.split("\n") if not line.startswith("#"))
            assert keys.setdefault(scope.split("/")[0], said) == said
