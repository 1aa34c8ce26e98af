"""The store gives back exactly what it was given, and nothing to another machine, build or question."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.measure.statistics import spread
from planner.measure.store import MeasurementStore, Question
from planner.measure.threads import ThreadChoice
from planner.types.measurement import Conditions, Measurement
from planner.types.measurement import Test as Timed
from planner.types.measurement import TestResult as Result
from planner.types.settings import Settings

TESTS = (Timed(kind="prompt", tokens=512), Timed(kind="generate", tokens=128, depth=2048))


def question(**changes: object) -> Question:
    """A question, with changes."""
    base = Question(shape_key="shape", quantization="Q4_K_M", settings=Settings(context_tokens=4096), tests=TESTS)
    return msgspec.structs.replace(base, **changes)


def measurement(machine: str = "m1", build: str = "b1", disturbed: tuple[str, ...] = ()) -> Measurement:
    """A measurement of one test."""
    samples = (1_000_000, 1_100_000, 900_000)
    return Measurement(
        model="qwen3-0.6b",
        quantization="Q4_K_M",
        settings=Settings(context_tokens=4096),
        engine_build=build,
        machine_key=machine,
        taken_at="2026-01-01T00:00:00+00:00",
        layers_timed=28,
        layers_total=28,
        results=(Result(test=TESTS[0], tokens_timed=512, samples_ns=samples, tokens_per_s=spread(samples)),),
        conditions=Conditions(load_1min=0.1, steal_ratio=0.0, on_battery=None, disturbed=disturbed),
    )


def test_what_was_kept_is_found_again_by_another_process(tmp_path: Path) -> None:
    """A second store on the same folder answers the same measurement."""
    assert MeasurementStore("m1", "b1", folder=tmp_path).keep(question(), measurement())
    assert MeasurementStore("m1", "b1", folder=tmp_path).find(question()) == measurement()


def test_the_order_of_tests_does_not_matter(tmp_path: Path) -> None:
    """The same tests asked in another order are the same question."""
    store = MeasurementStore("m1", "b1", folder=tmp_path)
    store.keep(question(), measurement())
    assert store.find(question(tests=TESTS[::-1])) == measurement()


@pytest.mark.parametrize(
    "changes",
    [
        {"shape_key": "other"},
        {"quantization": "Q8_0"},
        {"settings": Settings(context_tokens=8192)},
        {"settings": Settings(context_tokens=4096, threads=2)},
        {"settings": Settings(context_tokens=4096, openmp_wait="active")},
        {"tests": TESTS[:1]},
    ],
)
def test_another_question_is_not_answered(tmp_path: Path, changes: dict[str, object]) -> None:
    """Shape, quantization, every setting and the tests belong to the address."""
    store = MeasurementStore("m1", "b1", folder=tmp_path)
    store.keep(question(), measurement())
    assert store.find(question(**changes)) is None


@pytest.mark.parametrize(("machine", "build"), [("m2", "b1"), ("m1", "b2")])
def test_another_machine_or_engine_build_starts_empty(tmp_path: Path, machine: str, build: str) -> None:
    """Nothing is inherited over an upgrade or a move of the home folder."""
    MeasurementStore("m1", "b1", folder=tmp_path).keep(question(), measurement())
    other = MeasurementStore(machine, build, folder=tmp_path)
    assert other.find(question()) is None
    assert other.all() == ()


def test_a_file_moved_to_another_machines_folder_is_not_believed(tmp_path: Path) -> None:
    """The file's own words count, not where it lies."""
    MeasurementStore("m1", "b1", folder=tmp_path).keep(question(), measurement())
    (tmp_path / "m1").rename(tmp_path / "m2")
    assert MeasurementStore("m2", "b1", folder=tmp_path).find(question()) is None


