"""The deployment as a POSIX shell script that checks what it needs and then becomes the server.

Two mistakes it prevents: a name that the shell takes for a command (every word stands in single quotes), and a server
without a key because the file of keys is empty: llama-server then starts and answers everybody.
"""

import shlex

from planner.errors import UsageError
from planner.render.export.words import comment
from planner.types.deployment import Deployment, ExportOptions

__all__ = ["render"]


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:  # noqa: ARG001 - every format's signature
    """``NAME.sh``; further arguments of the script go to the server, after the plan's."""
    program = deployment.argv[0]
    if program.startswith("-"):
        raise UsageError(f"{program!r} is no program: it begins with a hyphen", hint="give --server as a path")
    lines = [
        "#!/bin/sh",
        f"# llama-server with {comment(deployment.model)} in {comment(deployment.quantization)}, as planned.",
        "# shellcheck disable=SC1003,SC2016  # a backslash or a dollar sign in a name is meant as it stands",
        "set -eu",
        "",
        'fail() { printf "error: %s\\n" "$2" >&2; exit "$1"; }',
        f"command -v {shlex.quote(program)} >/dev/null || fail 69 {shlex.quote(f'{comment(program)} is not here')}",
        *_checks(deployment),
        "",
        *(f"export {name}={shlex.quote(value)}" for name, value in sorted(deployment.environment.items())),
        f"exec {shlex.quote(program)} \\",
        *(f"  {line} \\" for line in _pairs(deployment.argv[1:])),
        '  "$@"',
    ]
    return {f"{deployment.name}.sh": "\n".join(lines) + "\n"}


def _checks(deployment: Deployment) -> list[str]:
    told = shlex.quote("the weights cannot be read: ")
    lines = [f"[ -r {shlex.quote(_file(path))} ] || fail 66 {told}{shlex.quote(path)}" for path in deployment.weights]
    if deployment.api_key_file is not None:
        path = shlex.quote(_file(deployment.api_key_file))
        lines.append(f"grep -q '^[^#]' {path} || fail 66 {shlex.quote('no key in ')}{path}")
    return lines


def _file(path: str) -> str:
    """A path that no program takes for an option."""
    return f"./{path}" if path.startswith("-") else path


def _pairs(words: tuple[str, ...]) -> list[str]:
    """A flag with its value on one line; the value of ``--model`` is a value whatever it looks like."""
    lines: list[str] = []
    for at, word in enumerate(words):
        if at == 1 or (lines and not word.startswith("--") and lines[-1].startswith("--") and " " not in lines[-1]):
            lines[-1] += f" {shlex.quote(word)}"
        else:
            lines.append(shlex.quote(word))
    return lines
