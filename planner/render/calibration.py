"""A calibration as text: what a byte of weights of each type costs here, how sure that is, and what was left out.

The mistake it prevents is a calibration that nobody can judge: a type that was not timed is not in the table.
"""

from collections.abc import Iterator

from planner import units
from planner.measure.calibration import CalibrationTold, Cost
from planner.render.layout import bullets, columns, facts, paragraph, section
from planner.render.style import PLAIN, Style
from planner.render.text import finish
from planner.render.untrusted import cleaned
from planner.render.waiting import waits

__all__ = ["calibration_text"]

_KNOTS = (1, 8, 512)
_ADVICE = "close what else computes, plug the machine in, and calibrate again; this result was not kept"


def calibration_text(calibration: CalibrationTold, style: Style = PLAIN) -> str:
    """The speed of each type's kernels, the conditions, what was left out, and what was wrong where something was."""
    told = cleaned(calibration)
    signature = told.signature
    lines = [*(style.heading(line) for line in paragraph(f"Calibration of {signature.cpu}", indent="")), ""]
    lines += section("Weights read, GB/s", _table(told.costs), style)
    about = [
        f"{told.timings} samples in {units.duration(told.seconds)}",
        f"{signature.threads} threads, {waits(told.openmp_wait)}",
        f"engine build {signature.engine_build}",
        f"single runs of one thing differed by {units.percent(told.unsteadiness)}",
        f"what it predicts is {units.percent(told.model_doubt)} off by itself",
    ]
    lines += section("Conditions", paragraph(facts(about, style)), style)
    lines += section("Notes", bullets(told.notes, style), style)
    if told.conditions.disturbed:
        lines += section(style.bad("Disturbed: not kept"), bullets([*told.conditions.disturbed, _ADVICE], style), style)
    return finish(lines)


def _table(costs: tuple[Cost, ...]) -> list[str]:
    known = {cost.kind: cost for cost in costs}
    families = sorted({cost.kind[3:].partition("@")[0] for cost in costs if cost.kind.startswith("mm/")})
    rows = [tuple(_row(family, known)) for family in families]
    return columns(("type", "form", "1 column", "8 columns", "512 columns", "doubt"), rows, right=(2, 3, 4, 5))


def _row(family: str, known: dict[str, Cost]) -> Iterator[str]:
    name, _, form = family.partition("/")
    yield name
    yield form
    for knot in _KNOTS:
        cost = known.get(f"mm/{family}@{knot}")
        yield units.rate(1 / cost.ns) if cost is not None and cost.ns > 0 else ""
    first = known.get(f"mm/{family}@1")
    yield units.percent(first.doubt_ns / first.ns) if first is not None and first.ns > 0 else ""
