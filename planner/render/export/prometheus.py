"""The plan as metrics for node_exporter's textfile collector: what was promised, to be laid beside what is measured.

The mistakes it prevents: a time stamp, which that collector refuses; a unit that is not in the name; and a label whose
line feed ends the line. Format: Prometheus text exposition format 0.0.4.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from planner.render.export.words import CONTROLS, refuse
from planner.types.deployment import Deployment, ExportOptions
from planner.types.plan import Speed

__all__ = ["render"]

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
_Sample = tuple[Mapping[str, str], float]


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:  # noqa: ARG001 - every format's signature
    """``NAME.prom``; a control character other than a line feed in the model's name is refused.

    The help of each metric is the same in every such file, as the collector asks for. Put it in place by renaming.
    """
    lines: list[str] = []
    for name, help_text, samples in _metrics(deployment):
        if samples:
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
            lines += [_line(name, {"deployment": deployment.name, **labels}, value) for labels, value in samples]
    return {f"{deployment.name}.prom": "\n".join(lines) + "\n"}


def _metrics(deployment: Deployment) -> Iterator[tuple[str, str, Sequence[_Sample]]]:
    settings = deployment.settings
    about = {
        "model": deployment.model,
        "quantization": deployment.quantization,
        "engine_build": deployment.engine_build,
        "machine": deployment.machine,
    }
    yield "planner_plan_info", "What was planned; always 1.", [(about, 1)]
    yield "planner_plan_context_tokens", "Tokens of context of all sequences.", [({}, settings.context_tokens)]
    yield "planner_plan_sequences", "Sequences served at the same time.", [({}, settings.parallel)]
    yield "planner_plan_weights_bytes", "Size of the weights.", [({}, deployment.file_bytes)]
    yield "planner_plan_memory_bytes", "Memory that the plan gives to each part on each device.", _memory(deployment)
    yield (
        "planner_plan_host_memory_limit_bytes",
        "What a limit on the host's memory must allow.",
        [({}, deployment.host_memory_bytes)],
    )
    yield (
        "planner_plan_tokens_per_second",
        "Speed that the plan promises, with the bounds of its interval.",
        [
            each
            for test in ("generate", "prompt", "generate_at_depth", "generate_full", "generate_together")
            for each in _speed(test, getattr(deployment.speed, test))
        ],
    )
    made = _unix_seconds(deployment.planned_at)
    yield "planner_plan_created_timestamp_seconds", "When it was planned.", [] if made is None else [({}, made)]


def _memory(deployment: Deployment) -> list[_Sample]:
    return [
        ({"device": row.device, "part": part}, getattr(row, f"{part}_bytes"))
        for row in deployment.memory
        for part in ("weights", "cache", "compute", "overhead")
    ]


def _speed(test: str, speed: Speed | None) -> list[_Sample]:
    if speed is None:
        return []
    labels = {"test": test, "depth_tokens": str(speed.at_context_tokens), "origin": speed.origin}
    bounds = {"expected": speed.tokens_per_s, "low": speed.low, "high": speed.high}
    return [({**labels, "bound": bound}, value) for bound, value in bounds.items()]


def _unix_seconds(text: str) -> float | None:
    try:
        made = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (made if made.tzinfo is not None else made.replace(tzinfo=UTC)).timestamp()


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    text = ",".join(f'{label}="{_escaped(label, text)}"' for label, text in labels.items())
    return f"{name}{{{text}}} {value}"


def _escaped(label: str, text: str) -> str:
    refuse(text, CONTROLS - {"\n"}, form="prometheus", what=f"the label {label}")
    return "".join(_ESCAPES.get(each, each) for each in text)
