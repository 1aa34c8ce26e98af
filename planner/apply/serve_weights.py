"""Which file a plan is served from, and whether it is whole: looked at before a server is started with it.

The mistake it prevents is half a file: an engine that is given one aborts after a minute with an assertion, or serves
what is there. Here the header is walked and held against the length of the file, which takes milliseconds.
"""

import os
from pathlib import Path
from typing import Literal, NamedTuple

from planner.apply.receipts import find_receipt
from planner.errors import BadInputError, ExitCode, MissingInputError, PlannerError
from planner.gguf import Incomplete
from planner.gguf.walk import walk_stream
from planner.gguf.walked import Walked
from planner.render.deployment import split_names
from planner.types.plan import Plan
from planner.types.receipt import Receipt

__all__ = ["Weights", "check_whole", "find_weights"]


class Weights(NamedTuple):
    """The parts of a model on this disk, the first is loaded; ``origin`` is who named them."""

    paths: tuple[Path, ...]
    origin: Literal["given", "plan", "receipt", "phantom"]
    receipt: Receipt | None = None


def find_weights(plan: Plan, given: str | None, *, plan_name: str = "PLAN") -> Weights:
    """The weights of the plan: those given, else those the plan found on disk, else those a receipt names.

    Raises :class:`MissingInputError` (exit 66) naming how to get them.
    """
    receipt = find_receipt(plan)
    if given is not None:
        return Weights(tuple(Path(name) for name in split_names(given)), "given", receipt)
    artifact = plan.chosen.artifact if plan.chosen is not None else None
    if artifact is not None and artifact.on_disk:
        paths = tuple(Path(part.local_path or "") for part in artifact.parts)
        if all(path.is_file() for path in paths):
            return Weights(paths, "plan", receipt)
    if receipt is not None:
        return Weights(tuple(Path(path) for path in receipt.weights), "receipt", receipt)
    what = f"{plan.chosen.model} in {plan.chosen.quantization}" if plan.chosen is not None else "this plan"
    raise MissingInputError(
        f"the weights of {what} are not on this machine",
        hint=f"get them with: planner fetch {plan_name}; or name a file with --weights, or try with --phantom",
        code="weights-missing",
    )


def check_whole(weights: Weights) -> tuple[Walked, ...]:
    """The headers of all parts, each found whole: as long as its tensors ask for.

    Raises :class:`MissingInputError` for a part that is not there, :class:`BadInputError` for one that is cut or no
    GGUF file, and :class:`PlannerError` (exit 77) for one that may not be read.
    """
    return tuple(_walked(path) for path in weights.paths)


def _walked(path: Path) -> Walked:
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            return walk_stream(stream, size, file_bytes=size)
    except Incomplete as error:
        raise BadInputError(
            f"{path}: its header goes on after the end of the file", hint="fetch it again", code="bad-gguf"
        ) from error
    except BadInputError as error:
        raise BadInputError(f"{path}: {error.message}", hint="fetch it again", code=error.code) from error
    except FileNotFoundError as error:
        raise MissingInputError(f"{path} is not there", hint="check --weights, or use planner fetch") from error
    except PermissionError as error:
        raise PlannerError(
            f"{path} may not be read",
            hint="check its permissions",
            code="not-permitted",
            exit_code=ExitCode.NOT_PERMITTED,
        ) from error
    except OSError as error:
        raise MissingInputError(f"{path} cannot be read: {error.strerror or error}", hint="check --weights") from error
