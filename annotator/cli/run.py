"""`annotator run`: the whole loop from one settings file."""

from __future__ import annotations

import os
from typing import Any

import click

from annotator.cli.common import ProgressLine, emit, output_options, print_table
from annotator.cli.judging import key_of_environment
from annotator.resources import resource


@click.command("run", epilog=f"\b\nA settings file with comments:\n  {resource('examples', 'loop.toml')}")
@click.argument("settings", metavar="LOOP.TOML")
@click.option("--out", "-o", metavar="DIR", help="Folder for the artefacts, instead of the one in the settings.")
@click.option("--cache-dir", default="cache", show_default=True, metavar="DIR", help="Where paid answers are kept.")
@click.option("--dry-run", is_flag=True, help="Say what labelling will cost, and send nothing.")
@output_options
def command(settings: str, out: str | None, cache_dir: str, dry_run: bool, quiet: bool, as_json: bool) -> int:
    """Label, diagnose, find slices, match, rank, export, verify and report, as LOOP.TOML says.

    Stop it at any time; the same command goes on from there. A finished step is done again only if what it depends on
    has changed.
    """
    if dry_run:
        _forecast(settings, cache_dir, quiet=quiet, as_json=as_json)
        return 0
    result = run_with_progress(settings, out=out, cache_dir=cache_dir, quiet=quiet)
    emit(result.as_dict(), as_json=as_json, quiet=quiet, show=lambda: show_result(result))
    return 1 if result.failed else 0


def _forecast(settings: str, cache_dir: str, *, quiet: bool, as_json: bool) -> None:
    from annotator.loop import forecast_loop

    forecast = forecast_loop(
        settings,
        cache_dir=cache_dir,
        api_key=key_of_environment(asks=False),
        base_url=os.environ.get("OPENAI_BASE_URL"),
    )
    columns = ["model", "records", "cached", "to_ask", "input_tokens", "output_tokens", "cost_usd"]
    rows = [[step, *(one.get(name) for name in columns)] for step, one in forecast.items()]
    emit(forecast, as_json=as_json, quiet=quiet, show=lambda: print_table(["step", *columns], rows))


def run_with_progress(settings: str, *, out: str | None, cache_dir: str, quiet: bool) -> Any:
    """Run the loop; a line on stderr for each step, and a bar inside the long ones."""
    from annotator.cli.label import progress_note
    from annotator.loop import run_loop

    bars: dict[str, ProgressLine] = {}

    def follow(step: str, state: str, detail: Any) -> None:
        if state == "started":
            bars[step] = ProgressLine(step, quiet=quiet)
        elif state == "working":
            bars[step].update(detail.done, detail.total, progress_note(detail))
        else:
            if step in bars:
                bars.pop(step).close()
            if not quiet:
                because = f": {detail}" if state == "skipped" else ""
                click.echo(f"  {step:<16} {state}{because}", err=True)

    try:
        return run_loop(
            settings,
            out=out,
            cache_dir=cache_dir,
            api_key=key_of_environment(),
            base_url=os.environ.get("OPENAI_BASE_URL"),
            progress=follow,
        )
    finally:
        for bar in bars.values():
            bar.close()


def show_result(result: Any) -> None:
    """Print what a user wants to see first: verdict, worst slices, categories, top documents, where things are."""
    from annotator.cli.diagnose import show_verdict
    from annotator.cli.match import show_matches
    from annotator.cli.rank import show_ranking
    from annotator.cli.slices import show_slices
    from annotator.tables import MATCHES, SLICES, UPSAMPLE, read_table

    paths = result.artefacts
    click.echo()
    show_verdict(result.summaries["diagnosis"])
    click.echo()
    show_slices(read_table(paths["slices"], SLICES, made_by="annotator run"), result.summaries["slices"])
    if "upsample" in result.summaries:
        click.echo()
        show_matches(read_table(paths["matches"], MATCHES, made_by="annotator run"), result.summaries["matches"])
        click.echo()
        show_ranking(read_table(paths["upsample"], UPSAMPLE, made_by="annotator run"), result.summaries["upsample"])
    click.echo(f"\nArtefacts in {result.out}/, the page for people: {paths['report']}")
