"""``planner serve`` with little patience: ``PYTHON FILE PLAN WEIGHTS SERVER PORT LOG LIMITS``; LIMITS is JSON."""

import json
import sys
from pathlib import Path

from planner.apply.serve import ServeRequest, serve
from planner.apply.supervise import Limits
from planner.cli import failure, output
from planner.errors import PlannerError
from planner.workflow.plan_file import read_plan


def main() -> int:
    """As the command: notes on stderr, the report on stdout, the exit code of what went wrong."""
    plan, weights, server, port, log, limits = sys.argv[1:7]
    request = ServeRequest(
        plan_name=plan,
        weights=weights,
        server=server,
        port=int(port),
        log=Path(log),
        limits=Limits(**json.loads(limits)),
    )
    try:
        output.print_json(serve(read_plan(plan), request, tell=output.print_note))
    except PlannerError as error:
        return failure.report(error, ["--json"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
