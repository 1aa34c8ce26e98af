"""Models that other programs fetched, in every layout that their releases wrote."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from planner.errors import FileIOError, MissingInputError, UnavailableError
from planner.hub import find, header_files, local_models, local_scan, parse_reference
from planner.hub.caches import walk
from planner.types.artifact import LocalModel

SHA = "c0ffee" + "0" * 58
OTHER = "facade" + "0" * 58
COMMIT, OLD = "1" * 40, "2" * 40


def put(path: Path, data: bytes = b"GGUF") -> Path:
    """A file with all the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def link_blob(root: Path, repo: str, commit: str, path: str, oid: str, data: bytes = b"GGUF") -> None:
    """A file in a snapshot, linked to its blob as huggingface_hub does it."""
    folder = root / f"models--{repo.replace('/', '--')}"
    blob = put(folder / "blobs" / oid, data)
    link = folder / "snapshots" / commit / path
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))


def only() -> LocalModel:
    """The one model that is found."""
    (model,) = local_models()
    return model


@pytest.mark.parametrize(
    ("variable", "value", "where"),
    [
        (None, None, ".cache/huggingface/hub"),
        ("HF_HOME", "{home}/h", "h/hub"),
        ("HF_HUB_CACHE", "~/c", "c"),
        ("HUGGINGFACE_HUB_CACHE", "{home}/c", "c"),
        ("XDG_CACHE_HOME", "{home}/x", "x/huggingface/hub"),
    ],
)
def test_a_file_of_hugging_faces_cache_is_found(home, monkeypatch, variable, value, where):
    """Repository, commit, quantization, and the hash that the blob is called by."""
    if variable:
        monkeypatch.setenv(variable, value.format(home=home))
    link_blob(home / where, "unsloth/Qwen3-8B-GGUF", COMMIT, "Qwen3-8B-Q4_K_M.gguf", SHA, b"12345")
    model = only()
    assert (model.source, model.hub, model.repo) == ("huggingface", "hf", "unsloth/Qwen3-8B-GGUF")
    assert (model.artifact.commit, model.artifact.quantization) == (COMMIT, "Q4_K_M")
    (part,) = model.artifact.parts
    assert (part.sha256, part.size_bytes) == (SHA, 5)
    assert Path(part.local_path or "").read_bytes() == b"12345"
    assert model.complete


def test_a_file_of_two_commits_is_one_file(home):
    """The commit of main is the one that is named."""
    root = home / ".cache/huggingface/hub"
    for commit in (OLD, COMMIT):
        link_blob(root, "a/b", commit, "m-Q4_0.gguf", SHA)
    link_blob(root, "a/b", OLD, "m-Q8_0.gguf", OTHER)
    put(root / "models--a--b/refs/main", COMMIT.encode())
    assert {(m.artifact.quantization, m.artifact.commit) for m in local_models()} == {("Q4_0", COMMIT), ("Q8_0", OLD)}


def test_a_set_that_lacks_a_part_is_found_incomplete(home):
    """The missing part is named."""
    link_blob(home / ".cache/huggingface/hub", "a/b", COMMIT, "Q4_0/m-Q4_0-00001-of-00002.gguf", SHA)
    model = only()
    assert not model.complete
    assert model.artifact.missing == ("Q4_0/m-Q4_0-00002-of-00002.gguf",)


def test_a_link_to_a_blob_that_is_gone_is_skipped_with_a_note(home):
    """A cleared store leaves links that lead nowhere."""
    root = home / ".cache/huggingface/hub"
    link_blob(root, "a/b", COMMIT, "m-Q4_0.gguf", SHA)
    (root / "models--a--b/blobs" / SHA).unlink()
    scan = local_scan()
    assert not scan.models
    assert "m-Q4_0.gguf" in scan.notes[0]


def test_a_blob_in_a_shared_store_is_followed(home):
    """The blob itself may be a link since version 2; its name stays the hash."""
    root = home / ".cache/huggingface/hub"
    link_blob(root, "a/b", COMMIT, "m-Q4_0.gguf", SHA)
    blob = root / "models--a--b/blobs" / SHA
    shared = put(root / "shared" / "some-name", b"123456")
    blob.unlink()
    blob.symlink_to(shared)
    (part,) = only().artifact.parts
    assert (part.sha256, part.size_bytes) == (SHA, 6)


