"""Whether a file that somebody offers is the model that was planned: its header against the catalogue and the plan.

The mistake it prevents is starting another model, or another mix of types, with settings that were worked out for this
one. Only the header is read, before the weights are asked for.
"""

import math
import re
from pathlib import Path

from planner import catalogue, hub
from planner.errors import BadInputError, PlannerError
from planner.gguf import Walked, walk_stream
from planner.types.artifact import Artifact, HeaderFile
from planner.types.model import Layout
from planner.types.plan import Candidate, Plan
from planner.units import gib, percent

__all__ = ["TOLERANCE", "differences"]

TOLERANCE = 0.01
"""A published file differs from the dry run of its recipe by at most so much; more is another mix."""

_BLOCK = re.compile(r"blk\.(\d{1,4})\.")
_BAKED_IN = re.compile(r"^rope_(?:freqs|factors)|\.(?:input_)?scale$")
_HEAD = "output.weight"
"""A publisher may write the head twice or leave it out where it is the embedding."""
_MOST_EXTRA_BLOCKS = 3
"""Blocks behind the layers that predict further tokens; no published model has more."""


def differences(plan: Plan, artifact: Artifact, *, offline: bool = False) -> tuple[str, ...]:
    """How the weights of ``artifact`` differ in size from the planned ones: a sentence when there is any difference.

    Raises BadInputError: code ``another-model`` when the shape is that of another model, whatever the size, code
    ``bad-gguf`` for a header that is wrong; and what reading a header over the network raises.
    """
    chosen = plan.chosen
    if chosen is None:
        return ()
    walks = [_walk(file, artifact) for file in hub.header_files(artifact, offline=offline)]
    model = catalogue.load().models.get(chosen.model)
    if model is not None:
        _check_shape(chosen, artifact, walks, catalogue.load().layout(model))
    found = sum(walked.data_bytes for walked in walks)
    share = abs(found - chosen.file_bytes) / max(1, chosen.file_bytes)
    if share <= TOLERANCE:
        return ()
    more = "more" if found > chosen.file_bytes else "less"
    planned = gib(chosen.file_bytes)
    return (f"{artifact.name} holds {gib(found)} of weights, {percent(share)} {more} than the planned {planned}",)


def _walk(file: HeaderFile, artifact: Artifact) -> Walked:
    path = Path(file.path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            return walk_stream(stream, size, file_bytes=file.file_bytes)
    except BadInputError as error:
        raise BadInputError(f"{artifact.name}: {error.message}", hint=error.hint, code=error.code) from error
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}", hint="try again") from error


def _check_shape(chosen: Candidate, artifact: Artifact, walks: list[Walked], layout: Layout) -> None:
    architecture = next((walked.architecture for walked in walks if walked.architecture), None)
    if architecture != layout.architecture:
        raise _another(chosen, artifact, f"its architecture is {architecture}, not {layout.architecture}")
    planned = {tensor.name: _plain(tensor.dims) for tensor in layout.tensors if not _BAKED_IN.search(tensor.name)}
    found = {row.name: _plain(row.dims) for walked in walks for row in walked.tensors if not _BAKED_IN.search(row.name)}
    for name in sorted(planned.keys() & found.keys()):
        if planned[name] != found[name]:
            raise _another(chosen, artifact, f"{name} is {_shown(found[name])}, not {_shown(planned[name])}")
    # A block for predicting further tokens may stand behind the layers, or be left out.
    layers = len(layout.layers)
    lacking = sorted(name for name in planned.keys() - found.keys() if name != _HEAD and _layer(name) < layers)
    beyond = sorted(name for name in found.keys() - planned.keys() if name != _HEAD and _layer(name) < layers)
    count = sum(math.prod(planned[name]) for name in lacking) + sum(math.prod(found[name]) for name in beyond)
    if count > TOLERANCE * sum(math.prod(dims) for dims in planned.values()):
        what = f"it lacks {lacking[0]}" if lacking else f"it also has {beyond[0]}"
        raise _another(chosen, artifact, what)
    deepest = max(map(_layer, found), default=-1) + 1
    if deepest > layers + _MOST_EXTRA_BLOCKS:
        raise _another(chosen, artifact, f"it has {deepest} layers, not {layers}")


def _layer(name: str) -> int:
    block = _BLOCK.match(name)
    return int(block[1]) if block is not None else -1


def _plain(dims: tuple[int, ...]) -> tuple[int, ...]:
    """Dimensions without the ones at their end, which some writers state and others do not."""
    kept = list(dims)
    while len(kept) > 1 and kept[-1] == 1:
        kept.pop()
    return tuple(kept)


def _shown(dims: tuple[int, ...]) -> str:
    return " × ".join(map(str, dims))


def _another(chosen: Candidate, artifact: Artifact, what: str) -> PlannerError:
    repo = f"{artifact.hub}:{artifact.repo}" if artifact.repo else artifact.name
    return BadInputError(
        f"{artifact.name} is not {chosen.model}: {what}",
        hint=f"name a repository of {chosen.model}, or make a plan for this one: planner plan --model {repo}",
        code="another-model",
    )
