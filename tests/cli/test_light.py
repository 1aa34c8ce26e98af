import json
import subprocess
import sys

import pytest

from planner.cli.group import COMMANDS, cli
from planner.cli.reference import markdown

HEAVY = ("rich", "msgspec", "psutil", "ctypes", "pynvml", "gguf", "llama_cpp", "numpy", "platformdirs", "asyncio")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["plan", "--help"], ["estimate", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(words):
    """Help must come at once; one careless import at the top of a module would cost every user of it."""
    program = (
        "import sys, json\nfrom planner.cli import run\n"
        "try:\n    run(sys.argv[1:])\n"
        "except SystemExit:\n    json.dump(sorted(sys.modules), sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, check=True, timeout=60)
    loaded = {name.split(".")[0] for name in json.loads(done.stderr)}
    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY)
    own = [name for name in json.loads(done.stderr) if name.startswith("planner.")]
    assert all(name.startswith("planner.cli") or name == "planner.errors" for name in own)


def test_planner_and_python_m_planner_are_the_same_program():
    """Both entry points reach the same group."""
    done = subprocess.run([sys.executable, "-m", "planner", "--help"], capture_output=True, check=True, timeout=60)
    assert done.stdout.startswith(b"Usage: planner ")


def test_the_short_help_of_the_group_is_the_commands_own():
    """The light copy never drifts from the commands."""
    with cli.make_context("planner", [], resilient_parsing=True) as context:
        for name, line in COMMANDS.items():
            command = cli.get_command(context, name)
            assert command is not None
            assert command.name == name
            assert (command.help or "").splitlines()[0] == line
        assert cli.get_command(context, "frobnicate") is None


def test_every_command_takes_json_and_every_option_has_help():
    """A script never has to ask whether this one can."""
    with cli.make_context("planner", [], resilient_parsing=True) as context:
        for name in cli.list_commands(context):
            command = cli.get_command(context, name)
            assert command is not None
            options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
            assert "--json" in {word for option in options for word in option.opts}
            assert all(option.help for option in options)


def test_the_committed_reference_is_the_generated_one(request):
    """`python -m planner.cli.reference > docs/cli.md` was not forgotten."""
    committed = (request.config.rootpath / "docs" / "cli.md").read_text(encoding="utf-8")
    assert committed == markdown()
