"""The command of llama-server for programs: a JSON list of words and the variables that belong to it.

The mistake it prevents: a command line as one string, which every reader would split in another way. JSON says every
name there is, a line feed included.
"""

import json

from planner.types.deployment import Deployment, ExportOptions

__all__ = ["render"]


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:  # noqa: ARG001 - every format's signature
    """``NAME.argv.json`` with ``argv`` and ``environment``."""
    document = {"argv": list(deployment.argv), "environment": deployment.environment}
    return {f"{deployment.name}.argv.json": json.dumps(document, indent=2) + "\n"}
