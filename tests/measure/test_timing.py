"""Real runs in the real child: depth is what was asked for, tokens are what was timed, nothing is left over."""

import importlib.util
import math
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.engine.child import WORKER, EngineChild
from planner.engine.phantom import write_phantom
from planner.errors import EngineError
from planner.measure.slices import weights_bytes
from planner.types.model import Layout

pytestmark = pytest.mark.engine


def run(child: EngineChild, label: str = "tiny", **changes: object) -> dict[str, object]:
    """One run with changes."""
    args = {"label": label, "kind": "generate", "tokens": 8, "depth": 0, "threads": 1, "repetitions": 1}
    return child.ask("timing.run", {**args, **changes})


@pytest.mark.parametrize("kind", ["prompt", "generate"])
@pytest.mark.parametrize("label", ["tiny", "transposed"])
def test_every_repetition_is_timed_and_takes_time(child: EngineChild, kind: str, label: str) -> None:
    """Three repetitions, three positive times of all tokens."""
    answer = run(child, label, kind=kind, tokens=24, repetitions=3)
    assert len(answer["samples_ns"]) == 3
    assert min(answer["samples_ns"]) > 0
    assert answer["tokens_timed"] == 24


@pytest.mark.parametrize("label", ["tiny", "transposed"])
@pytest.mark.parametrize("fill", ["zeros", "decode"])
@pytest.mark.parametrize("depth", [0, 1, 700, 2000])
def test_the_cache_is_at_the_depth_asked_for_after_every_repetition(
    child: EngineChild, label: str, fill: str, depth: int
) -> None:
    """Whatever was there before, and by whatever means it is filled."""
    run(child, label, depth=300 if depth != 300 else 100)
    answer = run(child, label, depth=depth, fill=fill, repetitions=2)
    assert answer["depth_reached"] == depth
    assert len(answer["samples_ns"]) == 2


def test_a_deep_cache_is_filled_with_zeros_without_computing_it(child: EngineChild) -> None:
    """The engine accepts the state that was written for it, in both layouts of the values."""
    for label in ("tiny", "transposed"):
        run(child, label, depth=0)
        answer = run(child, label, depth=3000)
        assert (answer["filled_by"], answer["depth_reached"]) == ("zeros", 3000)


def test_decoding_deep_in_the_cache_takes_longer(child: EngineChild) -> None:
    """Attention over 4000 tokens costs more than over none: the depth is really there."""
    shallow = min(run(child, depth=0, tokens=16, repetitions=5)["samples_ns"])
    deep = min(run(child, depth=4000, tokens=16, repetitions=5)["samples_ns"])
    assert deep > 1.3 * shallow


def test_a_tiny_budget_times_fewer_tokens_and_says_so(child: EngineChild) -> None:
    """The first repetition ends early, the others time as many tokens; one is always timed."""
    answer = run(child, tokens=2000, repetitions=50, budget_s=0.02)
    assert 1 <= answer["tokens_timed"] < 2000
    assert 1 <= len(answer["samples_ns"]) < 50
    nothing = run(child, tokens=2000, budget_s=0.0)
    assert nothing["tokens_timed"] == 1


def test_a_long_prompt_ends_between_batches(child: EngineChild) -> None:
    """A prompt of two batches of 2048 stops after the first when the budget is gone."""
    answer = run(child, kind="prompt", tokens=3000, budget_s=0.0)
    assert answer["tokens_timed"] == 2048


def test_a_depth_that_takes_too_long_is_not_timed_at_all(child: EngineChild) -> None:
    """No samples instead of samples at another depth."""
    run(child, depth=0)
    answer = run(child, depth=3900, fill="decode", fill_budget_s=0.0)
    assert answer["samples_ns"] == []
    assert answer["tokens_timed"] == 0
    assert 0 < answer["depth_reached"] < 3900


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"label": "nobody"}, "nobody"),
        ({"tokens": 5000}, "context"),
        ({"tokens": 10, "depth": 4090}, "context"),
        ({"tokens": 0}, "at least one"),
        ({"depth": -1}, "from zero on"),
        ({"kind": "dance"}, "dance"),
    ],
)
def test_what_cannot_be_timed_is_refused_in_words(child: EngineChild, changes: dict[str, object], word: str) -> None:
    """And the child lives on."""
    with pytest.raises(EngineError, match=word):
        run(child, **changes)
    assert run(child)["tokens_timed"] == 8


