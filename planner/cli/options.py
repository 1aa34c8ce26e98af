"""The options that several commands share, each declared once so that it means the same everywhere."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import click

from planner.cli.values import (
    CACHE_TYPES,
    FLASH_ATTENTION,
    LOAD_MODES,
    MOST_SEQUENCES,
    USES,
    language_code,
    size_bytes,
    tokens,
    tokens_per_s,
)

if TYPE_CHECKING:
    from planner.types.plan import Use
    from planner.types.settings import CacheType, LoadMode

__all__ = [
    "Command",
    "api_key_option",
    "asked_of_a_model",
    "deadline_option",
    "engine_option",
    "engine_settings_options",
    "goal_options",
    "json_option",
    "log_option",
    "machine_option",
    "parallel_option",
    "plan_argument",
    "quantization_option",
    "server_option",
    "settings_options",
    "weights_option",
    "with_options",
]

Command = Callable[..., int]
"""A command's function: keyword arguments in, exit code out."""


def json_option(function: Command) -> Command:
    """``--json``: one JSON document on stdout, also on failure."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document instead of text, also on failure."
    )(function)


def machine_option(function: Command) -> Command:
    """``--machine``: another machine than this one, by name or by file."""
    return click.option(
        "--machine",
        metavar="NAME|FILE",
        shell_complete=_machine_names,
        help="Answer for that machine instead: a name that planner ships (rtx-4090, epyc-768gb, ...) or a file from "
        "planner detect --capture.",
    )(function)


def engine_option(function: Command) -> Command:
    """``--engine-python``: the interpreter that has llama-cpp-python."""
    return click.option(
        "--engine-python",
        metavar="PYTHON",
        type=click.Path(dir_okay=False),
        help="The Python interpreter that has llama-cpp-python, for example one built for CUDA.",
    )(function)


def plan_argument(function: Command) -> Command:
    """``PLAN``: a file from ``planner plan --output``, or ``-``."""
    return click.argument("plan", metavar="PLAN", type=click.Path(dir_okay=False, allow_dash=True))(function)


def weights_option(function: Command) -> Command:
    """``--weights``: the file that a server loads."""
    return click.option(
        "--weights",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="The GGUF file to load; of a split set the first.  [where the plan or planner fetch found it]",
    )(function)


def server_option(function: Command) -> Command:
    """``--server``: the program that serves."""
    return click.option(
        "--server",
        metavar="PROGRAM",
        help="A llama-server by path, or llama-cpp-python for the Python binding's.  [llama-server on PATH, else that]",
    )(function)


def api_key_option(use: str) -> Callable[[Command], Command]:
    """``--api-key-file``: keys for a server; ``use`` says what they are for."""
    return click.option(
        "--api-key-file", metavar="FILE", type=click.Path(dir_okay=False), help=f"A file of keys, one on a line{use}"
    )


def deadline_option(who: str) -> Callable[[Command], Command]:
    """``--deadline``: how long ``who`` may take to become ready."""
    return click.option(
        "--deadline",
        "deadline_s",
        metavar="S",
        type=click.FloatRange(min=0, min_open=True),
        help=f"Seconds until {who} must be ready.  [60, and 20 for each GB of weights]",
    )


def log_option(function: Command) -> Command:
    """``--log``: where a server's output goes."""
    return click.option(
        "--log", metavar="FILE", type=click.Path(dir_okay=False), help="Where its output goes.  [planner's cache]"
    )(function)


def parallel_option(function: Command) -> Command:
    """``--parallel``: how many sequences share the context."""
    return click.option(
        "--parallel",
        type=click.IntRange(1, MOST_SEQUENCES),
        metavar="N",
        help="Sequences (users) served at the same time.",
    )(function)


def settings_options(function: Command, *, parallel: Callable[[Command], Command] = parallel_option) -> Command:
    """The settings of llama.cpp that a goal may fix: context, parallel, cache type, load mode.

    ``parallel`` takes the place of the option that names one number of sequences.
    """
    return with_options(
        function,
        click.option("--context", type=tokens, metavar="TOKENS", help="Tokens of context per sequence, such as 32k."),
        parallel,
        click.option("--kv-type", type=click.Choice(CACHE_TYPES), help="Type of the context's cache, K and V alike."),
        click.option("--load-mode", type=click.Choice(LOAD_MODES), help="How llama.cpp loads the weights."),
    )


