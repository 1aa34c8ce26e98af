"""The options of ``estimate`` for where tensors, cache and drafts go: named as llama-server names them.

The mistake it prevents: a flag of llama-server that changes its memory and that an estimate has no word for.
"""

import click

from planner.cli.options import Command, with_options
from planner.cli.values import CACHE_TYPES, LAZY_MODES, SPLIT_MODES, overrides, shares, tokens

__all__ = ["cache_options", "draft_options", "placement_options", "server_options"]


def cache_options(function: Command) -> Command:
    """What the cache keeps for each sequence, and where lookup tables are read from."""
    return with_options(
        function,
        click.option("--kv-type-v", type=click.Choice(CACHE_TYPES), help="Type of the V cache alone."),
        click.option("--kv-unified/--no-kv-unified", default=None, help="One cache shared by all sequences."),
        click.option("--swa-full/--no-swa-full", default=None, help="Keep the whole context in window layers, too."),
        click.option(
            "--outputs-max", type=tokens, metavar="N", help="Tokens of a batch whose logits are kept.  [all of a batch]"
        ),
        click.option("--lazy-mode", type=click.Choice(LAZY_MODES), help="Leave large lookup tables in the file."),
    )


def placement_options(function: Command) -> Command:
    """What lies on which device."""
    return with_options(
        function,
        click.option("--split-mode", type=click.Choice(SPLIT_MODES), help="How several GPUs share the model."),
        click.option("--main-gpu", type=click.IntRange(0, 63), metavar="N", help="The GPU of --split-mode none."),
        click.option("--tensor-split", type=shares, metavar="A,B,...", help="Share of each GPU, such as 3,1."),
        click.option(
            "--override-tensor",
            "tensor_overrides",
            type=overrides,
            multiple=True,
            metavar="PATTERN=BUFFER,...",
            help="Put tensors whose name matches elsewhere, such as exps=CPU; may be given again.",
        ),
        click.option("--host-buffer/--no-host-buffer", default=None, help="Pin weights that stay in RAM for the GPU."),
        click.option("--kv-offload/--no-kv-offload", default=None, help="Keep the cache on the GPU."),
        click.option("--op-offload/--no-op-offload", default=None, help="Let the GPU help with weights in RAM."),
    )


def draft_options(function: Command) -> Command:
    """Drafting: by the model's own block for several tokens, or by a small model beside it."""
    return with_options(
        function,
        click.option("--mtp", is_flag=True, default=None, help="Draft with the model's own block for several tokens."),
        click.option("--draft", metavar="MODEL", help="Draft with this small model, named as MODEL is."),
        click.option("--draft-tokens", type=click.IntRange(1, 64), metavar="N", help="Tokens drafted at a time.  [3]"),
        click.option("--draft-kv-type", type=click.Choice(CACHE_TYPES), help="Type of the drafting context's cache."),
        click.option(
            "--draft-gpu-layers",
            type=click.IntRange(-1, 10_000),
            metavar="N",
            help="Its layers on the GPU.",
        ),
    )


def server_options(function: Command) -> Command:
    """What runs beside the model: a projector for pictures, and what a server keeps."""
    return with_options(
        function,
        click.option(
            "--mmproj", metavar="FILE", help="A projector beside the model: a file, an address or hf:owner/repo."
        ),
        click.option(
            "--image-max-tokens", type=click.IntRange(1, 1 << 20), metavar="N", help="Most tokens that a picture takes."
        ),
        click.option(
            "--cache-ram",
            "cache_ram_mib",
            type=click.IntRange(0, 1 << 30),
            metavar="MIB",
            help="RAM that llama-server may keep saved prompts in.  [0]",
        ),
        click.option(
            "--ctx-checkpoints",
            "checkpoints",
            type=click.IntRange(0, 4096),
            metavar="N",
            help="States that llama-server may keep for each sequence.  [0]",
        ),
    )
