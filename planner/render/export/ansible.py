"""The deployment as local facts of Ansible: a JSON file that becomes ``ansible_local.planner`` on the host it lies on.

The mistake it prevents: roles that parse a command line. Everything that a role needs has a name of its own.
"""

import json

from planner.types.deployment import Deployment, ExportOptions

__all__ = ["render"]


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:  # noqa: ARG001 - every format's signature
    """``planner.fact``, to be put into ``/etc/ansible/facts.d``; it must not be executable there."""
    speed = deployment.speed.generate
    facts = {
        "name": deployment.name,
        "model": deployment.model,
        "quantization": deployment.quantization,
        "weights": list(deployment.weights),
        "weights_bytes": deployment.file_bytes,
        "argv": list(deployment.argv),
        "environment": deployment.environment,
        "host": deployment.host,
        "port": deployment.port,
        "api_key_file": deployment.api_key_file,
        "context_tokens": deployment.settings.context_tokens,
        "parallel": deployment.settings.parallel,
        "host_memory_bytes": deployment.host_memory_bytes,
        "memory_bytes": {row.device: row.total_bytes for row in deployment.memory},
        "gpus": list(deployment.gpu_names),
        "tokens_per_s": speed.tokens_per_s if speed is not None else None,
        "engine_build": deployment.engine_build,
        "planned_at": deployment.planned_at,
        "planned_by": deployment.planned_by,
    }
    return {"planner.fact": json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False) + "\n"}
