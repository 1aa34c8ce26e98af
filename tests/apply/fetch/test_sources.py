"""Which files are fetched: what the plan names, what the user vouches for when it is the same model, and no others."""

import errno
import hashlib
from pathlib import Path

import msgspec
import pytest

from planner import catalogue
from planner.apply import fetch_space
from planner.apply.fetch import fetch
from planner.apply.receipts import find_receipt
from planner.engine.phantom import write_phantom
from planner.errors import ExitCode, FileIOError, MissingInputError, PlannerError, UsageError
from planner.hub.storing import storage_error


def refusal(plan, **how) -> PlannerError:
    """The error that a fetch ends with."""
    with pytest.raises(PlannerError) as caught:
        fetch(plan, **how)
    assert find_receipt(plan) is None
    return caught.value


def test_every_part_of_a_split_set_comes(planned, hub, hasty):
    """In order, the first is the one to load."""
    plan = planned("hf:org/Small-GGUF:Q8_0")
    done = fetch(plan, patience=hasty)
    names = [f"Split-Q8_0-0000{number}-of-00002.gguf" for number in (1, 2)]
    assert [Path(path).name for path in done.receipt.weights] == names
    assert {Path(path).parent for path in done.receipt.weights} == {Path(done.receipt.weights[0]).parent}
    for name, path in zip(names, done.receipt.weights, strict=True):
        assert Path(path).read_bytes() == hub.repos["org/Small-GGUF"][name].body


def test_companions_come_along_and_are_no_weights(plan, hasty):
    """A projector and a model that drafts: in the receipt, but not what is loaded."""
    also = ("hf:org/Small-GGUF/mmproj-F16.gguf", "hf:org/Small-GGUF:Q8_0")
    done = fetch(plan, also=also, patience=hasty)
    assert [file.kind for file in done.receipt.files] == ["model", "mmproj", "draft", "draft"]
    assert [Path(path).name for path in done.receipt.weights] == ["Small-Q4_K_M.gguf"]


def test_a_plan_that_chose_nothing_has_nothing_to_fetch(invented):
    """Exit 10, as the plan itself."""
    error = refusal(msgspec.structs.replace(invented, chosen=None))
    assert error.exit_code is ExitCode.NOTHING_MEETS_THE_GOAL


def test_a_plan_of_the_catalogue_asks_whose_file_is_trusted(invented):
    """No repository is guessed; the message says what is wanted and the hint how to name it."""
    error = refusal(invented)
    assert isinstance(error, UsageError)
    assert error.code == "no-repository"
    assert "qwen3-8b in Q4_K_M" in error.message
    assert "--from hf:OWNER/" in error.hint
    assert "-GGUF:Q4_K_M" in error.hint


@pytest.fixture
def phantoms(hub, speaker, tmp_path):
    """The headers of two models of the catalogue, offered by the hub as whole files of zeros."""
    known = catalogue.load()
    for name in ("qwen3-8b", "qwen3-4b"):
        path = tmp_path / f"{name}.gguf"
        size = write_phantom(path, known.layout(known.model(name))).size_bytes
        with path.open("rb") as file:
            blob = speaker.Blob(file.read(1 << 20), size, sha256=hashlib.sha256(name.encode()).hexdigest())
        hub.repos[f"org/{name}-GGUF"] = {f"{name}-Q4_K_M.gguf": blob}
        path.unlink()
    return hub


def weights_bytes(name: str) -> int:
    """Bytes of a model of the catalogue before it is quantized."""
    sizes = {"BF16": 2, "F32": 4}
    known = catalogue.load()
    tensors = known.layout(known.model(name)).tensors
    total = 0
    for tensor in tensors:
        count = 1
        for dim in tensor.dims:
            count *= dim
        total += count * sizes[tensor.type]
    return total


def sized(plan, size: int):
    """The plan with so many bytes of weights."""
    return msgspec.structs.replace(plan, chosen=msgspec.structs.replace(plan.chosen, file_bytes=size))


