"""Every format that a deployment can be written in, each in a file of its own: pure functions from data to text.

A format is one module of this folder with a function ``render(deployment, options)`` that gives its files by name, and
one line in :data:`FORMATS`. A module is imported when its format is asked for, so none pays for another's libraries.

Two mistakes it prevents. A name that changes its meaning on the way: each format either says exactly the argv of the
deployment or refuses with the character that it cannot say (:mod:`planner.render.export.words`). And a secret in a
file: no deployment holds one.
"""

import importlib
from typing import TYPE_CHECKING, cast

from planner.errors import UsageError
from planner.render.export.words import check_text
from planner.types.deployment import Deployment, ExportOptions

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FORMATS", "Files", "export"]

Files = dict[str, str]
"""The text of each file by its name, which may have folders in it (``user/x.service``)."""

FORMATS: dict[str, str] = {
    "llama-server": "the command as JSON: argv and variables",
    "env": "variables that llama-server reads",
    "script": "a POSIX shell script",
    "systemd": "hardened units, for the system and for one user",
    "compose": "a compose file for Docker or Podman",
    "quadlet": "a container unit for Podman",
    "llama-swap": "a model of llama-swap",
    "preset": "a section for llama-server's router",
    "modelfile": "a Modelfile for Ollama",
    "kubernetes": "Deployment and Service",
    "python": "a configuration and a program for llama-cpp-python",
    "ansible": "local facts of Ansible",
    "prometheus": "metrics for node_exporter's textfile collector",
    "cyclonedx": "a bill of materials",
}
"""Each format with what it makes, in the order of the help text; ``llama-server`` is the module ``llama_server``."""


def export(name: str, deployment: Deployment, options: ExportOptions | None = None) -> Files:
    """The files of format ``name`` for a deployment, each ending with a newline.

    Raises :class:`UsageError` for an unknown format or an option that the format needs and did not get, and
    :class:`BadInputError` (code ``unsayable``) for a name that the format cannot say exactly.
    """
    if name not in FORMATS:
        raise UsageError(f"unknown format {name!r}", hint=f"one of {', '.join(FORMATS)}", code="unknown-format")
    options = options or ExportOptions()
    check_text(deployment, options, form=name)
    module = importlib.import_module(f"planner.render.export.{name.replace('-', '_')}")
    render = cast("Callable[[Deployment, ExportOptions], Files]", module.render)
    return render(deployment, options)