def test_threads_change_without_loading_again(child: EngineChild) -> None:
    """Two threads on the model that was opened with one."""
    assert len(run(child, threads=2, threads_batch=2, repetitions=2)["samples_ns"]) == 2


def test_threads_of_openmp_end_with_the_run(child: EngineChild) -> None:
    """An idle child has no team that could spin while another child is timed."""
    run(child, threads=1)
    before = len(list(Path(f"/proc/{child.pid}/task").iterdir()))
    run(child, threads=2, tokens=32)
    assert len(list(Path(f"/proc/{child.pid}/task").iterdir())) <= before


def test_events_tell_how_far_it_is(child: EngineChild) -> None:
    """One event after each repetition."""
    seen: list[dict[str, object]] = []
    args = {"label": "tiny", "kind": "generate", "tokens": 4, "repetitions": 3, "threads": 1}
    child.ask("timing.run", args, on_event=seen.append)
    assert [event["done"] for event in seen if event["stage"] == "run"] == [1, 2, 3]


def test_a_missing_model_is_refused_and_closing_nothing_closes_nothing(child: EngineChild) -> None:
    """Errors in words; labels that are open stay open."""
    with pytest.raises(EngineError, match="no such file"):
        child.ask("timing.open", {"path": "/nowhere.gguf", "settings": {"context_tokens": 64}, "label": "x"})
    assert child.ask("timing.close", {"label": "x"}) == {"closed": []}
    assert run(child)["tokens_timed"] == 8


def _zerostate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("zerostate_under_test", WORKER / "zerostate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ZEROSTATE = _zerostate()


def saved_state(cells: int = 2, layers: int = 3, value: bytes = b"\x07") -> bytes:
    """A saved state of one stream with values by token, as the engine writes it."""
    parts = [b"magicseq", struct.pack("<II", 1, cells)]
    parts += [struct.pack("<iIi", position, 1, 0) for position in range(cells)]
    parts.append(struct.pack("<II", 0, layers))
    parts += [struct.pack("<iQ", 1, 16) + value * (16 * cells) for _ in range(2 * layers)]
    return b"".join(parts)


@given(st.integers(min_value=1, max_value=500), st.integers(min_value=1, max_value=4))
def test_a_state_grows_to_exactly_the_state_of_that_many_tokens(depth: int, layers: int) -> None:
    """Same structure as a state that was saved at that depth; values are zero."""
    grown = ZEROSTATE.zero_state(saved_state(2, layers), 2, depth)
    assert grown is not None
    with grown:
        assert bytes(grown) == saved_state(depth, layers, value=b"\x00")


def test_a_latent_cache_has_keys_and_no_values() -> None:
    """The state of an MLA model ends after the keys and grows all the same."""
    keys_alone = saved_state()[: -3 * (12 + 2 * 16)]
    grown = ZEROSTATE.zero_state(keys_alone, 2, 100)
    assert grown is not None
    with grown:
        assert bytes(grown) == saved_state(100, value=b"\x00")[: -3 * (12 + 100 * 16)]


@pytest.mark.parametrize("streams", [2, 4, 256])
@pytest.mark.parametrize("latent", [False, True])
def test_a_state_of_a_context_for_several_sequences_grows_too(streams: int, latent: bool) -> None:
    """Its other streams are empty, and stand behind the keys of a latent cache where values would be."""

    def state(cells: int, value: bytes = b"\x07") -> bytes:
        whole = saved_state(cells, value=value)
        whole = whole[: -3 * (12 + 16 * cells)] if latent else whole
        return whole[:8] + struct.pack("<I", streams) + whole[12:] + bytes(4 * (streams - 1))

    for caches in (1, 2):
        grown = ZEROSTATE.zero_state(state(2) + state(2)[8:] * (caches - 1), 2, 100)
        assert grown is not None
        with grown:
            assert bytes(grown) == state(100, b"\x00") + state(100, b"\x00")[8:] * (caches - 1)


@given(st.data())
def test_a_state_of_unknown_layout_is_refused_and_never_raises(data: st.DataObject) -> None:
    """Cut anywhere, or with any byte of its structure changed, it is refused or still the same structure."""
    whole = saved_state()
    keys_alone = len(whole) - 3 * (12 + 2 * 16)  # a latent cache ends here: keys of all layers and no values
    cut = data.draw(st.integers(min_value=9, max_value=len(whole) - 1).filter(lambda at: at != keys_alone))
    assert ZEROSTATE.zero_state(whole[:cut], 2, 100) is None
    at = data.draw(st.integers(min_value=8, max_value=len(whole) - 1))
    broken = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(min_value=1, max_value=255))]) + whole[at + 1 :]
    grown = ZEROSTATE.zero_state(broken, 2, 10)
    if grown is not None:
        grown.close()


