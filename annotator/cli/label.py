"""`annotator label`: items or documents in, labels out."""

from __future__ import annotations

from typing import Any

import click

from annotator.cli.common import (
    ProgressLine,
    column_option,
    emit,
    finite,
    keep_inputs,
    output_options,
    print_table,
    stdin_as_file,
)
from annotator.cli.judging import chosen_judge, judge_options


@click.command("label")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--out", "-o", required=True, metavar="PATH", help="Label table to write, or a folder: one table a shard."
)
@judge_options
@click.option("--concurrency", default=64, show_default=True, type=click.IntRange(1), help="Most requests in flight.")
@click.option("--rpm", type=click.IntRange(1), help="Requests per minute (else learnt from the server).")
@click.option("--tpm", type=click.IntRange(1), help="Tokens per minute (else learnt from the server).")
@click.option("--timeout", "timeout_s", default=120.0, show_default=True, type=click.FloatRange(0, min_open=True),
              callback=finite, help="Seconds one request may take.")  # fmt: skip
@click.option("--max-cost", type=click.FloatRange(0, min_open=True), callback=finite, metavar="USD",
              help="Stop before spending more; nearly all of it is used first.")  # fmt: skip
@click.option("--max-tokens", type=click.IntRange(1), help="Stop before using more tokens.")
@click.option("--max-records", type=click.IntRange(1), help="Stop after this many records.")
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1), help="For students: shards at once.")
@click.option("--retry-failed", is_flag=True,
              help="Take up exactly the failed rows of an existing table, by any judge; of a folder, the shards that "
              "have some, by the same judge.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what it will cost, and send nothing.")
@column_option
@output_options
def command(
    inputs: tuple[str, ...],
    out: str,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    columns: dict[str, str],
    **options: Any,
) -> int:
    """Label the records of INPUT... (files, folders, globs; - is stdin) with a judge.

    INPUT may be jsonl, jsonl.gz, jsonl.zst, csv or parquet, or a native evaluation log. Rows that cannot be labelled go
    to OUT.failed.jsonl with the reason, and the exit code is then 1. An interrupted run goes on where it stopped when
    the same command is given again; answers that were paid for are never paid twice.

    \b
    Examples:
      annotator label gsm8k.jsonl -o items.parquet --kind item
      annotator label corpus/ -o documents.parquet --kind document --processes 2
      annotator label corpus/ -o documents.parquet --kind document \\
          --judge openai:gpt-5-mini --max-cost 20 --dry-run
      annotator label corpus/ -o documents.parquet --kind document \\
          --judge openai:Qwen/Qwen3-8B --base-url http://localhost:8000/v1
    """
    limits = {name: options[name] for name in ("concurrency", "rpm", "tpm", "timeout_s")}
    judge = chosen_judge(options, asks=not dry_run, **limits)
    cutting = {"columns": columns, "max_input_tokens": options["max_input_tokens"], "chunks": options["chunks"]}
    _refuse_limits_of_students(judge, options)
    with stdin_as_file(inputs) as paths:
        if dry_run:
            from annotator.label import estimate

            forecast = estimate(paths, judge=judge, cache_dir=options["cache_dir"], **cutting).as_dict()
            emit(forecast, as_json=as_json, quiet=quiet, show=lambda: _show_forecast(forecast))
            return 0
        keep_inputs(out, *paths)
        summary = _label(paths, judge, out, options, cutting, quiet=quiet)
    emit(summary.as_dict(), as_json=as_json, quiet=quiet, show=lambda: show_labelling(summary))
    return 1 if summary.failed else 0


def _refuse_limits_of_students(judge: Any, options: dict[str, Any]) -> None:
    from annotator.errors import BadInput
    from annotator.judges import StudentJudge

    given = [name for name in ("max_cost", "max_tokens", "max_records") if options[name] is not None]
    if given and isinstance(judge, StudentJudge):
        what = "a student costs nothing and labels all that it is given"
        raise BadInput(what, where=f"--{given[0].replace('_', '-')}", remedy="Leave the limit out.")


def _label(paths: list[str], judge: Any, out: str, options: dict[str, Any], cutting: Any, *, quiet: bool) -> Any:
    from annotator.budget import Budget
    from annotator.label import label

    line = ProgressLine("labelling", quiet=quiet)
    try:
        return label(
            paths,
            out=out,
            judge=judge,
            cache_dir=options["cache_dir"],
            budget=Budget(
                max_cost_usd=options["max_cost"], max_tokens=options["max_tokens"], max_records=options["max_records"]
            ),
            processes=options["processes"],
            retry_failed=options["retry_failed"],
            progress=lambda now: line.update(now.done, now.total, progress_note(now)),
            **cutting,
        )
    finally:
        line.close()


def progress_note(now: Any) -> str:
    """What a labelling run has used so far: tokens, money, failures."""
    parts = []
    if now.input_tokens:
        parts.append(f"{(now.input_tokens + now.output_tokens) / 1000:,.0f}k tokens")
    if now.cost_usd is not None and now.input_tokens:
        parts.append(f"${now.cost_usd:,.2f}")
    if now.failed:
        parts.append(f"{now.failed:,} failed")
    return ", ".join(parts)


def _show_forecast(forecast: dict[str, Any]) -> None:
    print_table(["", "forecast"], _rows(forecast))
    if forecast["input_tokens"] and not forecast["measured_on"]:
        click.echo("The cache has no answer of this judge: tokens are estimates, without what a reasoning model thinks "
                   "to itself. After a run with --max-records 50 they are measured.")  # fmt: skip


def _rows(summary: dict[str, Any]) -> list[list[Any]]:
    return [[name.replace("_", " "), value] for name, value in summary.items() if value is not None]


def show_labelling(summary: Any) -> None:
    """Print what was labelled, what it cost, and what failed."""
    click.echo(f"{summary.labelled:,} of {summary.records:,} records labelled, {summary.cached:,} from the cache, "
               f"in {summary.seconds:,.1f} s -> {summary.out}")  # fmt: skip
    if summary.input_tokens:
        money = "" if summary.cost_usd is None else f", ${summary.cost_usd:,.4f}"
        click.echo(f"{summary.requests:,} requests, {summary.input_tokens:,} tokens in, "
                   f"{summary.output_tokens:,} out{money}")  # fmt: skip
    for note in summary.notes:
        click.echo(note)
    if summary.failed:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(summary.failures.items()))
        click.echo(f"{summary.failed:,} failed ({reasons}) -> {summary.failed_path}")
