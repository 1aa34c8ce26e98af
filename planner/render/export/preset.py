"""The deployment as a section of a preset file for llama-server's router (``--models-preset FILE``).

The mistake it prevents: quotes. The file's grammar has none, nor any escape: a value is what stands between the blanks
after ``=`` and the first ``;``, ``#`` or end of line. What that cannot say is refused.

Grammar: ``common/preset.cpp`` of llama.cpp at commit 0c1e57098; what the router sets itself, address, port, key and
name of the server it starts: ``tools/server/server-models.cpp``.
"""

from collections.abc import Iterator

from planner.errors import BadInputError
from planner.render.export.words import comment, refuse, say
from planner.types.deployment import Deployment, ExportOptions

__all__ = ["render"]

_OF_THE_ROUTER = ("--host", "--port", "--alias", "--api-key-file")
_MEANS_SOMETHING = ";#\n\r"


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:  # noqa: ARG001 - every format's signature
    """``NAME.ini`` with one section; of several such files the sections go into one.

    Names that hold ``;``, ``#`` or a line end, or that begin or end with a blank, are refused.
    """
    router = ["llama-server", "--models-preset", f"{deployment.name}.ini", "--host", deployment.host]
    # One model at a time: it was planned to have the machine for itself, where the router's own number is four.
    router += ["--port", str(deployment.port), "--models-max", "1"]
    if deployment.api_key_file is not None:
        router += ["--api-key-file", "FILE"]
    variables = [f"{name}={value}" for name, value in sorted(deployment.environment.items())]
    lines = [
        f"; llama-server with {comment(deployment.model)} in {comment(deployment.quantization)}, as planned. Start:",
        f";   {' '.join([*variables, *router])}",
        "version = 1",
        "",
        f"[{deployment.name}]",
        *(f"{key} = {value}" for key, value in _options(deployment.argv)),
    ]
    return {f"{deployment.name}.ini": "\n".join(lines) + "\n"}


def _options(argv: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each option with its value; a switch is ``true``, also one that begins with ``no-``, which the reader turns."""
    words = list(argv[1:])
    while words:
        flag = words.pop(0)
        # The weights' path is a value whatever it looks like.
        value = words.pop(0) if words and (flag == "--model" or not words[0].startswith("--")) else "true"
        if flag not in _OF_THE_ROUTER:
            yield flag.removeprefix("--"), _value(flag, value)


def _value(flag: str, value: str) -> str:
    what = "the weights' path" if flag == "--model" else f"the value of {flag}"
    refuse(value, _MEANS_SOMETHING, form="preset", what=what)
    for at_the_edge in (value[:1], value[-1:]):
        if at_the_edge in (" ", "\t"):
            raise BadInputError(
                f"preset cannot say {what}: it begins or ends with {say(at_the_edge)}",
                hint="give the file a plainer name, or export to a format that can",
                code="unsayable",
            )
    return value
