"""The way of a file: from a hub that serves phantoms of real models to inspect, estimate and plan, headers alone."""

import json

import jsonschema
import msgspec
import pytest

from planner import catalogue
from planner.engine.phantom import write_phantom
from planner.render.schema import schema_of
from planner.types.inspection import Inspection
from planner.types.metadata import GgufValue
from planner.types.plan import Candidate, Plan

pytestmark = pytest.mark.engine

CANARY = "hf_canary0123456789abcdefghijklmnopqrst"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "org/Qwen3-0.6B-GGUF"
_HEAD_BYTES = 1 << 20
MACHINE = ("--machine", "laptop-16gb-igpu")


def blob(speaker, path, number):
    """A phantom as the hub's file: its first megabyte holds the header, the rest is a hole as it is on disk."""
    with path.open("rb") as file:
        return speaker.Blob(file.read(_HEAD_BYTES), path.stat().st_size, sha256=f"{number:064x}")


@pytest.fixture
def shelf(hub, speaker, phantoms):
    """The hub with one repository: three quantizations, one of them in two parts, and a projector."""
    files = sorted(phantoms.glob("*.gguf"))
    hub.repos[REPO] = {path.name: blob(speaker, path, number) for number, path in enumerate(files, 1)}
    head, size = speaker.gguf()
    hub.repos[REPO]["mmproj-F16.gguf"] = speaker.Blob(head, size, sha256="f" * 64)
    return hub


def files_read(hub):
    """The files of which bytes were asked for, each with the number of requests."""
    found = {}
    for seen in hub.of("resolve", "content"):
        name = seen.path.partition("?")[0].rsplit("/", 1)[-1]
        found[name] = found.get(name, 0) + 1
    return found


def test_a_repository_is_listed_without_reading_a_header(planner, shelf):
    """One question to the hub; every quantization with its size and parts, the projector apart."""
    code, out, err = planner("inspect", f"hf:{REPO}", "--json", "--engine-python", "/does/not/exist")
    assert (code, err) == (0, "")
    told = json.loads(out)
    jsonschema.validate(told, schema_of(Inspection))
    assert told["contents"] is None
    assert [(each["quantization"], each["parts"], each["kind"]) for each in told["files"]] == [
        ("Q4_K_M", 1, "model"),
        ("Q6_K", 2, "model"),
        ("Q8_0", 1, "model"),
        ("F16", 1, "mmproj"),
    ]
    assert told["commit"] == COMMIT
    assert [seen.kind for seen in shelf.seen] == ["api"]
    _, text, _ = planner("inspect", f"hf:{REPO}")
    assert f"planner inspect hf:{REPO}:Q4_K_M" in text


@pytest.mark.parametrize(
    ("words", "parts"), [((":q6_k",), 2), ((":Q4_K_M",), 1), (("", "--quant", "q8_0"), 1)], ids=str
)
def test_one_quantization_is_read_and_recognised(planner, shelf, words, parts):
    """Two requests for a small header, part by part; the model it is, its types, its bytes."""
    code, out, _ = planner("inspect", f"hf:{REPO}{words[0]}", *words[1:], "--json")
    assert code == 0
    told = json.loads(out)["contents"]
    assert told["taken_for"] == "qwen3-0.6b"
    assert told["conversion"] is True
    assert (told["parameters"], told["layers"], told["parts"]) == (596_049_920, 28, parts)
    assert sum(share["size_bytes"] for share in told["tensor_types"]) <= told["data_bytes"]
    assert told["header_bytes"] + told["data_bytes"] == pytest.approx(told["file_bytes"], abs=1024)
    assert all(requests <= 4 for requests in files_read(shelf).values())
    assert len(files_read(shelf)) == parts


def test_a_model_is_the_same_wherever_it_lies(planner, shelf, phantoms):
    """Hugging Face, ModelScope, an address, a file, a folder: one header, one answer."""
    name = "Qwen3-0.6B-Q8_0.gguf"
    told = []
    for words in (
        (f"hf:{REPO}:Q8_0",),
        (f"ms:{REPO}:Q8_0",),
        (f"{shelf.content}/{REPO}/{name}",),
        (phantoms / name,),
        (phantoms, "--quant", "Q8_0"),
    ):
        code, out, _ = planner("inspect", *words, "--json")
        assert code == 0
        contents = json.loads(out)["contents"]
        assert contents.pop("name").endswith(name)
        told.append(contents)
    assert all(each == told[0] for each in told)


