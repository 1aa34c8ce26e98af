"""``planner export``: files or text from a plan file, one document under ``--json``, never an open server."""

import json
import os
import stat
from pathlib import Path

import msgspec
import pytest

from planner.apply.receipts import receipt_key
from planner.render.export import FORMATS
from planner.types.receipt import Receipt, ReceiptFile
from planner.workflow.plan_file import read_plan

PLAN = str(Path(__file__).parents[1] / "render" / "samples" / "plan.json")


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """No receipt of the machine that runs the tests."""
    monkeypatch.setenv("PLANNER_DATA_DIR", str(tmp_path / "data"))


def test_without_a_place_the_only_file_is_printed(invoke):
    """So that it can be looked at or piped."""
    code, out, err = invoke("export", PLAN, "--to", "script", "--weights", "/m/x.gguf")
    assert (code, err) == (0, "")
    assert out.startswith("#!/bin/sh\n")
    assert "--model /m/x.gguf" in out


def test_files_go_where_they_are_told_and_a_second_run_changes_nothing(invoke, tmp_path):
    """A folder, a folder that is new, a file; a script can be run."""
    folder = tmp_path / "new"
    for place, made in ((f"{folder}/", folder / "qwen3-8b-q4-k-m.sh"), (f"{tmp_path}/run.sh", tmp_path / "run.sh")):
        for changed in (True, False):
            code, out, _ = invoke("export", PLAN, "--to", "script", "-o", place, "--json")
            (file,) = json.loads(out)["files"]
            assert code == 0
            assert (file["path"], file["changed"]) == (str(made), changed)
        assert os.access(made, os.X_OK)
        assert not stat.S_IMODE(made.stat().st_mode) & 0o022
    code, out, _ = invoke("export", PLAN, "--to", "env", "-o", str(folder))
    assert out == f"{folder}/qwen3-8b-q4-k-m.env\n"


def test_every_format_is_one_document_under_json(invoke):
    """Text and all; containers need an image."""
    for name in FORMATS:
        words = ("--weights", "/m/x.gguf", "--image", "ghcr.io/ggml-org/llama.cpp:server-b9999")
        code, out, err = invoke("export", PLAN, "--to", name, *words, "--json")
        assert (code, err) == (0, ""), name
        document = json.loads(out)
        assert document["schema"] == "planner/exported/1"
        assert all(file["text"].endswith("\n") for file in document["files"]), name


@pytest.mark.parametrize(
    "words",
    [
        ("--host", "::"),
        ("--expose", "::"),
        ("--host", "127.0.0.1", "--expose", "::", "--api-key-file", "k"),
        ("--host", "192.168.0.1", "--api-key-file", "k"),
    ],
)
def test_no_word_opens_the_server_by_oversight(words, invoke):
    """``--expose`` alone does, and only with keys."""
    code, out, err = invoke("export", PLAN, "--to", "script", *words)
    assert (code, out) == (2, "")
    assert "hint: " in err


def test_a_key_is_named_by_its_path_alone(invoke, tmp_path):
    """From the root on, because the script runs elsewhere."""
    (tmp_path / "keys").write_text("s3cret\n")
    relative = os.path.relpath(tmp_path / "keys")
    words = ("--expose", "::", "--api-key-file", relative)
    code, out, _ = invoke("export", PLAN, "--to", "script", *words)
    assert code == 0
    assert f"--api-key-file {tmp_path}/keys" in out
    assert "--host ::" in out
    assert "s3cret" not in out


def test_weights_that_are_here_are_named_from_the_root(invoke, tmp_path, monkeypatch):
    """Those that will lie elsewhere stay as they were written."""
    (tmp_path / "x.gguf").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for given, told in (("x.gguf", str(tmp_path / "x.gguf")), ("there/y.gguf", "there/y.gguf")):
        _, out, _ = invoke("export", PLAN, "--to", "llama-server", "--weights", given)
        assert json.loads(out)["argv"][2] == told


@pytest.mark.parametrize(("plan", "code"), [("nowhere.json", 66), (__file__, 65)])
def test_a_plan_that_is_none_says_so(plan, code, invoke):
    """One document, also on failure."""
    got, out, _ = invoke("export", plan, "--to", "env", "--json")
    assert got == code
    assert json.loads(out)["error"]["hint"]


def test_a_plan_without_a_choice_ends_as_the_plan_did(invoke, tmp_path):
    """Exit code 10."""
    document = json.loads(Path(PLAN).read_text()) | {"chosen": None, "commands": None}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(document))
    code, out, _ = invoke("export", str(path), "--to", "env", "--json")
    assert code == 10
    assert json.loads(out)["error"]["code"] == "nothing-chosen"


def test_fetched_weights_are_found_by_the_receipt(invoke, tmp_path):
    """Where the plan names no file that is here, the receipt of the fetch does."""
    plan = read_plan(PLAN)
    file = ReceiptFile(path="q/x.gguf", size_bytes=1, sha256="0" * 64, local_path="/hub/x.gguf", modified_ns=0, inode=0)
    key = receipt_key(plan)
    receipt = Receipt(
        plan_key=key, model="qwen3-8b", quantization="Q4_K_M", hub="hf", repo="me/x", commit="c", files=(file,),
        chat_template_sha256=None, fetched_at="2026-11-23T00:00:00Z", created_by="a test",
    )  # fmt: skip
    path = tmp_path / "data" / "receipts" / f"{key}.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode(receipt))
    for words, told in (((), "/hub/x.gguf"), (("--weights", "/m/y.gguf"), "/m/y.gguf")):
        _, out, _ = invoke("export", PLAN, "--to", "llama-server", *words)
        assert json.loads(out)["argv"][2] == told