@pytest.mark.parametrize(
    "where",
    [
        "models/Qwen--Qwen3-0.6B-GGUF/snapshots/master",
        "models/Qwen/Qwen3-0___6B-GGUF",
        "hub/models/Qwen/Qwen3-0___6B-GGUF",
        "Qwen/Qwen3-0.6B-GGUF",
        "hub/Qwen/Qwen3-0___6B-GGUF",
    ],
)
@pytest.mark.parametrize("moved", [False, True])
def test_a_file_of_modelscopes_cache_is_found(home, monkeypatch, where, moved):
    """Four layouts, one of which writes three underscores for a dot."""
    root = home / ".cache/modelscope"
    if moved:
        root = home / "elsewhere"
        monkeypatch.setenv("MODELSCOPE_CACHE", str(root))
    put(root / where / "Qwen3-0.6B-Q8_0.gguf", b"123")
    put(root / where / "Qwen3-0.6B-Q4_0.gguf.incomplete")
    put(root / where / "._____temp" / "Qwen3-0.6B-Q2_K.gguf")
    put(root / "models/.lock/x.gguf")
    model = only()
    assert (model.source, model.hub, model.repo) == ("modelscope", "ms", "Qwen/Qwen3-0.6B-GGUF")
    assert (model.artifact.quantization, model.artifact.size_bytes) == ("Q8_0", 3)


@pytest.mark.parametrize("variable", [None, "LLAMA_CACHE", "XDG_CACHE_HOME"])
def test_a_flat_file_of_llama_cpps_cache_is_found_through_its_manifest(home, monkeypatch, variable):
    """Underscores join owner, repository and file, and stand inside them: only the manifest can tell."""
    root = {None: home / ".cache/llama.cpp", "LLAMA_CACHE": home / "l"}.get(variable, home / "x/llama.cpp")
    if variable:
        monkeypatch.setenv(variable, str(root if variable == "LLAMA_CACHE" else home / "x"))
    entry = {"rfilename": "My_Model-Q4_K_M-00001-of-00002.gguf", "lfs": {"sha256": SHA}}
    put(root / "manifest=my_org=My_Model-GGUF=Q4_K_M.json", json.dumps({"ggufFile": entry}).encode())
    for number in (1, 2):
        put(root / f"my_org_My_Model-GGUF_My_Model-Q4_K_M-0000{number}-of-00002.gguf")
    put(root / "my_org_My_Model-GGUF_My_Model-Q8_0.gguf.downloadInProgress")
    model = only()
    assert (model.source, model.hub, model.repo) == ("llama.cpp", "hf", "my_org/My_Model-GGUF")
    assert model.complete
    assert [part.sha256 for part in model.artifact.parts] == [SHA, None]
    assert model.artifact.parts[0].path == entry["rfilename"]


def test_a_flat_file_with_a_note_of_its_address_is_found(home):
    """As older releases left it."""
    root = home / ".cache/llama.cpp"
    put(root / "m-q4_0.gguf")
    note = {"url": "https://huggingface.co/ggml-org/models/resolve/main/tiny/m-q4_0.gguf", "etag": "x"}
    put(root / "m-q4_0.gguf.json", json.dumps(note).encode())
    model = only()
    assert (model.repo, model.artifact.parts[0].path) == ("ggml-org/models", "tiny/m-q4_0.gguf")


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"url": 3}', b'{"url": "https://h/x.gguf"}', b'{"ggufFile": []}'])
def test_a_flat_file_without_an_origin_is_a_model_all_the_same(home, note):
    """Unknown stays unknown."""
    root = home / ".cache/llama.cpp"
    put(root / "m-q4_0.gguf")
    put(root / "m-q4_0.gguf.json", note)
    put(root / "manifest=a=b=latest.json", note)
    model = only()
    assert (model.repo, model.hub, model.artifact.quantization) == (None, None, "Q4_0")


def test_newer_llama_cpp_writes_hugging_faces_layout(home, monkeypatch):
    """Also below LLAMA_CACHE."""
    monkeypatch.setenv("LLAMA_CACHE", str(home / "l"))
    link_blob(home / "l", "a/b", COMMIT, "m-Q4_0.gguf", SHA)
    assert (only().source, only().repo) == ("llama.cpp", "a/b")


@pytest.mark.parametrize("where", [".lmstudio/models", ".cache/lm-studio/models", "moved/models"])
def test_a_file_of_lm_studio_is_found(home, where):
    """Two homes by habit, and one that the user chose."""
    if where.startswith("moved"):
        put(home / ".lmstudio-home-pointer", str(home / "moved").encode())
    put(home / where / "lmstudio-community/Qwen3-8B-GGUF/Qwen3-8B-Q6_K.gguf")
    put(home / where / "lmstudio-community/Qwen3-8B-GGUF/mmproj-F16.gguf")
    models = local_models()
    assert {model.repo for model in models} == {"lmstudio-community/Qwen3-8B-GGUF"}
    assert {model.artifact.kind for model in models} == {"model", "mmproj"}


