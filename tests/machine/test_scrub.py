"""A capture tells nothing about whoever owns the machine."""

import json
from pathlib import Path

import msgspec
import pytest

from planner.machine import Capture, collect, interpret
from planner.machine.answers import Answers, Program
from planner.machine.host import Host
from planner.machine.scrub import scrub

NAMES = sorted(path.stem for path in (Path(__file__).parent / "trees").glob("*.toml"))


def test_names_serials_and_addresses_leave_texts_keys_and_outputs():
    """Every place where a name may hide, with the host called web01 and the user alice."""
    answers = Answers(
        files={
            "/proc/self/cgroup": "0::/lxc/web01/user-alice.slice\n",
            "/sys/fs/cgroup/lxc/web01/user-alice.slice/memory.max": "1000",
            "/proc/cpuinfo": "Serial\t\t: 10000000abcdef01\nflags\t: alice\n",
            "/x": "GPU UUID: \t GPU-4fb6ac9a-29e1-b611-4af7-b61a99e3b92d\nlink/ether d8:3a:dd:c0:ac:df\n",
        },
        listings={"/sys/fs/cgroup/lxc": ("web01",)},
        programs={
            "system_profiler": Program(stdout='{\n "_display-serial-number" : "4254554c",\n "a" : "/Users/alice/x"\n}')
        },
        facts={"disk.path": "/data/alice/models", "n": 1},
        failures={"/home/alice/.cache": "Permission denied for alice"},
    )
    text = msgspec.json.encode(scrub(answers, ("web01", "alice"))).decode()
    for secret in ("web01", "10000000abcdef01", "4fb6ac9a", "d8:3a", "4254554c", "/Users/alice", "/home/alice"):
        assert secret not in text
    assert text.count("alice") == 1  # a processor flag by that name stays: /proc/cpuinfo names nobody


def test_a_scrubbed_profile_is_still_json():
    """Emptying a member keeps its comma."""
    program = Program(stdout='{\n  "serial_number" : "C02X",\n  "platform_UUID" : "x"\n}')
    scrubbed = scrub(Answers(programs={"p": program}), ()).programs["p"].stdout
    assert json.loads(scrubbed) == {"serial_number": "", "platform_UUID": ""}


def test_a_path_still_finds_its_file_after_scrubbing(plant):
    """Membership and file names change together, so that limits are found."""
    document = {
        "origin": "described",
        "system": {"sysname": "Linux", "release": "6", "machine": "x86_64"},
        "private": ["web01", "alice", "root"],
        "files": {
            "/proc/meminfo": "MemTotal: 1000000 kB\nMemAvailable: 900000 kB\n",
            "/proc/self/cgroup": "0::/lxc.payload.web01/alice/0123456789abcdef0123456789abcdef\n",
            "/proc/self/mountinfo": "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
            "2 1 0:2 / /home/alice rw - nfs nas:/alice rw\n",
            "/sys/fs/cgroup/lxc.payload.web01/alice/0123456789abcdef0123456789abcdef/memory.max": "1000000",
            "/sys/fs/cgroup/lxc.payload.web01/memory.max": "500000",
        },
    }
    capture = collect(plant(document), Path("/home/somebody/.cache/models"))
    machine = interpret(capture)
    assert [limit.limit_bytes for limit in machine.memory.limits] == [1000000, 500000]
    assert machine.disk.path == "~/.cache/models"
    assert "alice" not in msgspec.json.encode(capture).decode()
    assert "web01" not in msgspec.json.encode(machine).decode()


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_carries_no_path_of_ours(name, captures):
    """Neither the tree's folder nor the interpreter's place."""
    text = msgspec.json.encode(captures[name]).decode()
    assert "site-packages" not in text
    assert "pytest" not in text


def test_a_live_capture_names_neither_host_nor_user():
    """On the machine that runs the tests, whoever it belongs to."""
    host = Host()
    capture = collect(host, Path.home() / "models")
    text = msgspec.json.encode(capture).decode()
    assert str(Path.home() / "models") not in text
    for word in host.private_words():
        if len(word) > 4 and word not in ("localhost", "runner"):
            assert word not in text
    assert isinstance(capture, Capture)