@pytest.mark.parametrize("kind", ["prompt", "generate", "mixed"])
@pytest.mark.parametrize("depth", [0, 40, 700])
def test_sequences_decoded_together_are_all_at_the_depth(shared: EngineChild, kind: str, depth: int) -> None:
    """Three sequences of one context, by zeros or computed, before and after a test of one sequence."""
    one = run(shared, "shared", kind=kind, tokens=24, prompt_tokens=16, depth=depth)
    three = run(shared, "shared", kind=kind, tokens=24, prompt_tokens=16, depth=depth, sequences=3, repetitions=2)
    again = run(shared, "shared", kind=kind, tokens=24, prompt_tokens=16, depth=depth)
    assert [each["tokens_timed"] for each in (one, three, again)] == [24, 24, 24]
    assert (three["depth_reached"], again["depth_reached"], len(three["samples_ns"])) == (depth, depth, 2)


def test_four_sequences_are_four_times_the_work(shared: EngineChild) -> None:
    """More than one alone, and about no more than one after the other, in the best of many runs on a busy machine."""
    one = min(run(shared, "shared", tokens=32, repetitions=15)["samples_ns"])
    four = min(run(shared, "shared", tokens=32, repetitions=15, sequences=4)["samples_ns"])
    assert one < four < 8 * one


def test_a_recurrent_layer_is_brought_back_to_its_depth_by_its_saved_state(hybrid: EngineChild) -> None:
    """It cannot be cut: the state that was computed once is set again, for one sequence and for several."""
    seen: list[dict[str, object]] = []
    for sequences in (1, 2, 1):
        args = {"label": "hybrid", "kind": "generate", "tokens": 8, "depth": 600, "sequences": sequences}
        answer = hybrid.ask("timing.run", {**args, "repetitions": 3}, on_event=seen.append)
        assert (answer["depth_reached"], len(answer["samples_ns"])) == (600, 3)
        assert answer["filled_by"] == "decode"
    assert [event["done"] for event in seen if event["stage"] == "fill"] == [512, 600]


def test_a_prompt_and_its_answer_take_as_long_as_both(shared: EngineChild) -> None:
    """pp256+tg16 is pp256 and tg16 at depth 256, one after the other."""

    def least(**changes: object) -> int:
        return min(run(shared, "shared", repetitions=7, **changes)["samples_ns"])

    both = least(kind="mixed", tokens=272, prompt_tokens=256)
    parts = least(kind="prompt", tokens=256) + least(kind="generate", tokens=16, depth=256)
    assert 0.4 * parts < both < 2.5 * parts


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"sequences": 5}, "made for 4"),
        ({"sequences": 0}, "made for 4"),
        ({"sequences": 2, "tokens": 1100}, "context"),
        ({"kind": "mixed", "prompt_tokens": 8}, "prompt and an answer"),
        ({"kind": "mixed", "prompt_tokens": 0}, "prompt and an answer"),
    ],
)
def test_more_than_the_context_was_made_for_is_refused(
    shared: EngineChild, changes: dict[str, object], word: str
) -> None:
    """In words; the child lives on."""
    with pytest.raises(EngineError, match=word):
        run(shared, "shared", **changes)


def test_the_engine_tells_what_llama_bench_tells_of_a_model(
    shared: EngineChild, tiny: Callable[..., Layout], tmp_path: Path
) -> None:
    """Its description, its bytes, its parameters."""
    path = tmp_path / "tiny.gguf"
    layout = tiny()
    write_phantom(path, layout)
    told = shared.ask("timing.open", {"path": str(path), "settings": {"context_tokens": 64}, "label": "told"})
    shared.ask("timing.close", {"label": "told"})
    assert told["model_type"].startswith("qwen3")
    assert told["model_size"] == weights_bytes(layout)
    assert told["model_n_params"] == sum(math.prod(tensor.dims) for tensor in layout.tensors)
