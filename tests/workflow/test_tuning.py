"""``planner tune`` for real: a tiny file, the real engine; and what plans make of what was found."""

import json

import jsonschema
import pytest

from planner.engine.child import EngineChild
from planner.measure.session import MeasuringSession
from planner.measure.store import MeasurementStore
from planner.measure.suite import Subject
from planner.measure.threads import FACT, KnownThreads, ThreadChoice, tuned_fact
from planner.render.schema import schema_of
from planner.types.settings import Settings
from planner.types.tuning import Tuning

pytestmark = pytest.mark.engine


def test_a_file_is_tuned_within_its_time_and_keeps_what_it_was_given(planner, nowhere, tiny):  # noqa: ARG001
    """Exit code 0 with a command, or, on a busy machine, 12 with the reason and none; what was named stays."""
    code, out, err = planner("tune", tiny, "--time-limit", "5", "--context", "512", "--load-mode", "mmap", "--json")
    assert err == ""
    told = json.loads(out)
    jsonschema.validate(told, schema_of(Tuning))
    assert (told["model"], told["contents"], told["layers_timed"]) == ("Tiny", "file", 2)
    tried = {row["factor"] for row in told["trials"]} | {each.split()[0] for each in told["not_tried"]}
    assert tried
    assert "load mode" not in tried
    assert told["default"]["settings"]["context_tokens"] == 512
    disturbed = bool(told["conditions"]["disturbed"])
    assert code == (12 if disturbed else 0)
    assert (told["recommended"] is None) == disturbed
    assert ("llama-server" in told["llama_server"]) == (not disturbed)
    assert told["seconds"] < 30


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("qwen9-8b",), "unknown-model"),
        (("./nothing.gguf",), "missing-input"),
        (("qwen3-0.6b:Q4_K_M", "--quant", "Q8_0"), "usage"),
    ],
    ids=str,
)
def test_what_cannot_be_tuned_is_told_before_an_engine_starts(planner, nowhere, words, error):  # noqa: ARG001
    """A slip in the words costs nothing."""
    code, out, _ = planner("tune", *words, "--json", "--engine-python", "/does/not/exist")
    assert json.loads(out)["error"]["code"] == error
    assert code != 0


def test_a_plan_takes_the_threads_that_the_model_was_tuned_to(tmp_path):
    """Before those of the machine, and without timing anything."""

    def never(_env: object) -> EngineChild:
        raise AssertionError("nothing is to be timed")

    store = MeasurementStore("machine", "build", folder=tmp_path)
    tuned = ThreadChoice(threads=1, threads_batch=2, openmp_wait="active", basis="planner tune")
    store.keep_fact(FACT, ThreadChoice(threads=2, threads_batch=2, openmp_wait="passive", basis="trial"))
    store.keep_fact(tuned_fact("shape", "Q8_0"), tuned)
    with MeasuringSession(never, store) as session:
        for quantization, threads in (("Q8_0", 1), ("Q4_K_M", 2)):
            subject = Subject(
                model="m",
                quantization=quantization,
                shape_key="shape",
                whole=lambda: pytest.fail("no layout is needed"),
                part=lambda _layers: pytest.fail("no layout is needed"),
                resident_bytes=None,
                usable_bytes=0,
                cache_bytes=0,
            )
            known, settings = KnownThreads(2, store), Settings(context_tokens=64)
            assert session.threads(subject, settings, trial=subject, known=known).threads == threads
            assert known.of("shape", quantization).is_of(known.of("shape", quantization).applied(settings))
            assert KnownThreads(1, store).known("shape", quantization) is None