def ollama(root: Path, name: str, *, layers=None, data=b"12345", label="Q4_K_M") -> None:
    """A pulled model: manifest, configuration and blob."""
    config = put(root / "blobs" / f"sha256-{OTHER}", json.dumps({"file_type": label}).encode())
    put(root / "blobs" / f"sha256-{SHA}", data)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{SHA}", "size": 5}
    licence = {"mediaType": "application/vnd.ollama.image.license", "digest": f"sha256:{OTHER}", "size": 2}
    document = {"config": {"digest": f"sha256:{config.name[7:]}"}, "layers": layers or [layer, licence]}
    put(root / "manifests" / name, json.dumps(document).encode())


@pytest.mark.parametrize("moved", [False, True])
def test_a_model_of_ollama_is_found_behind_its_manifest(home, monkeypatch, moved):
    """A blob without the name of a model, with the hash that its name states."""
    root = home / ".ollama/models"
    if moved:
        root = home / "o"
        monkeypatch.setenv("OLLAMA_MODELS", str(root))
    ollama(root, "registry.ollama.ai/library/qwen3/8b")
    model = only()
    assert (model.source, model.name, model.repo) == ("ollama", "qwen3:8b", None)
    assert (model.artifact.kind, model.artifact.quantization, model.artifact.size_bytes) == ("model", "Q4_K_M", 5)
    assert model.artifact.parts[0].sha256 == SHA


def test_a_model_that_ollama_took_from_hugging_face_keeps_its_repository(home):
    """The path of the manifest says so; the label stands in the tag when the configuration has none."""
    ollama(home / ".ollama/models", "hf.co/bartowski/Qwen3-8B-GGUF/Q5_K_M", label="unknown")
    model = only()
    assert (model.hub, model.repo) == ("hf", "bartowski/Qwen3-8B-GGUF")
    assert model.artifact.quantization == "Q5_K_M"


def test_a_half_pulled_model_of_ollama_is_incomplete(home):
    """The manifest states the size."""
    ollama(home / ".ollama/models", "registry.ollama.ai/library/qwen3/8b", data=b"123")
    assert not only().complete