def goal_options(function: Command) -> Command:
    """Everything that says what the user wants, handed to the command as one ``goal``.

    ``plan`` and ``why-not`` share it, because a model is only ever "not the choice" for the very same goal.
    """
    return with_options(
        _with_goal(function),
        click.option("--for", "use", type=click.Choice(USES), default="chat", help="What the model is for.  [chat]"),
        settings_options,
        click.option(
            "--min-speed",
            type=tokens_per_s,
            metavar="T",
            default=8.0,
            help="Tokens per second below which a model is too slow.  [8]",
        ),
        click.option(
            "--max-answer-seconds",
            type=click.FloatRange(min=0, min_open=True),
            metavar="S",
            help="Longest wait for a typical answer, thinking included.  [by use: chat 90, code 900, reasoning 1800, "
            "documents 600]",
        ),
        click.option(
            "--language",
            "languages",
            metavar="CODE",
            multiple=True,
            type=language_code,
            help="A language that the model must speak, such as ar; may be given again.",
        ),
        click.option(
            "--family",
            "families",
            metavar="NAME",
            multiple=True,
            help="Only models of this family (all: of every family); may be given again.  [Qwen and DeepSeek]",
        ),
        click.option(
            "--license",
            "license_",
            type=click.Choice(("commercial",)),
            help="Only models whose licence allows commercial use.",
        ),
        click.option("--reserve", type=size_bytes, metavar="SIZE", help="Memory to keep free, such as 2GiB."),
    )


def engine_settings_options(function: Command) -> Command:
    """The further settings of llama.cpp that name one configuration: batches, flash attention, what goes to the GPU."""
    return with_options(
        function,
        click.option("--batch", type=tokens, metavar="TOKENS", help="Tokens handed over at once (logical batch)."),
        click.option("--ubatch", type=tokens, metavar="TOKENS", help="Tokens computed at once (physical batch)."),
        click.option("--flash-attention", type=click.Choice(FLASH_ATTENTION), help="Flash attention."),
        click.option(
            "--gpu-layers", type=click.IntRange(-1, 10_000), metavar="N", help="Layers on the GPU; -1 for all."
        ),
        click.option(
            "--cpu-moe-layers",
            type=click.IntRange(-1, 10_000),
            metavar="N",
            help="Layers whose experts stay in RAM; -1 for all.",
        ),
    )


def asked_of_a_model(given: Mapping[str, object]) -> dict[str, Any]:
    """The options of a command, by the names that :class:`planner.api.Asked` has for them.

    What was not asked for stays ``None``, so that the defaults live in one place, the request itself.
    """
    options = dict(given)
    cache, draft_cache = options.pop("kv_type"), options.pop("draft_kv_type", None)
    patterns = cast("tuple[tuple[tuple[str, str], ...], ...]", options.pop("tensor_overrides", ()))
    return {
        "quantization": options.pop("quant"),
        "context_tokens": options.pop("context"),
        "cache_type_k": cache,
        "cache_type_v": options.pop("kv_type_v", None) or cache,
        "draft_cache_type_k": draft_cache,
        "draft_cache_type_v": draft_cache,
        "tensor_overrides": tuple(pair for given_once in patterns for pair in given_once) or None,
        **options,
    }


def quantization_option(function: Command) -> Command:
    """``--quant``: the quantization, in llama.cpp's own name."""
    return click.option(
        "--quant", metavar="Q", callback=_upper, help="Quantization by llama.cpp's name, such as Q4_K_M."
    )(function)


def _with_goal(function: Command) -> Command:
    @functools.wraps(function)
    def command(
        *,
        use: str,
        context: int | None,
        parallel: int | None,
        kv_type: str | None,
        load_mode: str | None,
        min_speed: float,
        max_answer_seconds: float | None,
        languages: tuple[str, ...],
        families: tuple[str, ...],
        license_: str | None,
        reserve: int | None,
        **others: object,
    ) -> int:
        from planner.types.plan import Goal

        goal = Goal(
            # click.Choice let only the literals through.
            use=cast("Use", use),
            context_tokens=context,
            parallel=parallel or 1,
            min_tokens_per_s=min_speed,
            max_answer_seconds=max_answer_seconds,
            languages=languages,
            families=families,
            commercial_license=license_ == "commercial",
            cache_type=cast("CacheType | None", kv_type),
            load_mode=cast("LoadMode | None", load_mode),
            reserve_bytes=reserve,
        )
        return function(goal=goal, **others)

    return command


def _upper(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001 - click's signature
    return None if value is None else value.upper()


def with_options(function: Command, *decorators: Callable[[Command], Command]) -> Command:
    """The function with the options in the order given; click collects them from the bottom up."""
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def _machine_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    from planner import machine

    return [name for name in machine.names() if name.startswith(incomplete)]
