"""The report as one HTML file that needs nothing else: no network, no folder beside it, no script to be read.

Every string of a plan is a stranger's. The templates escape all of them, an address becomes a link only when it is a
plain one, and the page forbids itself whatever it does not contain: its policy names the hashes of its one style
sheet and its one script. The mistake it prevents is a model's name that runs.
"""

import base64
import hashlib
import re
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from planner.render.report import figures
from planner.render.report.candidates import mark_words
from planner.render.report.charts.pareto import drawable
from planner.render.report.comparison import comparison_table
from planner.render.report.drawing import COLOURS
from planner.render.report.sheet import Sheet, sheets
from planner.types.plan import Plan

__all__ = ["html_report", "linked"]

_ADDRESS = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?(?:[/?#][A-Za-z0-9._~:/?#@!$&'*+,=%-]*)?")
_TRAILING = ".,;:!?'"


def html_report(plans: Sequence[Plan]) -> str:
    """The whole page for one plan or for several, which are then compared first."""
    told = sheets(plans)
    environment = _environment()
    most = max((len(sheet.marks) for sheet in told), default=0)
    style = environment.get_template("report.css.jinja").render(colours=COLOURS, most=most)
    script = environment.get_template("report.js.jinja").render()
    return environment.get_template("report.html.jinja").render(
        policy=_policy(style, script),
        style=Markup(style),  # noqa: S704 - our own files, rendered with numbers and our own colours alone
        script=Markup(script),  # noqa: S704 - the same
        title=_title(told),
        sheets=told,
        comparison=comparison_table(told) if len(told) > 1 else None,
        figures=figures,
        drawable=drawable,
        words=mark_words,
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("planner.render.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["linked"] = linked
    return environment


def linked(text: str) -> Markup:
    """The text escaped, with each plain http(s) address in it as a link that tells the other side nothing."""
    found, start = [], 0
    for match in _ADDRESS.finditer(text):
        address = match.group().rstrip(_TRAILING)
        found.append(escape(text[start : match.start()]))
        found.append(Markup('<a href="{0}" rel="noopener noreferrer external">{0}</a>').format(address))
        start = match.start() + len(address)
    return Markup("").join([*found, escape(text[start:])])


def _policy(style: str, script: str) -> str:
    """A content security policy that allows this style sheet and this script, and nothing else anywhere."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _title(told: Sequence[Sheet]) -> str:
    if len(told) == 1:
        return f"{told[0].answer} {told[0].plan.machine.name}"
    return f"{len(told)} plans side by side"
