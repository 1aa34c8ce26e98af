"""Only the header travels: requests and bytes, counted at the server."""

from pathlib import Path

import pytest

from planner.gguf import walk_header
from planner.hub import find, header_files, parse_reference


@pytest.fixture(scope="module")
def large(speaker):
    """A header with 262,144 tokens and 515,000 merges, as the largest vocabularies known have."""
    return speaker.gguf(tokens=262_144, merges=515_000, data_bytes=64 << 20)


def test_a_header_of_262_thousand_tokens_takes_four_requests_and_20_mb_at_most(hub, ask, large, speaker):
    """The promise of the issue, the hub's redirect counted as a request."""
    head, size = large
    assert len(head) > 15_500_000
    hub.repos["org/Large-GGUF"] = {"Large-Q4_K_M.gguf": speaker.Blob(head, size)}
    (file,) = ask("hf:org/Large-GGUF")
    asked = hub.of("resolve", "content")
    assert len(asked) <= 4
    assert sum(seen.sent for seen in asked) <= 20_000_000
    assert Path(file.path).read_bytes() == head
    assert file.file_bytes == size


def test_ranges_follow_each_other_and_overlap_nowhere(hub, ask, large, speaker):
    """What has arrived is never asked for again."""
    head, size = large
    hub.repos["org/Large-GGUF"] = {"Large-Q4_K_M.gguf": speaker.Blob(head, size)}
    ask("hf:org/Large-GGUF")
    spans = [tuple(map(int, seen.headers["range"].removeprefix("bytes=").split("-"))) for seen in hub.of("content")]
    assert spans[0][0] == 0
    assert [start for start, _ in spans[1:]] == [end + 1 for _, end in spans[:-1]]


def test_a_small_header_takes_one_range(hub, ask, speaker):
    """A vocabulary of 32,000 words fits the first range, and the redirect is the only other request."""
    head, size = speaker.gguf(tokens=32_000, data_bytes=64 << 20)
    hub.repos["org/Llama-GGUF"] = {"Llama-Q4_K_M.gguf": speaker.Blob(head, size)}
    (file,) = ask("hf:org/Llama-GGUF")
    assert [seen.kind for seen in hub.of("resolve", "content")] == ["resolve", "content"]
    assert sum(seen.sent for seen in hub.seen) < 1_200_000
    assert walk_header(Path(file.path).read_bytes(), file_bytes=file.file_bytes).architecture == "qwen3"


def test_a_split_set_is_read_part_by_part_in_order(hub, hasty, speaker):
    """Each part has a header of its own; those of the later ones are short and so is what is asked of them."""
    blobs = {}
    for number in (3, 1, 2):
        head, size = speaker.gguf(tokens=1000 if number == 1 else 0, split=(number - 1, 3), data_bytes=8 << 20)
        blobs[f"Q4_K_M/Big-Q4_K_M-0000{number}-of-00003.gguf"] = speaker.Blob(head, size, sha256=str(number) * 64)
    hub.repos["org/Big-GGUF"] = blobs
    (model,) = find(parse_reference("hf:org/Big-GGUF"), patience=hasty).models
    files = header_files(model, patience=hasty)
    assert [walk_header(Path(file.path).read_bytes()).split.part for file in files] == [0, 1, 2]
    assert max(seen.sent for seen in hub.of("content")[1:]) <= 128 << 10


def test_a_set_that_lacks_a_part_is_refused_by_name(hub, hasty, speaker):
    """The planner cannot know the tensors of a part that is not there."""
    from planner.errors import MissingInputError

    head, size = speaker.gguf(split=(0, 2))
    hub.repos["org/Big-GGUF"] = {"Big-Q4_K_M-00001-of-00002.gguf": speaker.Blob(head, size)}
    (model,) = find(parse_reference("hf:org/Big-GGUF"), patience=hasty).models
    assert model.missing == ("Big-Q4_K_M-00002-of-00002.gguf",)
    with pytest.raises(MissingInputError, match="00002-of-00002"):
        header_files(model, patience=hasty)


def test_modelscope_gives_the_same_header(hub, hasty):
    """Two listings and one file behind a redirect, from the same kind of reference."""
    repository = find(parse_reference("ms:org/Small-GGUF:q8_0"), patience=hasty)
    assert repository.licence == "Apache License 2.0"
    assert repository.base_models == ("Qwen/Qwen3-8B",)
    assert [artifact.kind for artifact in repository.artifacts] == ["model", "mmproj"]
    (file,) = header_files(repository.models[0], patience=hasty)
    assert Path(file.path).read_bytes() == hub.repos["org/Small-GGUF"]["Small-Q8_0.gguf"].head


def test_an_address_is_read_without_a_listing(hub, hasty):
    """One byte tells size and ETag, then the header comes as ever."""
    url = f"{hub.content}/org/Small-GGUF/Small-Q4_K_M.gguf"
    repository = find(parse_reference(url), patience=hasty)
    (part,) = repository.models[0].parts
    blob = hub.repos["org/Small-GGUF"]["Small-Q4_K_M.gguf"]
    assert (part.size_bytes, part.etag) == (blob.size, blob.etag)
    (file,) = header_files(repository.models[0], patience=hasty)
    assert Path(file.path).read_bytes() == blob.head


def test_an_address_of_a_split_set_finds_the_sisters(hub, hasty, speaker):
    """The number of parts stands in the name; one that is not there is named."""
    for number in (1, 3):
        head, size = speaker.gguf(split=(number - 1, 3))
        hub.repos.setdefault("org/Web", {})[f"Big-Q6_K-0000{number}-of-00003.gguf"] = speaker.Blob(head, size)
    url = f"{hub.content}/org/Web/Big-Q6_K-00001-of-00003.gguf"
    (model,) = find(parse_reference(url), patience=hasty).models
    assert len(model.parts) == 2
    assert [name.rsplit("/", 1)[-1] for name in model.missing] == ["Big-Q6_K-00002-of-00003.gguf"]


def test_a_listing_says_what_the_card_says(hub, hasty):
    """Commit, licence, base model, and each file's size and hash."""
    repository = find(parse_reference("hf:org/Small-GGUF"), patience=hasty)
    assert repository.commit == "0123456789abcdef0123456789abcdef01234567"
    assert repository.licence == "apache-2.0"
    assert repository.base_models == ("Qwen/Qwen3-8B",)
    assert repository.gated is False
    assert {artifact.quantization for artifact in repository.models} == {"Q4_K_M", "Q8_0"}
    assert all(part.sha256 and part.size_bytes for model in repository.models for part in model.parts)
    assert len(hub.of("api")) == 1


def test_a_header_comes_from_the_commit_that_was_listed(hub, ask):
    """A push between listing and reading cannot mix two files."""
    ask()
    (resolve,) = hub.of("resolve")
    assert f"/resolve/{'0123456789abcdef0123456789abcdef01234567'}/" in resolve.path
