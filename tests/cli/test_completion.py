"""The scripts of ``planner completion`` are valid in each shell and complete real words; the man page is clean roff."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from planner.cli.group import COMMANDS
from planner.cli.manual import ENVIRONMENT, manual

SHELLS = ("bash", "zsh", "fish")
PAGE = Path(__file__).parents[2] / "docs/planner.1"


@pytest.fixture
def on_path(tmp_path, monkeypatch) -> Path:
    """A folder in front of PATH with a ``planner`` that is this checkout's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "planner"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m planner "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return program


def tool(name: str) -> str:
    """The path of a tool; where it is not installed the test is skipped by name."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_valid_in_its_shell(shell, invoke, tmp_path):
    """The shell itself parses it and finds nothing wrong; a script with an unclosed brace would be refused."""
    code, script, err = invoke("completion", shell)
    assert (code, err) == (0, "")
    path = tmp_path / "script"
    path.write_text(script)
    program = [tool(shell), "--no-execute" if shell == "fish" else "-n", str(path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    path.write_text(script.replace("}", "", 1).replace("end", "", 1))
    assert subprocess.run(program, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("shell", SHELLS)
def test_as_json_the_script_is_a_string(shell, invoke):
    """One document, like every command."""
    _, script, _ = invoke("completion", shell)
    _, out, _ = invoke("completion", shell, "--json")
    assert json.loads(out) == {"schema": "planner/completion/1", "shell": shell, "script": script}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("planner det", {"detect"}),
        ("planner plan --for co", {"code"}),
        ("planner plan --machine rtx-409", {"rtx-4090"}),
        ("planner plan --no-m", {"--no-measure"}),
        ("planner completion ", set(SHELLS)),
    ],
)
def test_bash_completes_commands_options_choices_and_machines(line, expected, on_path, tmp_path):
    """Sourced by a real bash, the function fills COMPREPLY as a Tab would."""
    words = line.split(" ")
    program = (
        f'source <("{on_path}" completion bash)\n'
        f"COMP_WORDS=({' '.join(repr(word) for word in words)})\nCOMP_CWORD={len(words) - 1}\n"
        'compopt() { :; }\n_planner_completion planner\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        [tool("bash"), "--norc", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=60
    )
    assert set(done.stdout.split()) == expected
    assert done.stderr == ""


def test_fish_completes_commands(on_path):  # noqa: ARG001 - it stands on PATH
    """``complete -C`` is what a Tab asks."""
    program = "planner completion fish | source; complete -C 'planner why'"
    done = subprocess.run([tool("fish"), "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "why-not\tSay why a model is not the choice.\n"


def test_the_committed_man_page_is_the_generated_one():
    """`python -m planner.cli.manual > docs/planner.1` was not forgotten."""
    assert PAGE.read_text() == manual()


def test_the_man_page_names_every_command_and_variable():
    """Each command has a section; each variable is one that the package reads, or names as a library's."""
    page = manual()
    for name in COMMANDS:
        assert f".SS planner {name.replace('-', chr(92) + '-')}" in page, name
    code = "\n".join(
        path.read_text() for path in (PAGE.parents[1] / "planner").rglob("*.py") if path.name != "manual.py"
    )
    for names in ENVIRONMENT:
        assert not [name for name in names.split(", ") if name not in code]


def test_the_man_page_raises_no_warning(tmp_path):
    """Groff with every warning on, man-db's own check, and mandoc's, which alone wants a date that no release has."""
    page = tmp_path / "planner.1"
    page.write_text(manual())
    checks = (
        ["groff", "-man", "-ww", "-Tutf8", "-z", str(page)],
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", str(page)],
        ["mandoc", "-Tlint", str(page)],
    )
    env = os.environ | {"LC_ALL": "C.UTF-8", "MANROFFSEQ": ""}
    for check in checks:
        done = subprocess.run([tool(check[0]), *check[1:]], capture_output=True, text=True, check=False, env=env)
        said = done.stderr if check[0] != "mandoc" else done.stdout
        assert not [line for line in said.splitlines() if "missing date" not in line], check[0]
    page.write_text(manual().replace(".SH NAME", ".XX NAME\n.TP\n.TP"))
    done = subprocess.run([tool("mandoc"), "-Tlint", str(page)], capture_output=True, text=True, check=False)
    assert "unknown macro" in done.stdout


def test_the_man_page_is_plain_text_that_no_word_of_ours_can_turn_into_roff():
    """Every line that starts with a dot is a macro of ours, and no escape is unknown."""
    macros = {".TH", ".SH", ".SS", ".TP", ".PP", ".nf", ".fi", ".B", ".I", ".BR", ".ad", '.\\"'}
    page = manual()
    assert page.isascii()
    for line in page.splitlines():
        assert not line.startswith("'")
        assert not line.startswith(".") or line.split()[0] in macros, line
    assert set(re.findall(r"\\(?!f[BIR]|\(..|\[u[0-9A-F]{4,5}\])(.)", page)) <= set('-e&"')