def test_two_models_of_one_quantization_are_told_apart_by_file(planner, shelf):
    """The way on that is offered works."""
    files = shelf.repos[REPO]
    shelf.repos["org/Two-GGUF"] = {
        "One-Q8_0.gguf": files["Qwen3-0.6B-Q8_0.gguf"],
        "Two-Q8_0.gguf": files["Qwen3-0.6B-Q4_K_M.gguf"],
    }
    code, out, _ = planner("inspect", "hf:org/Two-GGUF:Q8_0")
    assert code == 0
    offered = out.splitlines()[-1].rsplit("planner inspect ", 1)[1]
    assert offered == "hf:org/Two-GGUF/One-Q8_0.gguf"
    code, out, _ = planner("inspect", offered, "--json")
    assert (code, json.loads(out)["contents"]["parts"]) == (0, 1)


def test_a_vocabulary_of_262_thousand_tokens_travels_in_four_requests(planner, hub, speaker, tmp_path):
    """The largest header there is, with a model behind it; the second question asks for nothing."""
    known = catalogue.load()
    model = known.model("qwen3-0.6b")
    layout = known.layout(msgspec.structs.replace(model, shape={**model.shape, "n_layer": 2, "n_vocab": 262_144}))
    tokenizer = {
        "tokenizer.ggml.model": GgufValue(type="str", value="gpt2"),
        "tokenizer.ggml.tokens": GgufValue(type="[str]", value=tuple(f"t{n:07}" for n in range(262_144))),
        "tokenizer.ggml.merges": GgufValue(type="[str]", value=tuple(f"m{n:04} {n:06}" for n in range(515_000))),
        "tokenizer.chat_template": GgufValue(type="str", value="{% for m in messages %}" * 200),
    }
    path = tmp_path / "Large-BF16.gguf"
    write_phantom(path, msgspec.structs.replace(layout, metadata={**layout.metadata, **tokenizer}))
    with path.open("rb") as file:
        hub.repos["org/Large-GGUF"] = {path.name: speaker.Blob(file.read(24 << 20), path.stat().st_size)}
    code, out, _ = planner("inspect", "hf:org/Large-GGUF", "--json")
    assert code == 0
    told = json.loads(out)["contents"]
    assert (told["vocab_size"], told["tokenizer"], told["chat_template_bytes"]) == (262_144, "gpt2", 4600)
    assert told["header_bytes"] > 15_000_000
    assert files_read(hub)[path.name] <= 4
    assert sum(seen.sent for seen in hub.of("resolve", "content")) <= 20_000_000
    before = len(hub.of("resolve", "content"))
    code, out, _ = planner("estimate", "hf:org/Large-GGUF", "--json", *MACHINE)
    assert code == 0
    assert len(hub.of("resolve", "content")) == before


@pytest.mark.parametrize("quantization", ["Q4_K_M", "Q6_K"])
def test_a_file_needs_what_the_catalogues_model_needs(planner, shelf, quantization):
    """Buffer by buffer: the header's own types are those of the dry run. In one part and in two."""
    words = ("--json", "--context", "4096", "--threads", "4", "--machine", "epyc-768gb")
    code, out, _ = planner("estimate", f"hf:{REPO}:{quantization}", *words)
    assert code == 0
    of_file = json.loads(out)
    jsonschema.validate(of_file, schema_of(Candidate))
    _, out, _ = planner("estimate", f"qwen3-0.6b:{quantization}", *words)
    of_catalogue = json.loads(out)
    for told in (of_file, of_catalogue):
        for row in told["memory"]:
            row.pop("resident_bytes")
    (of_file_row,), (of_catalogue_row,) = of_file["memory"], of_catalogue["memory"]
    # The catalogue's kernels are asked for their work space with BF16 weights, the file's with its own.
    works = [row.pop("work_bytes") for row in (of_file_row, of_catalogue_row)]
    for row, work in zip((of_file_row, of_catalogue_row), works, strict=True):
        row["overhead_bytes"] -= work
        row["total_bytes"] -= work
    assert of_file_row == of_catalogue_row
    assert abs(works[0] - works[1]) < 4 << 20
    assert of_file["settings"] == of_catalogue["settings"]
    assert all(requests <= 4 for requests in files_read(shelf).values())


