"""Says which candidate a search refused for memory next after its choice; runs inside the group that is planned for.

Reads a goal as JSON on stdin, prints the combination that was asked about, found too big, and needs fewest bytes:
``model``, ``quantization``, ``settings``, ``needed_bytes``, and whether it is of the ``chosen_model``; or ``null``.
The chosen model's own heavier recipes come first: they are what would have been taken with more memory.
"""

import json
import sys

import msgspec

from planner.catalogue import load
from planner.choose.evaluate import evaluate
from planner.types.plan import Goal
from planner.workflow.estimator import CandidateEstimator
from planner.workflow.session import open_session


def main() -> None:
    """Search as ``planner plan --no-measure`` does, and look at what was too big."""
    goal = msgspec.json.decode(sys.stdin.buffer.read(), type=Goal)
    with open_session(load(), None, None) as session:
        sources = session.sources
        models = tuple(sources.catalogue.models.values())
        estimator = CandidateEstimator(session.oracle, sources, session.machine)
        found = evaluate(goal, session.machine, models, sources.quantizations, estimator, session.quality)
    refused = [each for each in found.considered if each.verdict == "too-big" and each.settings and each.needed_bytes]
    chosen = found.chosen.model if found.chosen else None
    least = min(refused, key=lambda e: (e.model != chosen, e.needed_bytes, e.model, e.quantization), default=None)
    if least is None:
        print("null")
        return
    print(
        json.dumps(
            {
                "model": least.model,
                "quantization": least.quantization,
                "settings": msgspec.to_builtins(least.settings),
                "needed_bytes": least.needed_bytes,
                "chosen_model": least.model == chosen,
            }
        )
    )


if __name__ == "__main__":
    main()
