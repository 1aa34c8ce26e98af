"""Every format: the same server, names said exactly or refused, no secret, no open port by oversight."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace

from planner.errors import BadInputError, UsageError
from planner.render.export import FORMATS, ExportOptions, export
from planner.render.export.env import EXTRA, SWITCHES, VARIABLES
from planner.render.export.words import say

IMAGE = "ghcr.io/ggml-org/llama.cpp:server-b9999"
SAMPLES = Path(__file__).parent / "samples"


def test_an_unknown_format_is_refused_with_the_known_ones():
    """The names are the hint."""
    with pytest.raises(UsageError) as raised:
        export("docker", None)
    assert "script" in raised.value.hint


def test_the_hostile_names_are_two_thousand_and_always_the_same(hostile_names):
    """What a seed makes on one machine it makes on the next; every grammar's own characters are there."""
    assert len(hostile_names) == len(set(hostile_names)) == 2000
    told = "".join(hostile_names)
    assert not set("'\"`$\\%#;:{}[]&*!|>-~\n\r\t\x1b\x7f\x85\u2028") - set(told)
    assert not set("/\0") & set(told)
    assert any(name.startswith("-") for name in hostile_names)


def test_no_text_file_holds_bytes_that_are_no_text(deployed):
    """A path that is no UTF-8, a NUL."""
    made = deployed()
    for character in ("\udcff", "\0"):
        bad = replace(made, weights=(f"/models/{character}.gguf",))
        for name in FORMATS:
            with pytest.raises(BadInputError) as raised:
                export(name, bad)
            assert raised.value.code == "unsayable"
            assert f"U+{ord(character):04X}" in raised.value.message


def test_where_waiting_is_left_to_the_runtime_no_format_has_a_variable_for_it(deployed):
    """A plan without variables is said by every format, and what is YAML stays it."""
    made = deployed()
    made = replace(made, settings=replace(made.settings, openmp_wait="default"))
    for name in FORMATS:
        with_one, without = (
            export(name, replace(made, environment=each), ExportOptions(image=IMAGE)) for each in ({"OMP_X": "1"}, {})
        )
        assert ("OMP_X" in "".join(with_one.values())) == (name not in ("modelfile", "prometheus", "cyclonedx"))
        for path, text in without.items():
            assert "OMP_" not in text
            if path.endswith((".yaml", ".yml")):
                assert all(isinstance(document, dict) for document in yaml.safe_load_all(text))


def test_characters_are_named():
    """A person finds the character by its number, a reader by its name."""
    assert say("\n") == "U+000A (line feed)"
    assert say("%") == "U+0025 (percent sign) %"
    assert say("\x85") == "U+0085"


def test_the_command_says_every_word(deployed, hostile_names):
    """JSON has no name that it cannot say."""
    for name in hostile_names:
        made = deployed(name)
        document = json.loads(export("llama-server", made)[f"{made.name}.argv.json"])
        assert document == {"argv": list(made.argv), "environment": made.environment}


@pytest.fixture(scope="session")
def help_of_server():
    """The flags of llama-server with their variables: from a real build where one is, else as recorded."""
    beside = Path(sys.executable).parent / "llama-server"
    program = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server") or shutil.which(beside)
    if program is None:
        return json.loads((SAMPLES / "llama_server_variables.json").read_text())["options"]
    text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    return options_of(text)


def options_of(text):
    """Every long option of a help text with its variable or ``None``."""
    options, flags = {}, []
    for line in text.splitlines():
        if line.startswith("-"):
            flags = re.findall(r"(?<![^\s,])--[a-z][a-z0-9-]*", re.sub(r", +", ", ", line).split("  ")[0])
            options |= dict.fromkeys(flags)
        elif variable := re.search(r"\(env: (\w+)\)", line):
            options |= dict.fromkeys(flags, variable[1])
    return options


def test_a_real_build_knows_every_flag_and_variable(help_of_server, deployed):
    """What the table of ``env`` says is what ``--help`` says; nothing is passed that the build lacks."""
    assert len(help_of_server) > 150
    said = {flag: f"LLAMA_ARG_{name}" for flag, name in VARIABLES.items()}
    said |= {flag: f"LLAMA_ARG_{name}" for flag, (name, _) in SWITCHES.items()}
    said |= dict.fromkeys(EXTRA)
    assert said == {flag: help_of_server.get(flag, "unknown") for flag in said}
    made = deployed(host="0.0.0.0", api_key_file="/k")  # noqa: S104 - nothing is started
    assert {word for word in made.argv if word.startswith("--")} <= set(help_of_server)