def test_a_plan_picks_among_the_files_and_says_how_to_get_them(planner, shelf):
    """Real files, pinned to the commit that was listed; commands that name them; at most four requests a header."""
    words = ("plan", "--model", f"hf:{REPO}", "--no-measure", "--min-speed", "0.1", *MACHINE)
    code, out, err = planner(*words, "--json")
    assert (code, err) == (0, "")
    plan = json.loads(out)
    jsonschema.validate(plan, schema_of(Plan))
    chosen = plan["chosen"]
    assert chosen["model"] == f"hf:{REPO}"
    assert chosen["quantization"] in {"Q4_K_M", "Q6_K", "Q8_0"}
    assert chosen["artifact"]["commit"] == COMMIT
    names = [part["path"] for part in chosen["artifact"]["parts"]]
    assert set(names) <= set(shelf.repos[REPO])
    hint = plan["commands"]["weights_hint"]
    assert hint.startswith(f"hf download {REPO} {names[0]}")
    assert f"--revision {COMMIT}" in hint
    assert plan["commands"]["llama_server"][2] == names[0]
    assert all(requests <= 4 for requests in files_read(shelf).values())
    assert "mmproj-F16.gguf" not in files_read(shelf)
    _, text, _ = planner(*words)
    assert "why-not" not in text


def test_a_copy_on_this_disk_is_used_where_it_lies(planner, shelf, phantoms, nowhere):
    """The hub is asked for its listing alone; offline not even for that; the plan says "is here already"."""
    folder = nowhere / ".cache/huggingface/hub" / f"models--{REPO.replace('/', '--')}"
    blobs, snapshot = folder / "blobs", folder / "snapshots" / COMMIT
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    name = "Qwen3-0.6B-Q8_0.gguf"
    (blobs / shelf.repos[REPO][name].sha256).symlink_to(phantoms / name)
    (snapshot / name).symlink_to(blobs / shelf.repos[REPO][name].sha256)
    words = ("plan", "--model", f"hf:{REPO}:Q8_0", "--no-measure", "--min-speed", "0.1", "--json")
    code, out, _ = planner(*words)
    plan = json.loads(out)
    assert code == 0
    assert plan["commands"]["weights_hint"] == f"{snapshot / name} is here already"
    assert plan["commands"]["llama_server"][2] == str(snapshot / name)
    assert [seen.kind for seen in shelf.seen] == ["api"]


