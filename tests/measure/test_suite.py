"""Whole measurements of tiny models in real children: what is claimed is what was done."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from planner.engine.child import EngineChild
from planner.errors import EngineDiedError, EngineError
from planner.measure.bench import Bench
from planner.measure.budget import EFFORTS
from planner.measure.racing_space import thread_counts
from planner.measure.session import MeasuringSession
from planner.measure.store import MeasurementStore
from planner.measure.suite import Subject, default_tests, measure_candidate
from planner.measure.threads import KnownThreads, choose_threads, kept_choice
from planner.types.measurement import Measurement
from planner.types.measurement import Test as Timed
from planner.types.model import Layout
from planner.types.settings import Settings

pytestmark = pytest.mark.engine

TESTS = (
    Timed(kind="prompt", tokens=64),
    Timed(kind="generate", tokens=16),
    Timed(kind="generate", tokens=16, depth=1024),
)


def measured(bench: Bench, subject: Subject, settings: Settings, budget_s: float = 2.0) -> Measurement:
    """One quick measurement."""
    return measure_candidate(
        bench, subject, settings, TESTS, machine_key="m", engine_build="b", budget_s=budget_s, effort="quick"
    )


def test_a_small_model_is_timed_whole(bench: Bench, subject: Subject, settings: Settings) -> None:
    """All layers, origin measured, at least three samples that the rates follow from."""
    found = measured(bench, subject, settings)
    assert (found.layers_timed, found.layers_total) == (16, 16)
    assert tuple(result.test for result in found.results) == TESTS
    for result in found.results:
        assert result.origin == "measured"
        assert len(result.samples_ns) >= EFFORTS["quick"].at_least or found.conditions.disturbed
        rates = sorted(result.tokens_timed * 1e9 / sample for sample in result.samples_ns)
        assert result.tokens_per_s.low == pytest.approx(rates[0])
        assert result.tokens_per_s.high == pytest.approx(rates[-1])


def test_a_reference_is_timed_once_in_every_round(
    bench: Bench, subject: Subject, settings: Settings, tiny: Callable[..., Layout]
) -> None:
    """As many runs of it as repetitions of the tests; it stays open for the next subject."""
    key = {"machine_key": "m", "engine_build": "b", "budget_s": 2.0, "effort": "quick"}
    for _ in range(2):
        found = measure_candidate(bench, subject, settings, TESTS, reference=tiny(), **key)
        assert found.reference is not None
        assert len(found.reference.generate_ns) == len(found.reference.prompt_ns) == len(found.results[0].samples_ns)
        assert min(found.reference.generate_ns + found.reference.prompt_ns) > 0
    assert measured(bench, subject, settings).reference is None


def test_a_model_that_does_not_fit_is_composed_from_slices_and_says_so(
    bench: Bench, subject: Subject, settings: Settings
) -> None:
    """Origin predicted, fewer layers timed than there are, the slices named in a note."""
    large = _replaced(subject, resident_bytes=1 << 40)
    found = measured(bench, large, settings, budget_s=4.0)
    assert found.layers_timed < found.layers_total == 16
    assert {result.origin for result in found.results} == {"predicted"}
    assert any("slices of" in note for note in found.notes)


def test_a_composed_speed_is_near_the_measured_one(bench: Bench, subject: Subject, settings: Settings) -> None:
    """Prompt speed from slices and of the whole agree within a third; on a busy machine one try in five must."""
    ratios: list[float] = []
    while not any(0.75 < ratio < 1.33 for ratio in ratios):
        assert len(ratios) < 5, ratios
        whole = _prompt_speed(measured(bench, subject, settings))
        part = _prompt_speed(measured(bench, _replaced(subject, resident_bytes=1 << 40), settings))
        ratios.append(part / whole if whole and part else 0.0)


def test_a_model_split_over_devices_is_not_sliced(bench: Bench, subject: Subject, settings: Settings) -> None:
    """Its layers are not alike, so what does not fit whole is refused."""
    split = msgspec.structs.replace(settings, gpu_layers=4)
    with pytest.raises(EngineError, match="nor slices of it"):
        measured(bench, _replaced(subject, resident_bytes=1 << 40), split)


def test_a_shortened_test_tells_how_many_tokens_it_timed(bench: Bench, subject: Subject, settings: Settings) -> None:
    """A test that is too long for the budget is cut in all repetitions alike, and a note says so."""
    long = Timed(kind="generate", tokens=3000)
    found = measure_candidate(
        bench, subject, settings, (long,), machine_key="m", engine_build="b", budget_s=1.0, effort="quick"
    )
    [result] = found.results
    assert 4 <= result.tokens_timed < 3000
    assert any(f"{result.tokens_timed} of 3000 tokens" in note for note in found.notes)


def test_no_phantom_and_no_child_is_left_behind(tmp_path: Path, subject: Subject, settings: Settings) -> None:
    """After the bench is closed the folder is empty and the processes are gone."""
    with Bench(lambda env: EngineChild(env=env), folder=tmp_path) as bench:
        measured(bench, subject, settings)
        pids = bench.pids
        assert pids
    assert list(tmp_path.iterdir()) == []
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_child_that_dies_is_an_error_and_leaves_nothing(tmp_path: Path, subject: Subject, settings: Settings) -> None:
    """The kernel kills the child in the middle: named, and no phantom stays."""
    bench = Bench(lambda env: EngineChild(env=env), folder=tmp_path)

    def kill(stage: str, _done: float, _total_s: float) -> None:
        if stage == "timing":
            os.kill(bench.pids[0], 9)

    with bench, pytest.raises(EngineDiedError):
        measure_candidate(
            bench, subject, settings, TESTS, machine_key="m", engine_build="b", budget_s=2.0, progress=kill
        )
    assert list(tmp_path.iterdir()) == []


def test_progress_rises_to_one_and_promises_a_time(bench: Bench, subject: Subject, settings: Settings) -> None:
    """Shares between 0 and 1, each stage in order, the last one finished."""
    seen: list[tuple[str, float, float]] = []
    measure_candidate(
        bench,
        subject,
        settings,
        TESTS,
        machine_key="m",
        engine_build="b",
        budget_s=2.0,
        effort="quick",
        progress=lambda *event: seen.append(event),
    )
    assert all(0 <= done <= 1 and total_s > 0 for _, done, total_s in seen)
    assert seen[-1][:2] == ("timing", 1.0)
    timing = [done for stage, done, _ in seen if stage == "timing"]
    assert timing == sorted(timing)


def test_the_default_tests_are_llama_benchs_and_half_the_context() -> None:
    """pp512, tg128, and tg128 at half of what one sequence may hold; quick leaves out the deep one."""
    assert [test.label for test in default_tests(8192)] == ["pp512", "tg128", "tg128 @ d4096"]
    assert [test.label for test in default_tests(8192, quick=True)] == ["pp512", "tg128"]
    for context in (64, 200, 512, 4096):
        assert all(test.depth + test.tokens <= context for test in default_tests(context))


def test_the_choice_of_threads_is_among_those_tried(bench: Bench, subject: Subject, settings: Settings) -> None:
    """On whatever machine: a count that was offered; what is not trusted is the safe one."""
    choice = choose_threads(bench, subject, settings, usable_threads=2, budget_s=2.0)
    assert choice.threads in thread_counts(2)
    assert choice.threads_batch in thread_counts(2)
    if not choice.trusted:
        assert (choice.threads, choice.openmp_wait) == (2, "passive") or "slice" in choice.basis
    assert choice.applied(settings).threads == choice.threads


def test_one_usable_thread_leaves_nothing_to_try(bench: Bench, subject: Subject, settings: Settings) -> None:
    """No child is started for it."""
    choice = choose_threads(bench, subject, settings, usable_threads=1)
    assert (choice.threads, choice.threads_batch, choice.openmp_wait) == (1, 1, "passive")
    assert bench.pids == ()


@pytest.mark.parametrize("usable", [1, 2, 3, 4, 8, 24, 96])
def test_thread_counts_start_with_the_safe_one_and_never_exceed_it(usable: int) -> None:
    """All usable first; every other one smaller and at least one."""
    counts = thread_counts(usable)
    assert counts[0] == usable
    assert all(1 <= count < usable for count in counts[1:])
    assert len(set(counts)) == len(counts)


def test_a_session_answers_what_it_knows_without_lock_or_child(
    tmp_path: Path, subject: Subject, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second session gives the kept measurement; a child would be an error."""
    monkeypatch.setenv("PLANNER_LOCK_FILE", str(tmp_path / "lock"))
    store = MeasurementStore("m", "b", folder=tmp_path / "store")
    with MeasuringSession(lambda env: EngineChild(env=env), store, effort="quick", folder=tmp_path) as session:
        first = session.measure(subject, settings, TESTS, budget_s=1.0)
    quiet = msgspec.structs.replace(first, conditions=msgspec.structs.replace(first.conditions, disturbed=()))
    from planner.measure.store import Question

    asked = Question(shape_key="tiny", quantization="Q8_0", settings=settings, tests=TESTS)
    assert store.keep(asked, quiet, effort="quick")
    (tmp_path / "lock").unlink()

    def no_child(_env: object) -> EngineChild:
        raise AssertionError("a kept measurement was taken again")

    with MeasuringSession(no_child, store, effort="quick", folder=tmp_path) as session:
        assert session.measure(subject, settings, TESTS, budget_s=1.0) == quiet
        twin = _replaced(subject, model="tiny-twin")
        assert session.measure(twin, settings, TESTS, budget_s=1.0).model == "tiny-twin"
    assert not (tmp_path / "lock").exists()


def test_a_session_tries_threads_once(
    tmp_path: Path, subject: Subject, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trusted or not, the second candidate of a plan runs with the threads of the first."""
    monkeypatch.setenv("PLANNER_LOCK_FILE", str(tmp_path / "lock"))
    store = MeasurementStore("m", "b", folder=tmp_path / "store")
    with MeasuringSession(lambda env: EngineChild(env=env), store, folder=tmp_path) as session:
        known = KnownThreads(2, store)
        first = session.threads(subject, settings, trial=subject, known=known, budget_s=1.0)
        assert session.threads(subject, settings, trial=subject, known=known, budget_s=1.0) is first
        assert known.of("any", "Q4_0") is first
        assert kept_choice(store, 2) == (first if first.trusted else None)


def _prompt_speed(found: Measurement) -> float | None:
    return next((result.tokens_per_s.median for result in found.results if result.test == TESTS[0]), None)


def _replaced(subject: Subject, **changes: object) -> Subject:
    import dataclasses

    return dataclasses.replace(subject, **changes)
