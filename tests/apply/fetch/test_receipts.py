"""A receipt says that every byte was read and right, and counts only while the files are as they were."""

import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from planner.apply.fetch import fetch
from planner.apply.receipts import find_receipt, read_receipt, receipt_key, receipt_path, verify_files


@pytest.fixture
def fetched(plan, hasty):
    """The plan's file, fetched."""
    return fetch(plan, patience=hasty)


def test_a_receipt_tells_what_came_from_where(fetched, plan, blob, speaker):
    """Repository, commit, file, size, hash, and the hash of the template in it."""
    receipt = find_receipt(plan)
    assert receipt == fetched.receipt
    assert (receipt.hub, receipt.repo, receipt.commit) == ("hf", "org/Small-GGUF", speaker.COMMIT)
    (file,) = receipt.files
    assert (file.path, file.size_bytes, file.sha256) == ("Small-Q4_K_M.gguf", blob.size, blob.sha256)
    assert file.compared
    assert Path(file.local_path).read_bytes() == blob.body
    assert receipt.chat_template_sha256 == hashlib.sha256(b"{{ hello }}").hexdigest()


def test_the_weights_stand_where_every_tool_looks(fetched, cache, speaker):
    """A link in the snapshot of the commit, to a blob whose name is its hash."""
    (path,) = map(Path, fetched.receipt.weights)
    assert path == cache / "models--org--Small-GGUF/snapshots" / speaker.COMMIT / "Small-Q4_K_M.gguf"
    assert path.resolve().name == fetched.receipt.files[0].sha256


def test_a_plan_for_the_same_weights_finds_the_same_receipt(fetched, plan):
    """Another machine, other settings: the files are the same."""
    other = msgspec.structs.replace(plan, created_at="2031-01-01", engine_build="another", warnings=("x",))
    assert receipt_key(other) == receipt_key(plan)
    assert find_receipt(other) == fetched.receipt


@pytest.mark.parametrize("field", ["model", "quantization", "file_bytes"])
def test_a_plan_for_other_weights_finds_none(fetched, plan, field):  # noqa: ARG001 - there has to be a receipt
    """Model, recipe, size: each is part of what the receipt answers for."""
    other = {"model": "another", "quantization": "Q8_0", "file_bytes": 7}[field]
    changed = msgspec.structs.replace(plan.chosen, **{field: other})
    assert find_receipt(msgspec.structs.replace(plan, chosen=changed)) is None


def test_a_plan_without_a_choice_has_no_receipt(plan):
    """There is nothing it could be about."""
    nothing = msgspec.structs.replace(plan, chosen=None)
    assert receipt_key(nothing) == ""
    assert find_receipt(nothing) is None


def _cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(1000)


def _flip(path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(2000)
        byte = file.read(1)
        file.seek(2000)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("harm", [_cut, _touch, Path.unlink], ids=["cut", "touched", "gone"])
def test_a_file_that_changed_is_not_ready(fetched, plan, harm):
    """No hash is needed to see it."""
    harm(Path(fetched.receipt.weights[0]).resolve())
    assert find_receipt(plan) is None
    (problem,) = verify_files(read_receipt(plan), hash=False)
    assert fetched.receipt.weights[0] in problem


def test_a_flipped_bit_is_found_when_every_byte_is_read(fetched, plan):
    """Same size, same time: only the hash tells."""
    receipt = find_receipt(plan)
    seen = []
    assert verify_files(receipt, hash=True, on_bytes=seen.append) == ()
    assert sum(seen) == receipt.size_bytes
    _flip(Path(fetched.receipt.weights[0]).resolve())
    assert verify_files(receipt, hash=False) == ()
    (problem,) = verify_files(receipt, hash=True)
    assert "other bytes" in problem


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"schema": "planner/receipt/1"}', b"\xff", b"{}" * 3_000_000])
def test_a_broken_receipt_is_none(fetched, plan, text):
    """Cut by a crash, written by somebody else, far too long."""
    Path(fetched.receipt_path).write_bytes(text)
    assert find_receipt(plan) is None


def test_a_receipt_under_another_key_is_none(fetched, plan):
    """Copying a receipt does not make another plan ready."""
    other = msgspec.structs.replace(plan, chosen=msgspec.structs.replace(plan.chosen, file_bytes=7))
    receipt_path(receipt_key(other)).write_bytes(Path(fetched.receipt_path).read_bytes())
    assert find_receipt(other) is None
