"""The deployment as a model of llama-swap, which starts and stops servers as they are asked for.

Two mistakes it prevents. A command that llama-swap reads otherwise than a shell: it drops lines that begin with ``#``,
puts its macros (``${PORT}``) into the text first and splits the rest by POSIX rules of its own. And a name of somebody
else's that is taken for such a macro.

Keys: ``config-schema.json`` of llama-swap at commit 032d7419; reading of commands: its ``internal/config/commands.go``
and ``macros.go``, ``shlex/shlex.go`` of billziss-gh/golib.
"""

from planner.errors import UsageError
from planner.render.export.words import comment, refuse
from planner.render.export.yaml_text import quoted
from planner.types.deployment import Deployment, ExportOptions

__all__ = ["command_line", "render"]

_LEAST_WAIT_S = 120
_SECONDS_A_GIB = 20
_ITS_OWN_LIMIT = 10  # requests at once, where the file names no number


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:  # noqa: ARG001 - every format's signature
    """``NAME.llama-swap.yaml``: one model; of several such files the entries under ``models:`` go into one.

    A line feed in a word is refused. So is an address that others reach: llama-swap listens for them, with its own
    ``--listen`` and ``apiKeys``, and its servers stay on loopback.
    """
    if deployment.exposed:
        raise UsageError(
            "llama-swap itself is what others reach; its servers listen on this machine alone",
            hint="leave out --expose; give llama-swap --listen and apiKeys",
        )
    settings = deployment.settings
    wait_s = max(_LEAST_WAIT_S, round(60 + deployment.file_bytes / (1 << 30) * _SECONDS_A_GIB))
    environment = [f"{name}={value}" for name, value in sorted(deployment.environment.items())]
    lines = [
        f"# llama-server with {comment(deployment.model)} in {comment(deployment.quantization)}, as planned.",
        f"healthCheckTimeout: {wait_s}",
        "models:",
        f"  {quoted(deployment.name)}:",
        f"    cmd: {quoted(command_line(deployment))}",
        f"    proxy: {quoted('http://127.0.0.1:${PORT}')}",
        "    env:" if environment else "    env: []",
        *(f"      - {quoted(each)}" for each in environment),
        "    capabilities:",
        f"      context: {settings.context_tokens // settings.parallel}",
    ]
    if settings.parallel > _ITS_OWN_LIMIT:
        lines.append(f"    concurrencyLimit: {settings.parallel}")
    return {f"{deployment.name}.llama-swap.yaml": "\n".join(lines) + "\n"}


def command_line(deployment: Deployment) -> str:
    """The argv as one line that llama-swap splits into the same words, with the port that it chooses."""
    words = list(deployment.argv)
    for flag, value in (("--host", "127.0.0.1"), ("--port", "${PORT}")):
        words[words.index(flag) + 1] = value
    at = words.index("--port") + 1
    return " ".join(word if number == at else _quoted(word) for number, word in enumerate(words))


def _quoted(word: str) -> str:
    """A word in single quotes, where nothing has a meaning; and no ``${`` in the text, in which macros are sought."""
    refuse(word, "\n", form="llama-swap", what="a word of the command")
    if word and all(each.isascii() and (each.isalnum() or each in "-_./:,=+@") for each in word):
        return word
    return "'" + word.replace("'", "'\"'\"'").replace("${", "$''{") + "'"
