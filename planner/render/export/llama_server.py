"""The command of llama-server for programs: its words one to a line, and JSON where a line cannot hold a word.

The mistake it prevents: a command line as one string, which every reader would split in another way.
"""

import json

from planner.render.export.words import refuse
from planner.types.deployment import Deployment, ExportOptions

__all__ = ["render"]


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:  # noqa: ARG001 - every format's signature
    r"""``NAME.argv`` for ``xargs -d '\n'`` and ``mapfile``, ``NAME.argv.json`` for everything else.

    A word with a line feed is refused: the first file could not hold it.
    """
    for word in deployment.argv:
        refuse(word, "\n", form="llama-server", what="a word of the command")
    document = {"argv": list(deployment.argv), "environment": deployment.environment}
    return {
        f"{deployment.name}.argv": "".join(f"{word}\n" for word in deployment.argv),
        f"{deployment.name}.argv.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n",
    }
