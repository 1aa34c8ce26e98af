"""``planner models``: the catalogue, by the names that every other command takes."""

from typing import TYPE_CHECKING

import click

from planner.cli.options import json_option, machine_option
from planner.cli.values import language_code, size_bytes

if TYPE_CHECKING:
    from planner.workflow import ModelFilter

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
@click.option(
    "--local",
    is_flag=True,
    help="List the model files on this machine instead: those that Hugging Face's tools, ModelScope, llama.cpp, LM "
    "Studio and Ollama have fetched. Sizes are then those of the files.",
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
    local: bool,
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
    if local:
        return _print_local(asked, as_json=as_json)
    found = workflow.select(asked)
    if as_json:
        from planner.render.documents import models_document

        output.print_json(models_document(found.models, found.known_only, found.languages_unknown))
    else:
        from planner.render.models import models_text

        text = models_text(found.models, found.known_only, found.languages_unknown, style=output.style())
        output.print_text(text)
    return 0


def _print_local(asked: "ModelFilter", *, as_json: bool) -> int:
    from pathlib import Path

    from planner import workflow
    from planner.cli import output
    from planner.render.documents import local_document

    found = workflow.local_models(asked)
    copies = ((each.copy, each.model) for each in found.copies)
    document = local_document(copies, unrecognised=found.unrecognised, notes=found.notes)
    if as_json:
        output.print_json(document)
    else:
        from planner.render.local import local_text

        output.print_text(local_text(document, home=str(Path("~").expanduser()), style=output.style()))
    return 0
