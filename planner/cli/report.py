"""``planner report``: plans as a page to look at, or as Markdown for an issue."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from planner.cli.options import json_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.types.plan import Plan

__all__ = ["command"]

_MOST_PLANS = 12
"""A plan takes up to 0.15 MB of the page, which stays below 2 MB."""


@click.command(name="report")
@click.argument("plans", metavar="PLAN...", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option(
    "--html", "html_file", metavar="FILE", type=click.Path(path_type=Path), help="Write the HTML page to FILE."
)
@click.option("--markdown", is_flag=True, help="Make GitHub Markdown instead of an HTML page.")
@click.option(
    "--output", "output_file", metavar="FILE", type=click.Path(path_type=Path), help="Write to FILE instead of stdout."
)
@json_option
def command(
    *, plans: tuple[str, ...], html_file: Path | None, markdown: bool, output_file: Path | None, as_json: bool
) -> int:
    """Make a report to look at from one plan, or compare several.

    PLAN is a file from "planner plan --output", - for stdin. The page is one HTML file that needs no network. Several
    plans stand side by side, to compare machines or models.
    """
    from planner.cli import output
    from planner.workflow.plan_file import read_plan

    if html_file is not None and (markdown or output_file is not None):
        raise click.UsageError("--html FILE excludes --markdown and --output")
    if len(plans) > _MOST_PLANS:
        raise click.UsageError(f"{len(plans)} plans are more than one page holds; at most {_MOST_PLANS}")
    if plans.count("-") > 1:
        raise click.UsageError("stdin holds one plan; - may be given once")
    where = html_file or output_file
    if where is None and not markdown and not as_json and output.is_terminal():
        raise click.UsageError("a page is no text for a terminal; name a file with --html FILE, or give --markdown")
    read = [read_plan(path) for path in plans]
    text = _markdown(read) if markdown else _page(read)
    if where is not None:
        from planner.files import atomic_write

        atomic_write(where, text.encode())
    if as_json:
        from planner.render.documents import report_document

        form: Literal["html", "markdown"] = "markdown" if markdown else "html"
        output.print_json(report_document(read, text, form=form, file=None if where is None else str(where)))
    elif where is None:
        output.print_text(text)
    return 0


def _markdown(plans: "Sequence[Plan]") -> str:
    from planner.render.report.markdown import markdown_report

    return markdown_report(plans)


def _page(plans: "Sequence[Plan]") -> str:
    """The page; what draws it is an extra."""
    from planner.errors import UnavailableError
    from planner.files import cache_dir

    # matplotlib keeps a list of fonts; without a place of its own it writes into the home folder.
    os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))
    try:
        from planner.render.report.page import html_report
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"jinja2", "markupsafe", "matplotlib", "numpy"}:
            raise
        raise UnavailableError(
            f"the HTML page needs {error.name}, which is not installed",
            hint='pip install "llama-planner[report]", or take --markdown, which needs nothing more',
            code="report-extra-missing",
        ) from error
    return html_report(plans)
