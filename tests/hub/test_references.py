"""What a MODEL argument means, and what it must not mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import UsageError
from planner.hub import parse_reference
from planner.types.artifact import Reference


def fields(text: str) -> dict:
    """What was understood, without the text itself and what is unknown."""
    reference = parse_reference(text)
    assert reference is not None
    names = ("kind", "repo", "file", "revision", "quantization", "url", "path")
    return {name: value for name in names if (value := getattr(reference, name)) is not None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:unsloth/Qwen3-8B-GGUF", {"kind": "hf", "repo": "unsloth/Qwen3-8B-GGUF"}),
        ("HF:a/b:q4_k_m", {"kind": "hf", "repo": "a/b", "quantization": "q4_k_m"}),
        ("hf:a/b:UD-Q4_K_XL", {"kind": "hf", "repo": "a/b", "quantization": "UD-Q4_K_XL"}),
        ("hf:a/b@refs/pr/1:Q8_0", {"kind": "hf", "repo": "a/b", "revision": "refs/pr/1", "quantization": "Q8_0"}),
        ("hf:a/b:Q8_0@v1.0", {"kind": "hf", "repo": "a/b", "revision": "v1.0", "quantization": "Q8_0"}),
        ("hf:a/b/Q8_0/m.gguf", {"kind": "hf", "repo": "a/b", "file": "Q8_0/m.gguf"}),
        ("hf.co/a/b:Q6_K", {"kind": "hf", "repo": "a/b", "quantization": "Q6_K"}),
        ("hf://a/b", {"kind": "hf", "repo": "a/b"}),
        ("ms:Qwen/Qwen3-0.6B-GGUF:Q8_0", {"kind": "ms", "repo": "Qwen/Qwen3-0.6B-GGUF", "quantization": "Q8_0"}),
        ("https://huggingface.co/a/b", {"kind": "hf", "repo": "a/b"}),
        ("https://huggingface.co/a/b/tree/main", {"kind": "hf", "repo": "a/b", "revision": "main"}),
        (
            "https://huggingface.co/a/b/resolve/main/x/m.gguf?download=true",
            {"kind": "hf", "repo": "a/b", "revision": "main", "file": "x/m.gguf"},
        ),
        (
            "https://www.modelscope.cn/models/a/b/file/view/master/m.gguf",
            {"kind": "ms", "repo": "a/b", "revision": "master", "file": "m.gguf"},
        ),
        (
            "https://modelscope.cn/models/a/b/resolve/master/m.gguf",
            {"kind": "ms", "repo": "a/b", "revision": "master", "file": "m.gguf"},
        ),
        (
            "https://example.com/d/m-Q4_0.gguf?download=true#x",
            {"kind": "url", "url": "https://example.com/d/m-Q4_0.gguf", "file": "m-Q4_0.gguf"},
        ),
        ("http://localhost:8080/m.gguf", {"kind": "url", "url": "http://localhost:8080/m.gguf", "file": "m.gguf"}),
        ("./models", {"kind": "local", "path": "models"}),
        ("/data/m.gguf", {"kind": "local", "path": "/data/m.gguf"}),
        ("m.GGUF", {"kind": "local", "path": "m.GGUF"}),
    ],
)
def test_a_reference_is_understood(text, expected):
    """Every form that the help names, and the addresses that people copy from a browser."""
    assert fields(text) == expected


@pytest.mark.parametrize("text", ["qwen3-8b", "Qwen/Qwen3-8B", "deepseek-r1:671b", "", "auto", "q4_k_m", "qwen 3"])
def test_a_plain_name_is_the_catalogues(text, tmp_path, monkeypatch):
    """Also when a file of that very name lies in the way."""
    monkeypatch.chdir(tmp_path)
    if text and "/" not in text:
        (tmp_path / text).write_text("not a model")
    assert parse_reference(text) is None


def test_a_folder_is_local_when_it_is_there(tmp_path, monkeypatch):
    """A path without a dot in front counts only while it exists: ``owner/name`` may be a model's name."""
    monkeypatch.chdir(tmp_path)
    assert parse_reference("models/qwen") is None
    (tmp_path / "models" / "qwen").mkdir(parents=True)
    assert fields("models/qwen") == {"kind": "local", "path": "models/qwen"}


def test_a_home_folder_is_found(home):
    """The shell expands a tilde only where it stands alone."""
    assert fields("~/m.gguf")["path"] == str(home / "m.gguf")


@pytest.mark.parametrize(
    "text",
    [
        "hf:", "hf:a", "hf:a/", "hf:/b", "hf:a/b/", "hf:a/b:", "hf:a/b@", "hf:../b", "hf:a/..", "hf:a/../../etc",
        "hf:a/b/../../c.gguf", "hf:a/b//c.gguf", "hf:a/b/c.bin", "hf:a/b:Q4 K", "hf:a/b@../x", "hf:a/b@x//y",
        "hf:a/b@1:Q4@2", "hf:a/b:Q4:Q5", "hf:a b/c", "hf:a/b?x=1", "hf:a/b#c", "hf:-a/b", "hf:a/b-", "hf:ä/b",
        "ms:a", "ms:a/b/c.txt", "ftp://h/m.gguf", "file:///m.gguf", "https:///m.gguf", "https://h/m.bin", "https://h/",
        "http://example.com/m.gguf", "https://h/a/../m.gguf", "https://h/a/%2e%2e/m.gguf", "https://h:x/m.gguf",
        "https://[h/m.gguf", "https://huggingface.co/", "https://huggingface.co/datasets/a/b", "hf:a/b\n", "a\0.gguf",
        "~nobody-of-this-name/m.gguf",
    ],
)  # fmt: skip
def test_a_malformed_reference_is_refused_with_a_remedy(text):
    """Path traversal, wrong characters, no encryption, no file."""
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["https://u:hunter2@h.example/m.gguf", "https://h.example/m.gguf?token=hunter2", "hf:a/b?token=hunter2"]
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(text):
    """Plans and caches keep addresses, so a secret must not be one's part."""
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert "hunter2" not in caught.value.message + caught.value.hint


def test_the_text_of_a_reference_holds_no_query():
    """It is what messages and plans repeat."""
    reference = parse_reference("https://huggingface.co/a/b/resolve/main/m.gguf?token=hunter2")
    assert reference is not None
    assert "hunter2" not in repr(reference)


@given(st.text(max_size=60))
def test_any_text_is_a_reference_a_name_or_misuse(text):
    """Nothing else comes out, whatever goes in."""
    try:
        reference = parse_reference(text)
    except UsageError:
        return
    assert reference is None or isinstance(reference, Reference)


@given(st.sampled_from(["hf:", "ms:", "https://h.example/"]), st.text(alphabet="ab./\\@:%2eE-_", max_size=30))
def test_no_reference_ever_climbs(start, rest):
    """Neither the repository nor the file in it has a part that leads upwards."""
    try:
        reference = parse_reference(start + rest)
    except UsageError:
        return
    assert reference is not None
    for value in (reference.repo, reference.file, reference.revision):
        assert not {"", ".", ".."} & set((value or "x").split("/"))
