"""``planner completion``: the few lines that let a shell complete commands, options and the names of machines.

The script asks this program anew at every Tab, so it never grows stale; click writes it.
"""

import click

from planner.cli.options import json_option

__all__ = ["command"]


@click.command(name="completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@json_option
def command(*, shell: str, as_json: bool) -> int:
    """Print the script that completes planner's words in a shell.

    \b
    bash  planner completion bash > ~/.local/share/bash-completion/completions/planner
    zsh   planner completion zsh > "${fpath[1]}/_planner"
    fish  planner completion fish > ~/.config/fish/completions/planner.fish
    """  # noqa: D301 - \b is the very character that click looks for
    from click.shell_completion import ShellComplete, get_completion_class

    from planner.cli import output
    from planner.cli.group import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click has no completion for {shell}")
    # The class's own source() starts a bash to warn of an old one; whoever packages a script may have none.
    script = ShellComplete.source(kind(cli, {}, "planner", "_PLANNER_COMPLETE")).strip() + "\n"
    if as_json:
        from planner.render.documents import CompletionDocument

        output.print_json(CompletionDocument(shell=shell, script=script))
    else:
        output.print_text(script)
    return 0
