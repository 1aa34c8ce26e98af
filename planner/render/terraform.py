"""A plan as the result of Terraform's external data source: one JSON object in which every value is a string.

The mistake it prevents: a key that is there on one machine and missing on the next, over which a configuration
stumbles. The keys are always the same; what is unknown is an empty string. Protocol: documentation of the data source
``external`` of the provider ``hashicorp/external``.
"""

import json

from planner.errors import ExitCode, PlannerError
from planner.render.json import to_json
from planner.types.plan import Candidate, Plan

__all__ = ["terraform_result"]


def terraform_result(plan: Plan) -> bytes:
    """The document on stdout: flat strings about what was chosen, numbers in decimal, lists and maps as JSON.

    A plan that chose nothing is a :class:`PlannerError` (code ``nothing-chosen``): the protocol knows only a result or
    an error, and a configuration must not go on with empty strings. All but ``plan_json`` stays the same as long as the
    choice and the measurements do; the plan itself tells the time and the free memory of its making.
    """
    chosen = plan.chosen
    if chosen is None:
        raise PlannerError(
            f"nothing meets the goal: {'; '.join(reason.text for reason in plan.reasons)}",
            hint="ask for less context, less speed, or another machine",
            code="nothing-chosen",
            exit_code=ExitCode.NOTHING_MEETS_THE_GOAL,
        )
    return json.dumps(_flat(plan, chosen), indent=2, ensure_ascii=False).encode() + b"\n"


def _flat(plan: Plan, chosen: Candidate) -> dict[str, str]:
    speed, artifact = chosen.speed.generate, chosen.artifact
    parts = artifact.parts if artifact is not None else ()
    command = plan.commands.llama_server if plan.commands is not None else ()
    environment = plan.commands.environment if plan.commands is not None else {}
    numbers: dict[str, float | None] = {
        "context_tokens": chosen.settings.context_tokens,
        "parallel": chosen.settings.parallel,
        "threads": chosen.settings.threads,
        "weights_bytes": chosen.file_bytes,
        "memory_bytes": sum(row.total_bytes for row in chosen.memory),
        "tokens_per_s": speed.tokens_per_s if speed is not None else None,
        "tokens_per_s_low": speed.low if speed is not None else None,
        "tokens_per_s_high": speed.high if speed is not None else None,
        "index": chosen.index.value if chosen.index is not None else None,
    }
    return {
        "model": chosen.model,
        "quantization": chosen.quantization,
        **{name: _number(value) for name, value in numbers.items()},
        "speed_origin": speed.origin if speed is not None else "",
        "weights_file": command[command.index("--model") + 1] if "--model" in command[:-1] else "",
        "repo": (artifact.repo or "") if artifact is not None else "",
        "commit": (artifact.commit or "") if artifact is not None else "",
        "sha256_json": json.dumps({part.path: part.sha256 for part in parts}, sort_keys=True),
        "memory_json": json.dumps({row.device: row.total_bytes for row in chosen.memory}, sort_keys=True),
        "argv_json": json.dumps(command),
        "environment_json": json.dumps(environment, sort_keys=True),
        "engine_build": plan.engine_build,
        "plan_json": to_json(plan).decode().strip(),
    }


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.2f}"
