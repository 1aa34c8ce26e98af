"""Models that are on this machine: recognised by name, quantization and size, listed, preferred, chosen among."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import catalogue
from planner.types.artifact import Artifact, LocalModel, Part
from planner.workflow.local import complete_copies, copy_of, model_named

_KNOWN = catalogue.load()
_MODELS = tuple(_KNOWN.models.values())
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def held(repo, quantization="Q4_K_M", *, size=1 << 30, missing=(), kind="model"):
    """A file in some cache."""
    part = Part(path=f"x-{quantization}.gguf", size_bytes=size, local_path=f"/cache/{repo}/x-{quantization}.gguf")
    artifact = Artifact(
        hub="hf", name=part.path, kind=kind, quantization=quantization, parts=(part,), missing=missing, repo=repo
    )
    return LocalModel(source="huggingface", name=f"{repo}/x", artifact=artifact, hub="hf", repo=repo)


@pytest.mark.parametrize("model", _MODELS[::9], ids=lambda model: model.id)
def test_a_model_is_recognised_by_its_own_repository_and_by_any_gguf_sibling(model):
    """The publisher's, and the usual republishers' ways to name it."""
    if model.hf_repo is None:
        pytest.skip("no repository is known")
    owner, name = model.hf_repo.split("/")
    for repo in (model.hf_repo, model.hf_repo.upper(), f"{owner}/{name}-GGUF"):
        found = model_named(repo, _MODELS)
        assert found is not None
        assert found.hf_repo == model.hf_repo
    # Two publishers may share a short name; then nobody is taken rather than the wrong one.
    for repo in (f"unsloth/{name}-GGUF", f"bartowski/{owner}_{name}-GGUF"):
        found = model_named(repo, _MODELS)
        short = [each for each in _MODELS if (each.hf_repo or "").casefold().endswith(f"/{name.casefold()}")]
        assert (found is not None and found.hf_repo == model.hf_repo) or len(short) > 1


@pytest.mark.parametrize(
    ("repo", "model"),
    [
        ("Qwen/Qwen3-8B-GGUF", "qwen3-8b"),
        ("unsloth/Qwen3-8B-GGUF", "qwen3-8b"),
        ("bartowski/Qwen_Qwen3-8B-GGUF", "qwen3-8b"),
        ("unsloth/Qwen3-8B-Base-GGUF", None),
        ("mradermacher/Qwen3-8B-abliterated-i1-GGUF", None),
        ("me/Qwen2.5-7B-GGUF", None),  # the base model; the catalogue's is the Instruct
        ("Qwen/Qwen2.5-7B-Instruct-GGUF", "qwen2.5-7b"),
        ("unsloth/DeepSeek-R1-GGUF", "deepseek-r1"),
        ("me/GGUF", None),
        (None, None),
    ],
)
def test_a_child_or_a_base_is_not_taken_for_the_model(repo, model):
    """The whole name has to agree."""
    found = model_named(repo, _MODELS)
    assert (found.id if found is not None else None) == model


@given(st.integers(1 << 28, 1 << 40), st.floats(-0.5, 0.5))
def test_a_copy_has_the_size_that_was_planned_for(weights_bytes, difference):
    """One per cent either way and a tokenizer on top; anything else is another file."""
    size = int(weights_bytes * (1 + difference))
    copies = complete_copies(_MODELS, [held("unsloth/Qwen3-8B-GGUF", size=size)])
    found = copy_of(copies, "qwen3-8b", "q4_k_m", weights_bytes)
    assert (found is not None) == (-0.01 * weights_bytes <= size - weights_bytes <= 0.01 * weights_bytes + (32 << 20))


@pytest.mark.parametrize(
    "other",
    [
        held("unsloth/Qwen3-8B-GGUF", missing=("y",)),
        held("unsloth/Qwen3-8B-GGUF", kind="mmproj"),
        held("unsloth/Qwen3-8B-GGUF", quantization="UD-Q4_K_XL"),
        held("unsloth/Qwen3-14B-GGUF"),
        held("unsloth/Qwen3-8B-GGUF", size=None),
    ],
    ids=["incomplete", "projector", "another mix", "another model", "unknown size"],
)
def test_what_is_no_whole_copy_is_not_offered(other):
    """Of a set without its second part nobody is told that it is here."""
    copies = complete_copies(_MODELS, [other])
    assert copy_of(copies, "qwen3-8b", "Q4_K_M", 1 << 30) is None


def test_the_order_of_caches_decides_between_equal_copies():
    """The first found stays, whatever comes behind it."""
    first, second = held("Qwen/Qwen3-8B-GGUF"), held("unsloth/Qwen3-8B-GGUF")
    for order in ([first, second], [second, first]):
        copies = complete_copies(_MODELS, order)
        assert copy_of(copies, "qwen3-8b", "Q4_K_M", 1 << 30) == order[0].artifact


# --- with files ---


@pytest.fixture
def cache(nowhere, phantoms):
    """A home where huggingface_hub holds two quantizations, LM Studio a broken file, and llama.cpp half of a set."""
    folder = nowhere / ".cache/huggingface/hub/models--unsloth--Qwen3-0.6B-GGUF"
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for name in ("Qwen3-0.6B-Q4_K_M.gguf", "Qwen3-0.6B-Q8_0.gguf"):
        (folder / "snapshots" / COMMIT / name).symlink_to(phantoms / name)
    broken = nowhere / ".lmstudio/models/me/Broken-GGUF"
    broken.mkdir(parents=True)
    with (phantoms / "Qwen3-0.6B-Q8_0.gguf").open("rb") as file:
        (broken / "Broken-Q4_0.gguf").write_bytes(file.read(900))
    flat = nowhere / ".cache/llama.cpp"
    flat.mkdir(parents=True)
    shutil.copy(broken / "Broken-Q4_0.gguf", flat / "me_Half-GGUF_Half-Q6_K-00001-of-00002.gguf")
    return folder / "snapshots" / COMMIT


def test_the_list_says_who_holds_what_and_whether_all_of_it_is_there(planner, cache):
    """Four files, one of them half of a set; text and JSON agree."""
    code, out, err = planner("models", "--local", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)["models"]
    assert [
        (each["source"], each["files"]["quantization"], each["files"]["complete"], each["model"]) for each in told
    ] == [
        ("huggingface", "Q4_K_M", True, "qwen3-0.6b"),
        ("huggingface", "Q8_0", True, "qwen3-0.6b"),
        ("llama.cpp", "Q6_K", False, None),
        ("lm-studio", "Q4_0", True, None),
    ]
    assert told[1]["files"]["path"] == str(cache / "Qwen3-0.6B-Q8_0.gguf")
    _, text, _ = planner("models", "--local")
    assert "lacks 1" in text
    assert "~/.cache/huggingface/hub/" in text


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("--family", "qwen3"), ["Q4_K_M", "Q8_0"]),
        (("--family", "deepseek"), []),
        (("--license", "commercial", "--thinking"), ["Q4_K_M", "Q8_0"]),
        (("--max-size", "400MiB"), ["Q4_K_M", "Q4_0"]),
        (("--fits", "--machine", "laptop-8gb"), ["Q4_K_M", "Q8_0", "Q4_0"]),
    ],
    ids=str,
)
def test_the_filters_hold_for_files_too(planner, cache, words, left):  # noqa: ARG001 - there have to be files
    """Facts of the catalogue where the file is recognised, sizes of the files themselves."""
    _, out, _ = planner("models", "--local", "--json", *words)
    told = json.loads(out)
    assert [each["files"]["quantization"] for each in told["models"]] == left
    assert told["unrecognised"] == (2 if words[0] in {"--family", "--license"} else 0)


@pytest.mark.engine
def test_a_plan_among_local_models_takes_one_of_them_and_says_where_it_lies(planner, cache):
    """A broken file costs a warning, half a set nothing; the commands name an absolute path."""
    code, out, _ = planner("plan", "--local", "--no-measure", "--min-speed", "0.1", "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["goal"]["local"] is True
    assert plan["chosen"]["model"] == "hf:unsloth/Qwen3-0.6B-GGUF"
    path = plan["commands"]["llama_server"][2]
    assert path == str(cache / f"Qwen3-0.6B-{plan['chosen']['quantization']}.gguf")
    assert plan["commands"]["weights_hint"] == f"{path} is here already"
    assert [warning for warning in plan["warnings"] if "me/Broken-GGUF was left out" in warning]
    assert {each["model"] for each in (plan["chosen"], *plan["alternatives"], *plan["rejected"])} == {
        "hf:unsloth/Qwen3-0.6B-GGUF"
    }


@pytest.mark.engine
def test_a_file_that_two_programs_hold_is_one_candidate(planner, cache, nowhere, phantoms):
    """LM Studio keeps a second copy of the same repository's file, whose hash it does not know."""
    other = nowhere / ".lmstudio/models/unsloth/Qwen3-0.6B-GGUF"
    other.mkdir(parents=True)
    (other / "Qwen3-0.6B-Q8_0.gguf").symlink_to(phantoms / "Qwen3-0.6B-Q8_0.gguf")
    code, out, _ = planner("plan", "--local", "--quant", "q8_0", "--no-measure", "--min-speed", "0.1", "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["chosen"]["quantization"] == "Q8_0"
    assert plan["chosen"]["artifact"]["parts"][0]["local_path"] == str(cache / "Qwen3-0.6B-Q8_0.gguf")


@pytest.mark.engine
def test_a_blob_of_ollama_is_a_model_by_its_name(planner, nowhere, phantoms):
    """Its file is called by its digest and its repository is not known: the header says what it is."""
    folder = nowhere / ".ollama/models"
    digests = {"model": "a" * 64, "config": "b" * 64}
    (folder / "blobs").mkdir(parents=True)
    (folder / "manifests/registry.ollama.ai/library/qwen3").mkdir(parents=True)
    blob = folder / "blobs" / f"sha256-{digests['model']}"
    blob.symlink_to(phantoms / "Qwen3-0.6B-Q4_K_M.gguf")
    (folder / "blobs" / f"sha256-{digests['config']}").write_text(json.dumps({"file_type": "Q4_K_M"}))
    layer = {
        "mediaType": "application/vnd.ollama.image.model",
        "digest": f"sha256:{digests['model']}",
        "size": blob.stat().st_size,
    }
    manifest = {"config": {"digest": f"sha256:{digests['config']}"}, "layers": [layer]}
    (folder / "manifests/registry.ollama.ai/library/qwen3/0.6b").write_text(json.dumps(manifest))
    code, out, _ = planner("plan", "--local", "--no-measure", "--min-speed", "0.1", "--json")
    plan = json.loads(out)
    assert code == 0
    assert (plan["chosen"]["model"], plan["chosen"]["quantization"]) == ("qwen3:0.6b", "Q4_K_M")
    assert plan["chosen"]["index"]["origin"] == "measured"
    assert plan["commands"]["llama_server"][2] == str(blob)


@pytest.mark.engine
def test_a_plan_of_the_catalogue_says_that_its_model_is_here(planner, cache):
    """The same model and quantization: no download is asked for. Another quantization is not here."""
    words = ("plan", "--no-measure", "--min-speed", "0.1", "--json", "--model")
    _, out, _ = planner(*words, "qwen3-0.6b:Q8_0")
    plan = json.loads(out)
    path = str(cache / "Qwen3-0.6B-Q8_0.gguf")
    assert plan["chosen"]["model"] == "qwen3-0.6b"
    assert plan["commands"]["weights_hint"] == f"{path} is here already"
    assert plan["commands"]["llama_server"][2] == path
    assert repr(path) in plan["commands"]["llama_cpp_python"]
    _, out, _ = planner(*words, "qwen3-0.6b:Q6_K")
    assert "search Hugging Face" in json.loads(out)["commands"]["weights_hint"]
    _, out, _ = planner(*words, "qwen3-0.6b:Q8_0", "--machine", "laptop-8gb")
    assert "search Hugging Face" in json.loads(out)["commands"]["weights_hint"]


@pytest.mark.engine
def test_where_nothing_is_local_the_plan_says_so_and_ends_with_66(planner, nowhere):  # noqa: ARG001 - an empty home
    """Nothing to choose from is no answer to a goal."""
    code, out, _ = planner("plan", "--local", "--no-measure", "--json")
    assert code == 66
    assert json.loads(out)["error"]["code"] == "no-local-models"
    code, out, _ = planner("models", "--local")
    assert (code, out) == (0, "No model on this machine is all of that.\n")
