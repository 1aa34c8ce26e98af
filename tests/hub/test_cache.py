"""What was read once is not read again, unless it is another file or the cache is damaged."""

import hashlib
from pathlib import Path

import msgspec
import pytest

from planner.errors import UnavailableError
from planner.files import cache_dir
from planner.hub import find, header_files, parse_reference

LINK = "hf:org/Small-GGUF:Q4_K_M"


def test_the_second_question_asks_for_the_listing_alone(hub, ask):
    """The listing names the same hash, so the header is known."""
    (first,) = ask()
    hub.seen.clear()
    (second,) = ask()
    assert [seen.kind for seen in hub.seen] == ["api"]
    assert (second.path, second.file_bytes) == (first.path, first.file_bytes)


def test_a_header_is_kept_under_its_own_hash(hub, ask):  # noqa: ARG001 - there has to be a hub
    """Content decides the name, so two files with one header share it."""
    (first,), (second,) = ask(), ask("hf:org/Small-GGUF:Q8_0")
    assert first.path == second.path
    assert Path(first.path).stem == hashlib.sha256(Path(first.path).read_bytes()).hexdigest() == first.header_sha256


def test_an_entry_tells_where_its_header_came_from(hub, ask):
    """ETag, commit, size and time, for whoever wonders."""
    ask()
    entries = [msgspec.json.decode(path.read_bytes()) for path in (cache_dir() / "headers" / "index").iterdir()]
    assert {entry["commit"] for entry in entries} == {"0123456789abcdef0123456789abcdef01234567"}
    assert {entry["sha256"] for entry in entries} == {"1" * 64}
    assert {entry["file_bytes"] for entry in entries} == {hub.repos["org/Small-GGUF"]["Small-Q4_K_M.gguf"].size}
    assert all(entry["etag"] and entry["fetched_at"] for entry in entries)


def test_another_hash_in_the_listing_reads_the_header_again(hub, ask, speaker):
    """A new upload under the old name."""
    (old,) = ask()
    head, size = speaker.gguf(tokens=5)
    hub.repos["org/Small-GGUF"]["Small-Q4_K_M.gguf"] = speaker.Blob(head, size, sha256="7" * 64)
    (new,) = ask()
    assert Path(new.path).read_bytes() == head != Path(old.path).read_bytes()


def test_without_a_hash_another_size_reads_the_header_again(hub, ask, speaker):
    """The commit is the same in this listing, but the entry is not believed against it."""
    blob = hub.repos["org/Small-GGUF"]["Small-Q4_K_M.gguf"]
    blob.sha256 = "not a hash"
    ask()
    head, size = speaker.gguf(tokens=5)
    hub.repos["org/Small-GGUF"]["Small-Q4_K_M.gguf"] = speaker.Blob(head, size, sha256="not a hash")
    (new,) = ask()
    assert Path(new.path).read_bytes() == head


def test_an_address_is_revalidated_by_its_etag(hub, hasty):
    """One byte is asked for; the same ETag needs no more, another one does."""
    url = f"{hub.content}/org/Small-GGUF/Small-Q4_K_M.gguf"

    def read():
        hub.seen.clear()
        repository = find(parse_reference(url), patience=hasty)
        header_files(repository.models[0], patience=hasty)
        return [seen.headers["range"] for seen in hub.seen]

    assert len(read()) == 2
    assert read() == ["bytes=0-0"]
    hub.repos["org/Small-GGUF"]["Small-Q4_K_M.gguf"].etag = '"cdn-2"'
    assert len(read()) == 2


@pytest.mark.parametrize("damage", [b"", b"GGUF", b"{", b"\0" * 100])
@pytest.mark.parametrize("what", ["index", "header"])
def test_a_damaged_entry_is_read_again(hub, ask, what, damage):
    """A disk that lies, a write that another program cut."""
    (file,) = ask()
    head = Path(file.path).read_bytes()
    folder = cache_dir() / "headers" / "index"
    for path in [Path(file.path)] if what == "header" else list(folder.iterdir()):
        path.write_bytes(damage)
    hub.seen.clear()
    (again,) = ask()
    assert Path(again.path).read_bytes() == head
    assert len(hub.of("content")) == 1


def test_what_was_seen_before_needs_no_network(hub, ask, hasty, monkeypatch):
    """Listing and header from the cache, with the time of the listing."""
    ask()
    hub.seen.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    repository = find(parse_reference(LINK), patience=hasty)
    assert repository.listed_at is not None
    (file,) = header_files(repository.models[0], patience=hasty)
    assert Path(file.path).exists()
    assert not hub.seen


def test_offline_can_be_asked_for_without_a_variable(hub, hasty):
    """The argument does what HF_HUB_OFFLINE does."""
    find(parse_reference(LINK), patience=hasty)
    repository = find(parse_reference(LINK), offline=True, patience=hasty)
    with pytest.raises(UnavailableError, match="header of Small-Q4_K_M"):
        header_files(repository.models[0], offline=True, patience=hasty)
    assert [seen.kind for seen in hub.seen] == ["api"]


def test_another_endpoint_is_another_hub(hub, hasty, ask, monkeypatch):
    """What a mirror says about a hash is not believed for the hub's own file, nor its listing for the hub's."""
    ask()
    monkeypatch.setenv("HF_ENDPOINT", hub.content)
    with pytest.raises(UnavailableError):
        find(parse_reference(LINK), offline=True, patience=hasty)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint.replace("127.0.0.1", "localhost"))
    hub.seen.clear()
    ask()
    assert len(hub.of("content")) == 1


def test_a_cache_that_cannot_be_written_costs_only_the_next_time(hub, ask, monkeypatch, tmp_path):
    """The header goes to a temporary folder."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("PLANNER_CACHE_DIR", str(blocked / "cache"))
    (file,) = ask()
    assert Path(file.path).read_bytes() == hub.repos["org/Small-GGUF"]["Small-Q4_K_M.gguf"].head
