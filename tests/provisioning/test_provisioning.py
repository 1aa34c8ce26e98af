"""The role, the cloud-init file and the Terraform example of docs/provisioning, run for real in scratch folders."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from planner.types.plan import Plan

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/provisioning"
REPO, FILE = "org/Small-GGUF", "Small-Q4_K_M.gguf"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A scratch folder with a ``planner`` that is this checkout's, and no variable that points elsewhere."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "MODELSCOPE_", "XDG_", "LLAMA_CACHE", "OLLAMA_", "ANSIBLE_")):
            monkeypatch.delenv(name)
    for name in ("home", "etc", "units"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    program = tmp_path / "planner"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m planner "$@"\n')
    program.chmod(0o755)
    return tmp_path


@pytest.fixture
def hub(monkeypatch):
    """A hub on loopback with one small model."""
    specification = importlib.util.spec_from_file_location("provisioning_hub", ROOT / "tests/hub/server.py")
    assert specification is not None
    assert specification.loader is not None
    speaker = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = speaker
    specification.loader.exec_module(speaker)
    hub = speaker.Hub()
    hub.repos[REPO] = {FILE: speaker.whole(seed=1, data_bytes=1 << 16)}
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    yield hub
    hub.stop()


def write_plan(hub, path: Path) -> None:
    """A plan of the sample whose weights are those of the hub."""
    from planner.hub import find, parse_reference

    reference = parse_reference(f"hf:{REPO}:Q4_K_M")
    assert reference is not None
    plan = msgspec.json.decode((ROOT / "tests/render/samples/plan.json").read_bytes(), type=Plan)
    assert plan.chosen is not None
    chosen = msgspec.structs.replace(plan.chosen, artifact=find(reference).models[0])
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(plan, chosen=chosen)))
    hub.seen.clear()


@pytest.fixture
def play(place):
    """Run the role on this machine into the scratch folder; gives the numbers of the recap."""
    program = os.environ.get("PLANNER_ANSIBLE_PLAYBOOK") or shutil.which("ansible-playbook")
    if program is None:
        pytest.skip("no ansible-playbook on PATH, and PLANNER_ANSIBLE_PLAYBOOK names none")
    book = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "roles": ["llama_planner"]}]
    (place / "site.json").write_text(json.dumps(book))
    variables = {
        "llama_planner_install": False,
        "llama_planner_service": False,
        "llama_planner_command": str(place / "planner"),
        "llama_planner_etc": str(place / "etc"),
        "llama_planner_models": str(place / "var"),
        "llama_planner_facts": str(place / "facts"),
        "llama_planner_metrics": str(place / "metrics"),
        "llama_planner_units": str(place / "units"),
        "llama_planner_measure": "none",
        "ansible_python_interpreter": sys.executable,
    }
    ours = {
        "ANSIBLE_ROLES_PATH": str(PAGES / "ansible/roles"),
        "ANSIBLE_HOME": str(place / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(place / "ansible/local"),
        "ANSIBLE_REMOTE_TEMP": str(place / "ansible/remote"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",
        "LC_ALL": "C.UTF-8",
    }

    def run(*words: str, **more: object) -> dict[str, int]:
        arguments = [program, "-i", "localhost,", str(place / "site.json"), "-e", json.dumps({**variables, **more})]
        env = os.environ | ours
        done = subprocess.run([*arguments, *words], capture_output=True, text=True, check=False, env=env, timeout=240)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        recap = re.search(r"^localhost\s+: (.*)$", done.stdout, re.MULTILINE)
        assert recap is not None
        return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", recap[1])}

    return run


@pytest.mark.engine
def test_the_role_plans_once_and_changes_nothing_the_second_time(play, place):
    """A plan for this machine, its unit under one name, facts and metrics; asked for something else it plans again."""
    asked = {
        "llama_planner_goal": ["--model", "qwen3-0.6b", "--context", "2048"],
        "llama_planner_fetch": False,
        "llama_planner_weights": "/srv/models/qwen3.gguf",
    }
    assert play(**asked)["changed"] > 0
    first = (place / "etc/plan.json").read_bytes()
    assert play(**asked)["changed"] == 0
    assert play("--check", "--diff", **asked)["changed"] == 0
    assert (place / "etc/plan.json").read_bytes() == first
    unit = (place / "units/llama-planner.service").read_text()
    assert "/srv/models/qwen3.gguf" in unit
    facts = json.loads((place / "facts/planner.fact").read_text())
    assert facts["context_tokens"] == 2048
    assert list((place / "metrics").glob("*.prom"))
    assert play(**{**asked, "llama_planner_goal": ["--model", "qwen3-0.6b", "--context", "1024"]})["changed"] > 0
    assert json.loads((place / "facts/planner.fact").read_text())["context_tokens"] == 1024


def test_the_role_fetches_what_the_plan_names_and_only_once(play, place, hub):
    """From a hub on loopback: the second run transfers nothing and changes nothing."""
    write_plan(hub, place / "etc/plan.json")
    goal = {"goal": ["--for", "chat"], "measure": "none"}
    (place / "etc/goal.json").write_text(json.dumps(goal, indent=4, sort_keys=True) + "\n")
    asked = {"llama_planner_goal": goal["goal"]}
    assert play(**asked)["changed"] > 0
    assert play(**asked)["changed"] == 0
    facts = json.loads((place / "facts/planner.fact").read_text())
    (weights,) = facts["weights"]
    assert weights.startswith(str(place / "var/huggingface"))
    assert Path(weights).stat().st_size > 1 << 16


def cloud_config() -> dict[str, list]:
    """The example as data."""
    yaml = pytest.importorskip("yaml")
    text = (PAGES / "cloud-init.yaml").read_text()
    assert text.startswith("#cloud-config\n")
    document = yaml.safe_load(text)
    assert isinstance(document, dict)
    return document


def test_the_cloud_init_file_is_valid(tmp_path):
    """By cloud-init's own schema, which refuses a wrong one."""
    program = shutil.which("cloud-init")
    if program is None:
        pytest.skip("cloud-init is not installed here")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("#cloud-config\nruncmd: 5\n")
    for path, code in ((PAGES / "cloud-init.yaml", 0), (wrong, 1)):
        done = subprocess.run([program, "schema", "-c", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr


def test_the_cloud_init_script_fetches_exports_and_may_run_again(place, hub):
    """Its script, as cloud-init would write it, twice: the second run transfers nothing and leaves the same unit."""
    (file,) = cloud_config()["write_files"]
    assert ["/etc/llama-planner/provision.sh"] in cloud_config()["runcmd"]
    script = place / "provision.sh"
    script.write_text(file["content"])
    write_plan(hub, place / "etc/plan.json")
    env = os.environ | {
        "PLANNER": str(place / "planner"),
        "PLANNER_ETC": str(place / "etc"),
        "PLANNER_UNITS": str(place / "units"),
        "HF_HOME": str(place / "huggingface"),
        "PLANNER_CACHE_DIR": str(place / "cache"),
        "PLANNER_DATA_DIR": str(place / "data"),
    }

    words = ["/bin/sh", str(script)]

    def run() -> bytes:
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=env, timeout=120)
        assert done.returncode == 0, done.stderr
        return (place / "units/llama-planner.service").read_bytes()

    unit = run()
    transferred = len(hub.seen)
    assert transferred
    assert str(place / "huggingface").encode() in unit
    assert run() == unit
    assert len(hub.seen) == transferred
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, str(script)], check=True)


def test_the_terraform_example_asks_for_what_there_is():
    """Each key of its query is an option, and each key that it and the page name is one of the result."""
    import click

    from planner.cli.plan import command
    from planner.cli.terraform import query_words
    from planner.render.terraform import terraform_result

    page = (ROOT / "docs/provisioning.md").read_text()
    block = re.search(r"query = \{\n(.*?)\n  \}", page, re.DOTALL)
    assert block is not None
    query = dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', block[1]))
    words = query_words(command, json.dumps(query).encode())
    assert len(words) == len(query) > 3
    assert isinstance(command.make_context("plan", words), click.Context)
    plan = msgspec.json.decode((ROOT / "tests/render/samples/plan.json").read_bytes(), type=Plan)
    result = json.loads(terraform_result(plan))
    named = re.findall(r"data\.external\.llama\.result\.(\w+)", page)
    assert len(named) > 1
    assert set(named) <= result.keys()
    assert not [key for key in result if f"`{key}`" not in page and not key.startswith("tokens_per_s_")]