def test_another_model_is_refused_by_its_shape(phantoms, invented):
    """Whatever the repository is called, and whether or not somebody would accept it."""
    error = refusal(sized(invented, weights_bytes("qwen3-4b")), source="hf:org/qwen3-4b-GGUF", accept=True)
    assert (error.exit_code, error.code) == (ExitCode.BAD_INPUT_FILE, "another-model")
    assert "is not qwen3-8b" in error.message
    assert sum(seen.sent for seen in phantoms.of("content")) < 20 << 20


def test_another_mix_of_types_is_refused_with_its_size(phantoms, invented):  # noqa: ARG001 - the hub has to be there
    """Two per cent more: told, and left."""
    error = refusal(sized(invented, int(weights_bytes("qwen3-8b") / 1.02)), source="hf:org/qwen3-8b-GGUF:Q4_K_M")
    assert (error.exit_code, error.code) == (ExitCode.BAD_INPUT_FILE, "another-size")
    assert "2.0 % more" in error.message
    assert "--accept" in error.hint


@pytest.mark.parametrize(("factor", "accept"), [(1.0, False), (1.005, False), (1.02, True)])
def test_the_same_model_passes_up_to_the_disk(phantoms, invented, monkeypatch, factor, accept):
    """Equal within a per cent, or accepted: the next thing asked is whether there is room."""
    monkeypatch.setattr(fetch_space, "_MARGIN_BYTES", 1 << 60)
    plan = sized(invented, int(weights_bytes("qwen3-8b") / factor))
    assert refusal(plan, source="hf:org/qwen3-8b-GGUF", accept=accept).code == "disk-full"
    assert phantoms


def test_no_room_is_told_before_the_first_byte(hub, speaker, planned):
    """What is to come, what is free, what is missing."""
    hub.repos["org/Small-GGUF"]["Small-Q4_K_M.gguf"] = speaker.Blob(b"GGUF", 1 << 50, sha256="e" * 64)
    error = refusal(planned())
    assert (error.exit_code, error.code) == (ExitCode.IO, "disk-full")
    assert "are to come" in error.message
    assert "more are needed" in error.message
    assert not hub.seen


def test_offline_what_is_missing_is_told(plan, hub):
    """Not a question is asked."""
    error = refusal(plan, offline=True)
    assert error.code == "offline"
    assert not hub.seen


def test_offline_what_is_here_is_enough(plan, hub, hasty):
    """Verified, with a receipt."""
    done = fetch(plan, patience=hasty)
    Path(done.receipt_path).unlink()
    hub.seen.clear()
    again = fetch(plan, offline=True)
    assert again.received_bytes == 0
    assert again.receipt.files == done.receipt.files
    assert not hub.seen


@pytest.mark.parametrize("harm", ["flipped", "cut", "empty"])
def test_a_damaged_blob_is_replaced(plan, hasty, blob, harm, hub):
    """Under the name of a hash lies that content, or nothing."""
    done = fetch(plan, patience=hasty)
    path = Path(done.receipt.weights[0]).resolve()
    bad = {"flipped": blob.body[:-1] + b"!", "cut": blob.body[:100], "empty": b""}[harm]
    path.write_bytes(bad)
    hub.seen.clear()
    again = fetch(plan, patience=hasty)
    assert Path(again.receipt.weights[0]).read_bytes() == blob.body
    assert again.received_bytes == blob.size


def test_a_copy_in_another_programs_cache_is_used_where_it_lies(plan, home, blob, hub):
    """Hashed, taken, nothing transferred."""
    copy = home / ".lmstudio/models/org/Small-GGUF/Small-Q4_K_M.gguf"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(blob.body)
    done = fetch(plan)
    assert done.receipt.weights == (str(copy),)
    assert not hub.seen


