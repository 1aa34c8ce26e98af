"""Drift is seen once, by number, above 0.1 % and not below; real answers, of which the older build's were edited."""

import os
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import catalogue
from planner.engine.answers import ANSWERS_FORMAT, Buffer, Buffers, ShapeAnswers, Weights
from planner.engine.child import EngineChild
from planner.engine.drift import NOTABLE, changes_between, kept_answers, kept_builds, prune_builds
from planner.engine.oracle import Oracle
from planner.files import atomic_write
from planner.types.settings import Settings

KNOWN = catalogue.load()
SETTINGS = Settings(context_tokens=2048)
SIZES = st.integers(0, 1 << 40)


@pytest.fixture(scope="module")
def child():
    """One child for the whole module."""
    with EngineChild() as running:
        yield running


@pytest.fixture
def ask(child, tmp_path):
    """Weights and buffers of Qwen3-0.6B from an oracle of its own, and what it found to have drifted."""
    model, recipe = KNOWN.model("qwen3-0.6b"), KNOWN.quantization("Q4_0")

    def told():
        with Oracle(child, folder=tmp_path, devices=()) as oracle:
            key, source = KNOWN.shape_key(model), partial(KNOWN.layout, model)
            oracle.weights(key, source, recipe, SETTINGS)
            oracle.buffers(key, source, [SETTINGS], recipe)
            return oracle.drift

    return told


def older(folder, name, edit):
    """The newest kept answers as if another build had given them, its numbers edited."""
    (newest, *_) = kept_builds(folder)
    for path in newest.glob("*.json"):
        answers = kept_answers(path)
        if answers is not None:
            atomic_write(folder / name / path.name, msgspec.json.encode(edit(answers)))
            path.unlink()


def scaled(answers, factor):
    """The answers with other compute buffers."""
    return msgspec.structs.replace(
        answers,
        buffers={
            key: msgspec.structs.replace(
                told,
                buffers=tuple(
                    msgspec.structs.replace(each, compute_bytes=round(each.compute_bytes * factor))
                    for each in told.buffers
                ),
            )
            for key, told in answers.buffers.items()
        },
    )


@pytest.mark.engine
def test_a_number_that_moved_is_told_once(ask, tmp_path):
    """The first answer of a build is compared with that of the build before; the second comes from its own cache."""
    assert ask() == ()
    older(tmp_path, "older", partial(scaled, factor=0.9))
    (change,) = ask()
    assert (change.quantity, change.buffer, change.quantization) == ("compute", "CPU", "Q4_0")
    assert change.ratio == pytest.approx(1 / 0.9 - 1)
    assert ask() == ()


@pytest.mark.engine
@pytest.mark.parametrize("factor", [1.0, 1.0009, 0.9991])
def test_another_fingerprint_with_the_same_numbers_is_no_drift(ask, tmp_path, factor):
    """A rebuilt library answers alike, to the tenth of a per cent."""
    ask()
    older(tmp_path, "rebuilt", partial(scaled, factor=factor))
    assert ask() == ()


@pytest.mark.engine
def test_answers_of_another_form_are_asked_again_and_not_compared(ask, tmp_path):
    """What an older planner kept may mean something else."""
    ask()
    older(tmp_path, "older", lambda answers: msgspec.structs.replace(scaled(answers, 0.5), format=ANSWERS_FORMAT - 1))
    assert ask() == ()


def answers(compute=1000, *, weights=1000, work=None, refused=None, name="CPU"):
    """Answers to one question each; one that was refused has no numbers."""
    buffer = Buffer(name=name, host=True, model_bytes=0, context_bytes=7, compute_bytes=compute)
    told = Buffers(buffers=(buffer,), work_bytes=work) if refused is None else Buffers(refused=refused)
    held = Weights(
        file_bytes=0, buffers={"CPU": weights}, mapped={}, layers=(), input_bytes=0, head_bytes=0, tied=False
    )  # fmt: skip
    return ShapeAnswers(format=ANSWERS_FORMAT, weights={"w": held}, buffers={"b": told})


@given(SIZES, SIZES)
def test_a_change_is_told_exactly_when_it_is_more_than_a_tenth_of_a_per_cent(before, after):
    """Of what was before, up or down; from nothing anything is a change."""
    told = changes_between("s", answers(before), answers(after))
    assert bool(told) == (abs(after - before) > NOTABLE * before)
    assert all((each.before_bytes, each.after_bytes) == (before, after) for each in told)


def test_weights_and_buffers_are_compared_by_name():
    """A buffer that is gone is empty now, one that is new was empty before; what nobody knows is not compared."""
    found = changes_between("s", answers(), answers(weights=2000, name="CUDA0", work=5))
    assert {(each.quantity, each.buffer): (each.before_bytes, each.after_bytes) for each in found} == {
        ("weights", "CPU"): (1000, 2000),
        ("compute", "CPU"): (1000, 0),
        ("cache", "CPU"): (7, 0),
        ("compute", "CUDA0"): (0, 1000),
        ("cache", "CUDA0"): (0, 7),
    }


def test_a_refusal_that_is_new_or_gone_is_a_change():
    """Its numbers are not: an answer that was refused has none."""
    (now,) = changes_between("s", answers(), answers(refused="no such cache type"))
    (then,) = changes_between("s", answers(refused="no such cache type"), answers())
    assert (now.quantity, now.text, now.ratio) == ("refusal", "no such cache type", None)
    assert (then.quantity, then.text) == ("refusal", "")
    assert changes_between("s", answers(refused="a"), answers(refused="b")) == ()


def test_questions_that_only_one_build_was_asked_are_not_compared():
    """They are neither new nor lost: nobody asked."""
    assert changes_between("s", ShapeAnswers(), answers()) == ()
    assert changes_between("s", answers(), ShapeAnswers()) == ()


def test_the_last_two_builds_are_kept(tmp_path):
    """That of now and the last one beside it; a folder that holds no answers is left alone."""
    for age, name in enumerate(["now", "last", "old", "oldest"]):
        atomic_write(tmp_path / name / "x.json", b"{}")
        os.utime(tmp_path / name / "x.json", (10_000 - age, 10_000 - age))
    (tmp_path / "notes").mkdir()
    assert [path.name for path in kept_builds(tmp_path)] == ["now", "last", "old", "oldest"]
    assert prune_builds(tmp_path, "now") == ("old", "oldest")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "notes", "now"]
    assert kept_builds(tmp_path / "nowhere") == []
