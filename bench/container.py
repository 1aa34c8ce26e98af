"""A plan made inside a container's limits and then run there: it must fit.

Makes real cgroups (see :mod:`cgroups`), lets ``planner plan --json`` plan inside each, then really loads the chosen
candidate's phantom inside the same limits, fills a micro-batch, generates 32 tokens, and looks for a kill.

    python bench/container.py [--quick] [--output bench/results/container.json]
"""

import argparse
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from cgroups import CannotLimitError, Limited, limited

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.engine.phantom import write_phantom
from planner.types.model import Layout
from planner.types.plan import Candidate

GIB = 1 << 30
REFEREE = Path(__file__).with_name("real_load.py")
LIMITS = ((2, 1.0), (4, 1.0), (8, 2.0))


def phantom(candidate: Candidate, path: Path) -> None:
    """Write the phantom of a candidate's file."""
    known = catalogue.load()
    model, quantization = known.model(candidate.model), known.quantization(candidate.quantization)

    def source() -> Layout:
        return known.layout(model)

    with EngineChild() as child, Oracle(child) as oracle:
        typed = oracle.typed_layout(known.shape_key(model), source, quantization)
    write_phantom(path, typed, random_seed=1, random_only=("ffn_gate_inp.weight",))


def trial(group: Limited, gib: int, how: str, folder: Path) -> dict[str, Any]:
    """Plan inside the group, run the choice inside the group."""
    planned = group.run([sys.executable, "-m", "planner", "plan", "--json", how])
    row: dict[str, Any] = {"limit_gib": gib, "exit_code": planned.returncode, "killed_while_planning": group.oom_kills}
    if planned.returncode != 0:
        return {**row, "error": (planned.stdout or planned.stderr)[-400:]}
    plan = json.loads(planned.stdout)
    chosen = msgspec.convert(plan["chosen"], Candidate)
    row |= {
        "chosen": f"{chosen.model} {chosen.quantization}",
        "load_mode": chosen.settings.load_mode,
        "context_tokens": chosen.settings.context_tokens,
        "total_gib": round(sum(each.total_bytes for each in chosen.memory) / GIB, 2),
        "threads": chosen.settings.threads,
        "generate_tokens_per_s": plan["chosen"]["speed"]["generate"],
    }
    path = folder / "phantom.gguf"
    phantom(chosen, path)
    request = json.dumps({"path": str(path), "settings": msgspec.to_builtins(chosen.settings)})
    ran = group.run([sys.executable, str(REFEREE)], stdin=request)
    path.unlink()
    row |= {"ran": ran.returncode == 0, "killed_while_running": group.oom_kills - row["killed_while_planning"]}
    if ran.returncode == 0:
        row["resident_gib"] = round(json.loads(ran.stdout)["after"] / GIB, 2)
    else:
        row["error"] = ran.stderr[-400:]
    return row


def main() -> int:
    """Try every limit; 1 when a choice was killed or did not run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="plan with --quick")
    parser.add_argument("--no-measure", action="store_true", help="plan with --no-measure")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    how = "--no-measure" if options.no_measure else "--quick" if options.quick else "--min-speed=8"
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for gib, cpus in LIMITS:
            try:
                with limited(gib * GIB, cpus) as group:
                    rows.append(trial(group, gib, how, Path(name)))
            except CannotLimitError as error:
                rows.append({"limit_gib": gib, "unchecked": str(error)})
            print(json.dumps(rows[-1]), flush=True)
    held = all(row.get("ran") and not row.get("killed_while_running") for row in rows if "unchecked" not in row)
    print("claims held" if held else "claims NOT held")
    if options.output:
        date = datetime.now(UTC).date().isoformat()
        options.output.write_text(json.dumps({"date": date, "held": held, "rows": rows}, indent=1) + "\n")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