def test_a_file_renamed_to_another_question_is_not_believed(tmp_path: Path) -> None:
    """The question inside must be the one that was asked."""
    store = MeasurementStore("m1", "b1", folder=tmp_path)
    store.keep(question(), measurement())
    [path] = (tmp_path / "m1" / "b1").glob("*.json")
    path.rename(path.with_name(f"{question(quantization='Q8_0').digest()}-full.json"))
    assert store.find(question(quantization="Q8_0")) is None


@given(data=st.binary(max_size=200), cut=st.integers(min_value=0, max_value=1000))
def test_a_damaged_file_is_skipped_with_a_warning(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int
) -> None:
    """Whatever stands in the file: no answer or the right one, one warning, no exception."""
    folder = tmp_path_factory.mktemp("store")
    warnings: list[str] = []
    store = MeasurementStore("m1", "b1", folder=folder, warn=warnings.append)
    store.keep(question(), measurement())
    [path] = (folder / "m1" / "b1").glob("*.json")
    path.write_bytes(path.read_bytes()[:cut] + data)
    assert store.find(question()) in (None, measurement())
    assert len(warnings) <= 1
    assert store.keep(question(), measurement())
    assert store.find(question()) == measurement()


def test_a_measurement_cut_short_by_a_full_disk_is_warned_about(tmp_path: Path) -> None:
    """Half a file names itself."""
    warnings: list[str] = []
    store = MeasurementStore("m1", "b1", folder=tmp_path, warn=warnings.append)
    store.keep(question(), measurement())
    [path] = (tmp_path / "m1" / "b1").glob("*.json")
    path.write_bytes(path.read_bytes()[:100])
    assert store.find(question()) is None
    assert path.name in warnings[0]


def test_a_disturbed_measurement_is_not_kept(tmp_path: Path) -> None:
    """It must be taken anew."""
    store = MeasurementStore("m1", "b1", folder=tmp_path)
    assert not store.keep(question(), measurement(disturbed=("busy",)))
    assert store.find(question()) is None


def test_a_full_measurement_answers_a_quick_question_and_not_the_other_way_round(tmp_path: Path) -> None:
    """More effort includes less."""
    store = MeasurementStore("m1", "b1", folder=tmp_path)
    store.keep(question(), measurement(), effort="quick")
    assert store.find(question(), effort="full") is None
    assert store.find(question(), effort="quick") == measurement()
    store.keep(question(quantization="Q8_0"), measurement(), effort="full")
    assert store.find(question(quantization="Q8_0"), effort="quick") == measurement()


def test_where_nothing_can_be_written_only_the_memory_is_lost(tmp_path: Path) -> None:
    """A folder that cannot be made (a file stands there): keep says False, find says None."""
    (tmp_path / "blocked").write_text("")
    store = MeasurementStore("m1", "b1", folder=tmp_path / "blocked")
    assert not store.keep(question(), measurement())
    assert store.find(question()) is None
    assert store.all() == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_home_costs_only_the_cache(tmp_path: Path) -> None:
    """No permission is no error."""
    tmp_path.chmod(0o500)
    try:
        assert not MeasurementStore("m1", "b1", folder=tmp_path).keep(question(), measurement())
    finally:
        tmp_path.chmod(0o700)


def test_facts_are_kept_beside_measurements_and_are_none_of_them(tmp_path: Path) -> None:
    """The threads' choice survives, is typed, and does not show up as a measurement."""
    store = MeasurementStore("m1", "b1", folder=tmp_path)
    choice = ThreadChoice(threads=2, threads_batch=2, openmp_wait="active", basis="trial")
    assert store.find_fact("threads", ThreadChoice) is None
    store.keep_fact("threads", choice)
    assert store.find_fact("threads", ThreadChoice) == choice
    assert store.all() == ()


def test_names_cannot_leave_the_store(tmp_path: Path) -> None:
    """A key with separators and dots stays inside the folder."""
    store = MeasurementStore("../../up", "..", folder=tmp_path / "in")
    assert store.keep(question(), measurement("../../up", ".."))
    assert [path for path in tmp_path.iterdir() if path.name != "in"] == []