def test_without_the_network_copies_and_kept_headers_serve(planner, shelf, phantoms, nowhere, monkeypatch):
    """HF_HUB_OFFLINE=1: from a copy that was never asked about, and from a header that was read before."""
    planner("inspect", f"hf:{REPO}:Q4_K_M")
    asked = len(shelf.seen)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, _ = planner("plan", "--model", f"hf:{REPO}:Q4_K_M", "--no-measure", "--min-speed", "0.1", "--json")
    assert code == 0
    assert json.loads(out)["chosen"]["quantization"] == "Q4_K_M"
    _, text, _ = planner("inspect", f"hf:{REPO}:Q4_K_M")
    assert "the network may not be used" in text
    # Of the others no header was ever read.
    code, out, _ = planner("estimate", f"hf:{REPO}:Q8_0", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (69, "offline")
    snapshot = nowhere / ".cache/huggingface/hub/models--org--Other-GGUF/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "Qwen3-0.6B-Q8_0.gguf").symlink_to(phantoms / "Qwen3-0.6B-Q8_0.gguf")
    code, out, _ = planner("plan", "--model", "hf:org/Other-GGUF", "--no-measure", "--min-speed", "0.1", "--json")
    assert code == 0
    assert "is here already" in json.loads(out)["commands"]["weights_hint"]
    assert len(shelf.seen) == asked


@pytest.mark.parametrize("command", [("inspect",), ("estimate",), ("plan", "--no-measure", "--model")], ids=" ".join)
@pytest.mark.parametrize(
    ("reference", "code", "word"),
    [
        ("hf:org/Nothing-GGUF", 66, "not-found"),
        ("hf:org/Qwen3-0.6B-GGUF:Q2_K", 66, "unknown-quantization"),
        ("hf:org/Gated-GGUF:Q8_0", 77, "gated"),
        ("hf:org/Broken-GGUF", 65, "bad-gguf"),
        ("hf:org/Half-GGUF", 66, "incomplete-set"),
        ("./nothing.gguf", 66, "missing-input"),
    ],
    ids=str,
)
def test_every_command_tells_the_same_failure_and_no_secret(
    planner, shelf, speaker, monkeypatch, command, reference, code, word
):
    """One code, one document, one remedy; the token of another account is in none of it."""
    monkeypatch.setenv("HF_TOKEN", CANARY)
    shelf.repos["org/Gated-GGUF"] = dict(shelf.repos[REPO])
    shelf.gated.add("org/Gated-GGUF")
    shelf.repos["org/Broken-GGUF"] = {"Broken-Q8_0.gguf": speaker.Blob(b"GGUF" + b"\xff" * 60, 4096, sha256="b" * 64)}
    half = "Qwen3-0.6B-Q6_K-00001-of-00002.gguf"
    shelf.repos["org/Half-GGUF"] = {half: shelf.repos[REPO][half]}
    ended, out, err = planner(*command, reference, "--json")
    error = json.loads(out)["error"]
    assert (ended, error["code"], error["exit_code"]) == (code, word, code)
    assert error["hint"]
    ended, text, told = planner(*command, reference)
    assert ended == code
    assert CANARY not in out + err + text + told


def test_an_answer_behind_a_login_holds_no_secret(planner, shelf, monkeypatch, tmp_path):
    """The right token opens the repository and is in no output, no plan file and no cache."""
    monkeypatch.setenv("HF_TOKEN", CANARY)
    shelf.gated.add(REPO)
    shelf.token = CANARY
    written = []
    for words in (
        ("inspect", f"hf:{REPO}:Q8_0"),
        ("estimate", f"hf:{REPO}:Q8_0", *MACHINE),
        (
            "plan",
            "--model",
            f"hf:{REPO}:Q8_0",
            "--no-measure",
            "--min-speed",
            "0.1",
            "--output",
            tmp_path / "plan.json",
        ),
    ):
        for json_too in ((), ("--json",)):
            code, out, err = planner(*words, *json_too)
            assert code == 0
            written += [out, err]
    written += [path.read_bytes().decode("latin-1") for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    written.append((tmp_path / "plan.json").read_text())
    assert any(CANARY in str(seen.headers) for seen in shelf.seen)
    assert not [text for text in written if CANARY in text]


def test_one_broken_quantization_costs_itself_alone(planner, shelf, speaker):
    """The plan is made from the sound files and says why the other is out."""
    size = shelf.repos[REPO]["Qwen3-0.6B-Q4_K_M.gguf"].size
    shelf.repos[REPO]["Qwen3-0.6B-Q4_K_M.gguf"] = speaker.Blob(b"GGUF" + b"\xff" * 60, size, sha256="b" * 64)
    words = ("plan", "--model", f"hf:{REPO}", "--no-measure", "--min-speed", "0.1", "--json", *MACHINE)
    code, out, _ = planner(*words)
    assert code == 0
    assert json.loads(out)["chosen"]["quantization"] in {"Q6_K", "Q8_0"}


def test_a_name_that_a_stranger_chose_moves_no_cursor(planner, nowhere, tiny_layout, tmp_path):  # noqa: ARG001
    """Escapes in the name, the licence and the tokenizer: letters in text, JSON and a plan."""
    trick = "x\x1b[2J\x1b]0;owned\x07\u009b31m\u202egnp.exe"
    keys = ("general.name", "general.license", "general.quantized_by", "general.organization", "tokenizer.ggml.pre")
    bad = {key: GgufValue(type="str", value=trick) for key in keys}
    path = tmp_path / "Tiny-BF16.gguf"
    write_phantom(path, msgspec.structs.replace(tiny_layout, metadata={**tiny_layout.metadata, **bad}))
    plan = ("plan", "--model", path, "--no-measure", "--min-speed", "0.1", "--context", "512")
    for words in (("inspect", path), ("estimate", path), plan):
        for json_too in ((), ("--json",)):
            code, out, err = planner(*words, *json_too)
            assert code == 0
            assert all(line.isprintable() for line in (out + err).split("\n"))
    _, out, _ = planner("inspect", path)
    assert "\\x1b[2J" in out
    _, out, _ = planner("inspect", path, "--json")
    assert json.loads(out)["contents"]["title"] == trick


def test_a_path_in_a_plan_is_absolute(planner, nowhere, tiny, monkeypatch):  # noqa: ARG001 - an empty home
    """Named from within its folder, started from anywhere."""
    monkeypatch.chdir(tiny.parent)
    code, out, _ = planner(
        "plan", "--model", f"./{tiny.name}", "--no-measure", "--min-speed", "0.1", "--context", "512", "--json"
    )
    assert code == 0
    assert json.loads(out)["commands"]["llama_server"][2] == str(tiny)


def test_inspect_of_a_catalogue_name_points_to_show(planner, nowhere):  # noqa: ARG001 - an empty home
    """A name is no file; a slip in it gets the usual suggestion."""
    code, out, _ = planner("inspect", "qwen3-8b:Q4_K_M", "--json")
    error = json.loads(out)["error"]
    assert (code, error["code"]) == (2, "not-a-file")
    assert "planner show qwen3-8b" in error["hint"]
    code, out, _ = planner("inspect", "qwen3-9b", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "unknown-model")