@pytest.mark.parametrize(
    "layers", [[3], [{}], [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../etc/passwd"}]]
)
def test_a_hostile_manifest_of_ollama_is_passed_over(home, layers):
    """A digest is 64 hexadecimal digits or nothing."""
    ollama(home / ".ollama/models", "registry.ollama.ai/library/qwen3/8b", layers=layers)
    assert not local_models()


def test_links_in_a_circle_end(home):
    """A folder that contains itself is looked at once."""
    folder = home / ".lmstudio/models/a/b"
    put(folder / "m-Q4_0.gguf")
    (folder / "again").symlink_to(folder)
    (folder / "up").symlink_to(home / ".lmstudio")
    assert len(local_models()) == 1


def test_a_cache_without_end_is_left_at_a_bound(home, monkeypatch):
    """And says so."""
    monkeypatch.setattr(walk, "_MOST_ENTRIES", 10)
    for number in range(20):
        put(home / f".lmstudio/models/a/b/m{number}-Q4_0.gguf")
    scan = local_scan()
    assert len(scan.models) < 10
    assert any("10 entries" in note for note in scan.notes)


def test_a_folder_that_may_not_be_read_is_skipped_with_a_note(home, monkeypatch):
    """Root may read everything, so the refusal is made by hand."""
    put(home / ".lmstudio/models/a/b/m-Q4_0.gguf")
    put(home / ".lmstudio/models/c/d/m-Q4_0.gguf")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("models/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    scan = local_scan()
    assert [model.repo for model in scan.models] == ["c/d"]
    assert [note for note in scan.notes if "models/a: Permission denied" in note]


def test_a_user_without_a_home_has_no_models(monkeypatch):
    """Some containers run as a number that nobody knows."""

    def homeless(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    scan = local_scan()
    assert scan.models == ()
    assert scan.notes == ("there is no home folder to look for models in",)


def test_an_empty_home_has_no_models_and_nothing_to_say():
    """Most people's first run."""
    assert local_scan().models == ()
    assert local_scan().notes == ()


def test_two_programs_that_share_a_folder_are_told_once(home, monkeypatch):
    """HF_HUB_CACHE and LLAMA_CACHE may be the same place."""
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "c"))
    monkeypatch.setenv("LLAMA_CACHE", str(home / "c"))
    link_blob(home / "c", "a/b", COMMIT, "m-Q4_0.gguf", SHA)
    assert only().source == "huggingface"


def test_a_copy_is_read_instead_of_the_network(hub, home, hasty):
    """Same hash, whoever fetched it: the header comes from there, and only the listing is asked for."""
    blob = hub.repos["org/Small-GGUF"]["Small-Q4_K_M.gguf"]
    root = home / ".ollama/models"
    ollama(root, "registry.ollama.ai/library/small/latest", data=blob.read(0, blob.size))
    blob.sha256 = SHA
    (root / "manifests/registry.ollama.ai/library/small/latest").write_text(
        json.dumps(
            {
                "layers": [
                    {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{SHA}", "size": blob.size}
                ]
            }
        )
    )
    repository = find(parse_reference("hf:org/Small-GGUF:Q4_K_M"), patience=hasty)
    (model,) = repository.models
    assert model.on_disk
    (file,) = header_files(model, patience=hasty)
    assert file.path == str(root / "blobs" / f"sha256-{SHA}")
    assert file.file_bytes == blob.size
    assert [seen.kind for seen in hub.seen] == ["api"]


@pytest.mark.parametrize(("name", "size", "used"), [("Small-Q4_K_M.gguf", 0, True), ("Small-Q4_K_M.gguf", 1, False)])
def test_a_copy_without_a_hash_needs_repository_name_and_size(hub, home, hasty, name, size, used):
    """LM Studio keeps no hashes; a file of another size is another file."""
    blob = hub.repos["org/Small-GGUF"]["Small-Q4_K_M.gguf"]
    put(home / ".lmstudio/models/org/Small-GGUF" / name, blob.read(0, blob.size) + bytes(size))
    (model,) = find(parse_reference("hf:org/Small-GGUF:Q4_K_M"), patience=hasty).models
    assert model.on_disk is used


def test_offline_a_copy_stands_for_the_repository(home, hasty):
    """Never listed, and still plannable: with a note that the rest is unknown."""
    link_blob(home / ".cache/huggingface/hub", "org/Small-GGUF", COMMIT, "Small-Q4_K_M.gguf", SHA)
    repository = find(parse_reference("hf:ORG/small-gguf"), offline=True, patience=hasty)
    assert [model.quantization for model in repository.models] == ["Q4_K_M"]
    assert repository.notes
    with pytest.raises(MissingInputError, match="Q8_0"):
        find(parse_reference("hf:org/Small-GGUF:Q8_0"), offline=True, patience=hasty)
    with pytest.raises(UnavailableError):
        find(parse_reference("ms:org/Small-GGUF"), offline=True, patience=hasty)


def test_a_file_that_vanished_since_is_missing_input(home, hasty):
    """A cache was cleared between the two calls."""
    link_blob(home / ".cache/huggingface/hub", "a/b", COMMIT, "m-Q4_0.gguf", SHA)
    artifact = only().artifact
    (home / f".cache/huggingface/hub/models--a--b/blobs/{SHA}").unlink()
    with pytest.raises(MissingInputError):
        header_files(artifact, patience=hasty)


def test_a_path_is_a_file_a_set_or_a_folder(tmp_path, hasty):
    """The set is found from any of its parts, and a folder offers all that is in it."""
    for number in (1, 2):
        put(tmp_path / f"big-Q4_0-0000{number}-of-00002.gguf")
    put(tmp_path / "small-Q8_0.gguf")
    put(tmp_path / "notes.txt")

    def models(path):
        return find(parse_reference(str(path)), patience=hasty).models

    (whole,) = models(tmp_path / "big-Q4_0-00002-of-00002.gguf")
    assert [Path(file.path).name for file in header_files(whole)] == [
        "big-Q4_0-00001-of-00002.gguf",
        "big-Q4_0-00002-of-00002.gguf",
    ]
    assert [len(model.parts) for model in models(tmp_path / "small-Q8_0.gguf")] == [1]
    assert {model.quantization for model in models(tmp_path)} == {"Q4_0", "Q8_0"}
    (tmp_path / "big-Q4_0-00001-of-00002.gguf").unlink()
    (half,) = models(tmp_path / "big-Q4_0-00002-of-00002.gguf")
    with pytest.raises(MissingInputError, match="big-Q4_0-00001-of-00002"):
        header_files(half)


def test_a_path_that_is_not_there_is_missing_input(tmp_path, hasty):
    """So is a folder without a model."""
    for path in (tmp_path / "no.gguf", tmp_path):
        with pytest.raises(MissingInputError):
            find(parse_reference(str(path)), patience=hasty)


def test_a_path_through_a_file_is_an_error_of_the_disk(tmp_path, hasty):
    """ENOTDIR has a message too."""
    put(tmp_path / "f")
    with pytest.raises((FileIOError, MissingInputError)):
        find(parse_reference(str(tmp_path / "f" / "m.gguf")), patience=hasty)


def test_every_struct_survives_json(home):
    """They are what ``--json`` prints."""
    link_blob(home / ".cache/huggingface/hub", "a/b", COMMIT, "m-Q4_0.gguf", SHA)
    scan = local_scan()
    assert msgspec.json.decode(msgspec.json.encode(scan), type=type(scan)) == scan
