"""``planner clean``: what planner has left on this disk, told and, if somebody says so, removed."""

import sys

import click

from planner.cli.options import json_option

__all__ = ["command"]


@click.command(name="clean")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@click.option("--weights", is_flag=True, help="Also the weights that were fetched and verified, and their receipts.")
@click.option("--measurements", is_flag=True, help="Also what was measured, calibrated and imported.")
@json_option
def command(*, yes: bool, dry_run: bool, weights: bool, measurements: bool, as_json: bool) -> int:
    """Remove what planner left behind: downloads that never ended, phantoms, headers, answers.

    Without --yes a terminal is asked, and anything else is only told. Verified weights stay unless --weights is said.
    """
    from planner.apply.clean import clean
    from planner.cli import output
    from planner.render.fetch import clean_text

    if yes and dry_run:
        raise click.UsageError("--yes and --dry-run exclude each other")
    report = clean(remove=yes, weights=weights, measurements=measurements)
    if as_json:
        output.print_json(report)
        return 0
    output.print_text(clean_text(report, output.style()))
    asked = not (yes or dry_run) and report.leftovers and sys.stdin is not None and sys.stdin.isatty()
    if asked and click.confirm("Remove it?", err=True):
        report = clean(remove=True, weights=weights, measurements=measurements)
        output.print_text(clean_text(report, output.style()))
    return 0
