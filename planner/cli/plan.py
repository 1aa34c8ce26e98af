"""``planner plan``: the main job, from this machine to a plan that runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from planner.cli.options import engine_option, goal_options, json_option, machine_option, quantization_option
from planner.cli.terraform import QueriedCommand
from planner.errors import ExitCode

if TYPE_CHECKING:
    from planner.types.plan import Goal

__all__ = ["command"]


@click.command(name="plan", cls=QueriedCommand)
@goal_options
@click.option("--model", metavar="MODEL", help="Take this model and choose the rest.")
@quantization_option
@click.option("--local", is_flag=True, help="Choose among the models that are on this machine already.")
@machine_option
@click.option("--quick", is_flag=True, help="Measure for at most 30 s instead of 120 s.")
@click.option("--no-measure", is_flag=True, help="Predict speeds instead of measuring them.")
@click.option(
    "--output", "output_file", metavar="FILE", type=click.Path(path_type=Path), help="Also write the JSON plan to FILE."
)
@click.option(
    "--protocol",
    type=click.Choice(("terraform",)),
    help="Speak with Terraform's external data source: a query of these options on stdin, flat strings on stdout.",
)
@engine_option
@json_option
def command(
    *,
    goal: "Goal",
    model: str | None,
    quant: str | None,
    local: bool,
    machine: str | None,
    quick: bool,
    no_measure: bool,
    output_file: Path | None,
    protocol: str | None,
    engine_python: str | None,
    as_json: bool,
) -> int:
    """Choose, measure and write down the best deployment for this machine.

    Candidates that fit are timed with llama.cpp itself; no weights are needed for that. When nothing meets the goal,
    the plan says so and the exit code is 10.
    """
    from msgspec.structs import replace

    from planner import api
    from planner.cli import output
    from planner.cli.progress import progress

    if quick and no_measure:
        raise click.UsageError("--quick and --no-measure exclude each other")
    if protocol is not None and as_json:
        raise click.UsageError("--protocol prints its own document; leave out --json")
    if local and model is not None:
        raise click.UsageError("--local and --model exclude each other")
    measure: Literal["none", "quick", "full"] = "none" if no_measure else "quick" if quick else "full"
    with progress(quiet=as_json or protocol is not None) as shown:
        plan = api.plan(
            replace(goal, model=model, quantization=quant, local=local),
            machine=machine,
            measure=measure,
            engine_python=engine_python,
            progress=shown,
        )
    if output_file is not None:
        from planner.files import atomic_write
        from planner.render.json import to_json

        # Before stdout: when this fails, stdout still carries exactly one document, the error.
        atomic_write(output_file, to_json(plan))
    if protocol is not None:
        from planner.render.terraform import terraform_result

        output.print_bytes(terraform_result(plan))
    elif as_json:
        output.print_json(plan)
    else:
        from planner.render.plan import plan_text

        output.print_text(plan_text(plan, output.style()))
    return int(ExitCode.GOOD if plan.chosen is not None else ExitCode.NOTHING_MEETS_THE_GOAL)