def test_a_wrong_copy_is_left_alone(plan, home, blob, hasty):
    """The same size, another content: told, not taken, not touched."""
    copy = home / ".lmstudio/models/org/Small-GGUF/Small-Q4_K_M.gguf"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(bytes(blob.size))
    done = fetch(plan, patience=hasty)
    assert done.receipt.weights != (str(copy),)
    assert any(str(copy) in note for note in done.notes)
    assert copy.read_bytes() == bytes(blob.size)


def test_a_file_of_this_disk_is_verified_as_it_is(planned, tmp_path, blob):
    """No hub names its hash: it is written down, and said so."""
    path = tmp_path / "mine.gguf"
    path.write_bytes(blob.body)
    plan = planned(str(path))
    done = fetch(plan)
    assert done.receipt.files[0].sha256 == blob.sha256
    assert not done.receipt.files[0].compared
    assert "not compared" in done.notes[0]
    path.unlink()
    with pytest.raises(MissingInputError, match="not here"):
        fetch(plan)


HOSTILE = ["../../../escape.gguf", "/etc/escape.gguf", "a/../../escape.gguf", "a\\..\\b.gguf", "x\n.gguf", "", ".."]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_path_in_a_plan_never_leaves_the_cache(plan, name, tmp_path):
    """A plan is a file that somebody may have sent."""
    part = msgspec.structs.replace(plan.chosen.artifact.parts[0], path=name)
    artifact = msgspec.structs.replace(plan.chosen.artifact, parts=(part,))
    before = sorted(tmp_path.rglob("*"))
    error = refusal(msgspec.structs.replace(plan, chosen=msgspec.structs.replace(plan.chosen, artifact=artifact)))
    assert error.code == "bad-name"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("field", "value"), [("repo", "../../x"), ("repo", "a/b/c"), ("repo", "a/.."), ("commit", "../../../x/" + "a" * 30)]
)
def test_a_hostile_repository_in_a_plan_never_leaves_the_cache(plan, hub, field, value, tmp_path):
    """Nor does its commit."""
    artifact = msgspec.structs.replace(plan.chosen.artifact, **{field: value})
    before = sorted(tmp_path.rglob("*"))
    error = refusal(msgspec.structs.replace(plan, chosen=msgspec.structs.replace(plan.chosen, artifact=artifact)))
    assert error.exit_code in {ExitCode.BAD_INPUT_FILE, ExitCode.MISSING_INPUT, ExitCode.NOT_PERMITTED}
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.is_file()] == []
    assert not hub.of("content")


def test_an_address_in_a_plan_is_not_followed(plan, hub, hasty):
    """Where a file comes from follows from hub, repository, commit and path; a plan cannot send us elsewhere."""
    part = msgspec.structs.replace(plan.chosen.artifact.parts[0], url="http://127.0.0.1:9/evil.gguf")
    artifact = msgspec.structs.replace(plan.chosen.artifact, parts=(part,))
    fetch(msgspec.structs.replace(plan, chosen=msgspec.structs.replace(plan.chosen, artifact=artifact)), patience=hasty)
    assert hub.of("content")


@pytest.mark.parametrize(
    ("number", "code", "exit_code"),
    [
        (errno.ENOSPC, "disk-full", ExitCode.IO),
        (errno.EDQUOT, "disk-full", ExitCode.IO),
        (errno.EFBIG, "disk-full", ExitCode.IO),
        (errno.EROFS, "not-permitted", ExitCode.NOT_PERMITTED),
        (errno.EACCES, "not-permitted", ExitCode.NOT_PERMITTED),
        (errno.EIO, "io", ExitCode.IO),
    ],
)
def test_what_a_disk_refuses_has_its_exit_code(number, code, exit_code):
    """Full, forbidden, broken."""
    error = storage_error(Path("x"), OSError(number, "told"))
    assert isinstance(error, FileIOError)
    assert (error.code, error.exit_code) == (code, exit_code)
