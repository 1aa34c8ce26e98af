"""``planner models``: the catalogue, by the names that every other command takes."""

import click

from planner.cli.options import json_option

__all__ = ["command"]


@click.command(name="models")
@click.option("--family", "families", metavar="NAME", multiple=True, help="Only this family; may be given again.")
@json_option
def command(*, families: tuple[str, ...], as_json: bool) -> int:
    """List the models that planner knows."""
    from planner import workflow
    from planner.cli import output

    models = tuple(workflow.models().models.values())
    if families:
        known = sorted({model.family for model in models})
        _check(families, known)
        wanted = {family.casefold() for family in families}
        models = tuple(model for model in models if _family_matches(model.family, wanted))
    if as_json:
        from planner.render.documents import models_document

        output.print_json(models_document(models))
    else:
        from planner.render.models import models_text

        output.print_text(models_text(models, output.style()))
    return 0


def _family_matches(family: str, wanted: set[str]) -> bool:
    """Whether a family is asked for by its name or by the start of it (``qwen`` means all of Qwen's)."""
    return any(family.casefold().startswith(name) for name in wanted)


def _check(families: tuple[str, ...], known: list[str]) -> None:
    for name in families:
        if not any(_family_matches(family, {name.casefold()}) for family in known):
            from planner.errors import UsageError

            raise UsageError(
                f"no model of family {name!r} is known", code="unknown-family", hint=f"families: {', '.join(known)}"
            )
