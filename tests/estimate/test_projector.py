"""How the engine's answers about a projector become bytes on each device."""

from hypothesis import given
from hypothesis import strategies as st

from planner.engine.projector import ProjectorAnswer, ProjectorPart
from planner.estimate.projector import projector_memory

_SIZES = st.integers(0, 1 << 40)


def part(device: str, **given_: object) -> ProjectorPart:
    """A vision encoder on ``device`` with a picture of 1024 × 512."""
    known = {
        "kind": "vision", "on_host": device == "CPU", "weights": {device: 1000}, "warmup": {device: 200},
        "largest": {device: 300}, "width": 1024, "height": 512, "count": 1, "tokens": 4, "embedding_bytes": 64,
    }  # fmt: skip
    return ProjectorPart(**{**known, **given_})


@given(weights=_SIZES, warmup=_SIZES, more=_SIZES, work=_SIZES, on_host=st.booleans())
def test_every_byte_of_an_answer_is_on_one_device(weights, warmup, more, work, on_host):
    """The rows' weights and compute add up to the answer's, and totals to their parts."""
    device = "CPU" if on_host else "CUDA0"
    answer = ProjectorAnswer(
        parts=(
            part(
                device,
                weights={device: weights},
                warmup={device: warmup, "CPU": warmup},
                largest={device: warmup + more, "CPU": warmup},
                work_bytes=work if on_host else None,
            ),
        )
    )
    rows = projector_memory(answer)
    largest = answer.parts[0].largest
    assert sum(row.weights_bytes for row in rows) == weights
    assert sum(row.compute_bytes for row in rows) == sum(largest.values())
    assert sum(row.work_bytes for row in rows) == (work if on_host else 0)
    assert all(
        row.total_bytes
        == row.weights_bytes + row.compute_bytes + row.work_bytes + row.pictures_bytes + row.process_bytes
        for row in rows
    )
    assert [row.device for row in rows] == (["CPU"] if on_host else ["CUDA0", "CPU"])


def test_the_host_holds_the_picture_wherever_the_encoder_is():
    """Pixels once as bytes and four times as floats, the graph's inputs before they are its own, tokens twice."""
    held = 1024 * 512 * 3 * (1 + 4 * 4) + 5000 + 2 * 64
    here = projector_memory(ProjectorAnswer(parts=(part("CPU", inputs_bytes=5000),)))
    there = projector_memory(ProjectorAnswer(parts=(part("CUDA0", inputs_bytes=5000),)))
    assert [row.pictures_bytes for row in here] == [held]
    assert [row.pictures_bytes for row in there] == [0, held]


def test_each_slot_keeps_its_last_picture():
    """A second slot adds the pixels of one picture, as floats, and nothing on a card."""
    answer = ProjectorAnswer(parts=(part("CUDA0"),))
    one, two = (projector_memory(answer, slots=slots) for slots in (1, 2))
    assert two[0] == one[0]
    assert two[1].total_bytes - one[1].total_bytes == 1024 * 512 * 3 * 4


def test_two_encoders_add_up():
    """Vision and hearing have graphs and buffers of their own (Qwen2.5-Omni)."""
    both = ProjectorAnswer(parts=(part("CUDA0"), part("CUDA0", kind="audio", width=3000, height=128)))
    card = projector_memory(both)[0]
    assert (card.weights_bytes, card.warmup_bytes, card.compute_bytes) == (2000, 400, 600)


def test_input_without_a_bound_is_said_to_have_none():
    """Where the largest is not known the warm-up counts, and the row says so."""
    row = projector_memory(ProjectorAnswer(parts=(part("CUDA0", largest=None),)))[0]
    assert (row.compute_bytes, row.bounded) == (200, False)
    assert projector_memory(ProjectorAnswer(parts=(part("CUDA0"),)))[0].bounded


def test_a_refused_answer_holds_nothing():
    """There is no row for a projector that the engine refuses: the caller has its reason."""
    assert projector_memory(ProjectorAnswer(refused="unknown projector type")) == ()
