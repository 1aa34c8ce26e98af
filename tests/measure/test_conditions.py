"""What the machine did while something was timed: counted right, and unknown where the system is silent."""

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from planner.measure.conditions import Snapshot, Watch, compare, snapshot

QUIET = Snapshot(
    at_s=100.0,
    cpus=4,
    busy_s=1000.0,
    steal_s=10.0,
    total_s=4000.0,
    own_s=50.0,
    pressure_s=3.0,
    swapped_in_pages=7,
    major_faults=2,
    mhz=3000.0,
    load_1min=0.5,
    on_battery=False,
    memory_pressure_s=1.0,
    throttles=5,
)


def after(**changes: object) -> Snapshot:
    """Ten seconds later on four CPUs, of which ours kept two busy."""
    later = msgspec.structs.replace(QUIET, at_s=110.0, busy_s=1020.0, total_s=4040.0, own_s=70.0)
    return msgspec.structs.replace(later, **changes)


def test_our_own_work_is_no_disturbance() -> None:
    """Two busy CPUs that are ours: nobody else was there."""
    found = compare(QUIET, after(), threads=2)
    assert found.other_cpus == pytest.approx(0.0)
    assert found.disturbed == ()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"busy_s": 1045.0}, "other processes"),
        ({"steal_s": 20.0}, "steal"),
        ({"pressure_s": 5.0}, "PSI"),
        ({"mhz": 2500.0}, "clock"),
        ({"swapped_in_pages": 8}, "swapped in"),
        ({"major_faults": 5000}, "page faults"),
        ({"on_battery": True}, "battery"),
        ({"memory_pressure_s": 3.0}, "memory"),
        ({"throttles": 6}, "heat"),
    ],
)
def test_each_disturbance_is_named_alone(changes: dict[str, object], word: str) -> None:
    """One cause, one sentence."""
    found = compare(QUIET, after(**changes), threads=2)
    assert len(found.disturbed) == 1
    assert word in found.disturbed[0]


def test_others_may_use_the_cpus_that_we_do_not() -> None:
    """Two of ours and one and a half of others on four CPUs do not meet."""
    assert compare(QUIET, after(busy_s=1035.0), threads=2).disturbed == ()
    assert compare(QUIET, after(busy_s=1035.0), threads=4).disturbed != ()


@pytest.mark.parametrize("changes", [{"busy_s": 1023.2}, {"steal_s": 13.2}, {"pressure_s": 3.8}])
def test_what_a_measurement_bears_is_too_much_for_whoever_tolerates_half_of_it(changes: dict[str, object]) -> None:
    """Eight per cent from others are below the usual limit of ten and above a stricter one of five."""
    assert compare(QUIET, after(**changes), threads=4).disturbed == ()
    assert len(compare(QUIET, after(**changes), threads=4, tolerance=0.5).disturbed) == 1


def test_what_is_unknown_disturbs_nothing_and_stays_unknown() -> None:
    """A system that tells nothing gives None, not zero."""
    silent = Snapshot(at_s=1.0, cpus=2)
    found = compare(silent, msgspec.structs.replace(silent, at_s=2.0), threads=2)
    assert found.disturbed == ()
    assert (found.steal_ratio, found.other_cpus, found.pressure_ratio, found.on_battery) == (None, None, None, None)
    assert (found.frequency_drop_ratio, found.swapped_in_pages, found.major_faults) == (None, None, None)
    assert (found.memory_pressure_ratio, found.throttled) == (None, None)


def test_a_proc_tree_is_read_as_the_manual_says(tmp_path: Path) -> None:
    """Fields of stat, pressure and vmstat at their places; process names with blanks and brackets do not confuse."""
    (tmp_path / "stat").write_text("cpu  100 20 30 4000 50 6 7 80 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n")
    (tmp_path / "vmstat").write_text("pswpin 42\npswpinx 1\n")
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "cpu").write_text("some avg10=1.00 avg60=0.10 avg300=0.00 total=2500000\n")
    found = snapshot((), proc=tmp_path)
    assert found.busy_s == pytest.approx(1.63)
    assert found.steal_s == pytest.approx(0.80)
    assert found.total_s == pytest.approx(42.93)
    assert found.pressure_s == pytest.approx(2.5)
    assert found.swapped_in_pages == 42


@pytest.mark.parametrize("text", ["", "cpu\n", "cpu a b c d e f g h\n", "nonsense"])
def test_a_broken_proc_tree_is_unknown(tmp_path: Path, text: str) -> None:
    """No exception, no number."""
    (tmp_path / "stat").write_text(text)
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "cpu").write_text(text)
    found = snapshot((), proc=tmp_path)
    assert (found.busy_s, found.pressure_s, found.swapped_in_pages) == (None, None, None)


def test_the_real_machine_can_be_watched() -> None:
    """A short busy loop of ours counts as ours: others' CPUs are not negative and not all of them plus one."""
    watch = Watch(threads=1)
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        sum(range(1000))
    found = watch.finish()
    assert found.other_cpus is None or found.other_cpus >= 0
    assert found.load_1min is None or found.load_1min >= 0


def sysfs(root: Path, files: dict[str, str]) -> Path:
    """A tree of sysfs with these files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_heat_and_clock_are_read_where_linux_tells_them(tmp_path: Path) -> None:
    """The counters of all cores and packages, the clock of the fastest core."""
    cpu = "devices/system/cpu"
    tree = {
        f"{cpu}/cpu0/thermal_throttle/core_throttle_count": "3\n",
        f"{cpu}/cpu0/thermal_throttle/package_throttle_count": "4\n",
        f"{cpu}/cpu1/thermal_throttle/core_throttle_count": "0\n",
        f"{cpu}/cpu0/cpufreq/scaling_cur_freq": "1200000\n",
        f"{cpu}/cpu1/cpufreq/scaling_cur_freq": "3400000\n",
        f"{cpu}/cpufreq/policy0/scaling_cur_freq": "9900000\n",
    }
    found = snapshot((), sysfs=sysfs(tmp_path, tree))
    assert (found.throttles, found.mhz) == (7, 3400.0)
    assert snapshot((), sysfs=tmp_path / "nothing").throttles is None


@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging", "AC/type": "Mains"}, True),
        ({"BAT0/type": "Battery", "BAT0/status": "Charging"}, False),
        ({"BAT0/type": "Battery", "BAT0/status": "Not charging"}, False),
        ({"BAT0/type": "Battery", "BAT0/status": "Full", "BAT1/type": "Battery", "BAT1/status": "Discharging"}, True),
        (
            {
                "BAT0/type": "Battery",
                "BAT0/status": "Full",
                "mouse/type": "Battery",
                "mouse/scope": "Device",
                "mouse/status": "Discharging",
            },
            False,
        ),
    ],
)
def test_a_battery_that_discharges_is_the_machines_own(
    tmp_path: Path, supplies: dict[str, str], expected: bool
) -> None:
    """A laptop on its battery, not a mouse on its own."""
    tree = {f"class/power_supply/{name}": f"{text}\n" for name, text in supplies.items()}
    assert snapshot((), sysfs=sysfs(tmp_path, tree)).on_battery is expected


def test_a_program_that_we_ran_and_waited_for_was_ours() -> None:
    """Its processor time is not taken for that of others; whoever runs llama-bench relies on it."""
    before = snapshot((os.getpid(),)).own_s
    until = "import time; e = time.process_time() + 0.3\nwhile time.process_time() < e: pass"
    subprocess.run([sys.executable, "-c", until], check=True)
    after = snapshot((os.getpid(),)).own_s
    assert before is not None
    assert after is not None
    assert after - before > 0.25
