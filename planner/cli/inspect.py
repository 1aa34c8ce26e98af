"""``planner inspect``: what a file or a repository holds, from its listing and one header."""

import click

from planner.cli.options import engine_option, json_option, quantization_option

__all__ = ["command"]


@click.command(name="inspect")
@click.argument("model")
@quantization_option
@engine_option
@json_option
def command(*, model: str, quant: str | None, engine_python: str | None, as_json: bool) -> int:
    """Tell what a GGUF file or a repository of them holds.

    MODEL is hf:owner/repo[:QUANT], ms:owner/repo[:QUANT], an https address, a .gguf file or a folder. Several models
    are listed; of one, the header is read and told.
    """
    from planner import workflow
    from planner.cli import output

    found = workflow.inspect(model, quantization=quant, engine_python=engine_python)
    if as_json:
        output.print_json(found)
    else:
        from planner.render.inspect import inspection_text

        output.print_text(inspection_text(found, output.style()))
    return 0
