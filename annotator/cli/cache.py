"""`annotator cache`: the store of paid answers."""

from __future__ import annotations

from pathlib import Path

import click

from annotator.cli.common import emit, output_options, print_table

cache_dir_option = click.option("--cache-dir", default="cache", show_default=True, metavar="DIR", help="The cache.")


@click.group("cache")
def command() -> None:
    """Look into the cache of paid answers, thin it out, or carry it elsewhere."""


@command.command("stats")
@cache_dir_option
@output_options
def stats(cache_dir: str, quiet: bool, as_json: bool) -> None:
    """Count answers and bytes, by model."""
    from annotator.judges.cache import cache_stats

    found = cache_stats(cache_dir)
    emit(found, as_json=as_json, quiet=quiet, show=lambda: print_table(["", cache_dir], list(found.items())))


@command.command("prune")
@cache_dir_option
@click.option("--older-than-days", type=click.FloatRange(0), help="Only answers older than this.")
@click.option("--model", help="Only answers of this model.")
@output_options
def prune(cache_dir: str, older_than_days: float | None, model: str | None, quiet: bool, as_json: bool) -> None:
    """Delete answers; they would have to be paid for again. Give at least one condition."""
    from annotator.judges.cache import prune_cache

    if older_than_days is None and model is None:
        raise click.UsageError("give --older-than-days or --model: nothing is deleted without a condition.")
    deleted = prune_cache(cache_dir, older_than_days=older_than_days, model=model)
    emit({"deleted": deleted}, as_json=as_json, quiet=quiet, show=lambda: click.echo(f"{deleted:,} answers deleted"))


@command.command("export")
@click.argument("path")
@cache_dir_option
@output_options
def export(path: str, cache_dir: str, quiet: bool, as_json: bool) -> None:
    """Write all answers to PATH, a portable .jsonl.zst file."""
    from annotator.judges.cache import export_cache

    written = export_cache(cache_dir, Path(path))
    emit({"answers": written, "out": path}, as_json=as_json, quiet=quiet,
         show=lambda: click.echo(f"{written:,} answers -> {path}"))  # fmt: skip


@command.command("import")
@click.argument("path")
@cache_dir_option
@output_options
def import_(path: str, cache_dir: str, quiet: bool, as_json: bool) -> None:
    """Add the answers of PATH (made by `annotator cache export`) to the cache."""
    from annotator.judges.cache import import_cache

    added = import_cache(cache_dir, Path(path))
    emit({"added": added}, as_json=as_json, quiet=quiet, show=lambda: click.echo(f"{added:,} new answers"))
