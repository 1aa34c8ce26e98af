"""The group of commands, each imported only when it is called: that is what keeps ``planner --help`` fast.

The short help stands here a second time, because reading it from the commands would import them all; a test keeps the
two alike.
"""

import importlib

import click

from planner import __version__

__all__ = ["COMMANDS", "LazyGroup", "cli"]

COMMANDS = {
    "plan": "Choose, measure and write down the best deployment for this machine.",
    "detect": "Show what this machine is and what of it a model may use.",
    "models": "List the models that planner knows.",
    "show": "Tell all facts about one model, with their sources.",
    "inspect": "Tell what a GGUF file or a repository of them holds.",
    "estimate": "Show the memory that one model needs, buffer by buffer.",
    "measure": "Time one model on this machine with llama.cpp's own kernels.",
    "calibrate": "Time the kinds of work of this CPU once, to predict the speed of any model.",
    "tune": "Find the settings that are fastest for one model on this machine.",
    "drift": "Ask the engine again what its last build answered, and tell what changed.",
    "why-not": "Say why a model is not the choice.",
    "fetch": "Fetch the weights of a plan and verify them.",
    "clean": "Remove what planner left behind: downloads that never ended, phantoms, headers, answers.",
    "serve": "Start the server of a plan and keep it running.",
    "verify": "Check machine, file, memory and speed of a running plan against it.",
    "export": "Write a plan as files that start its server elsewhere.",
    "report": "Make a report to look at from one plan, or compare several.",
    "schema": "Print the JSON Schema of a document.",
    "completion": "Print the script that completes planner's words in a shell.",
}
"""Every command in the order of ``--help``, with its one line of help."""


class LazyGroup(click.Group):
    """A click group that imports ``planner.cli.<command>`` when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of all commands, in the order of the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command of that name, its module freshly imported, or ``None``."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"planner.cli.{cmd_name.replace('-', '_')}")
        command = module.command
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        """Write the commands' section of ``--help`` without importing one of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: planner plan",
)
@click.version_option(__version__, prog_name="planner")
def cli() -> None:
    """Say which Qwen or DeepSeek model runs best on this machine with llama.cpp, and how fast it will really be.

    No weights are downloaded to answer; llama.cpp itself is asked.
    """
