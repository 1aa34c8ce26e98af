"""``planner models``: the catalogue, by the names that every other command takes."""

import click

from planner.cli.options import json_option, machine_option
from planner.cli.values import language_code, size_bytes

__all__ = ["command"]


@click.command(name="models")
@click.option(
    "--family",
    "families",
    metavar="NAME",
    multiple=True,
    help="Only families whose name begins so (qwen is all of Qwen's); may be given again.",
)
@click.option(
    "--license",
    "license_",
    type=click.Choice(("commercial",)),
    help="Only models whose licence allows commercial use.",
)
@click.option(
    "--language",
    "languages",
    type=language_code,
    metavar="CODE",
    multiple=True,
    help="Only models of which a source says that they speak it, such as ar; may be given again.",
)
@click.option(
    "--thinking/--no-thinking",
    default=None,
    help="Only models that can think before they answer, or that can answer at once (some can do both).",
)
@click.option(
    "--fits",
    is_flag=True,
    help="Only models whose weights some quantization makes small enough for the memory of this machine, or of that of "
    "--machine. Cheap arithmetic: it rules out, planner plan rules in.",
)
@machine_option
@click.option(
    "--max-size",
    type=size_bytes,
    metavar="SIZE",
    help="Only models whose weights take at most so much at 4.85 bits each (Q4_K_M), such as 8GiB.",
)
@json_option
def command(
    *,
    families: tuple[str, ...],
    license_: str | None,
    languages: tuple[str, ...],
    thinking: bool | None,
    fits: bool,
    machine: str | None,
    max_size: int | None,
    as_json: bool,
) -> int:
    """List the models that planner knows.

    Every option narrows the list: a model has to be all that is asked.
    """
    from planner import workflow
    from planner.cli import output

    if machine is not None and not fits:
        raise click.UsageError("--machine says for which machine --fits is meant; give --fits too")
    asked = workflow.ModelFilter(
        families=families,
        commercial=license_ == "commercial",
        languages=tuple(dict.fromkeys(languages)),
        thinking=thinking,
        max_bytes=max_size,
        fits=fits,
        machine=machine,
    )
    found = workflow.select(asked)
    if as_json:
        from planner.render.documents import models_document

        output.print_json(models_document(found.models, found.known_only, found.languages_unknown))
    else:
        from planner.render.models import models_text

        text = models_text(found.models, found.known_only, found.languages_unknown, style=output.style())
        output.print_text(text)
    return 0
