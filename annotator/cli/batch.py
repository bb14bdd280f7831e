"""`annotator batch`: labels through the OpenAI Batch API, or through files for any other runner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from annotator.cli.common import F, ProgressLine, column_option, emit, keep_inputs, output_options, print_table
from annotator.cli.judging import chosen_judge, judge_options
from annotator.cli.label import progress_note, show_labelling
from annotator.errors import BadInput

ledger_option = click.option(
    "--ledger", default="batches", show_default=True, metavar="DIR", help="Folder that remembers what was submitted."
)


def _record_options(function: F) -> F:
    """INPUT... and everything that names the judge."""
    for option in (output_options, column_option, judge_options):
        function = option(function)
    return click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")(function)


@click.group("batch")
def command() -> None:
    """Label through batches: about half the price, answered within a day.

    \b
    Through the OpenAI Batch API:
      annotator batch submit corpus/ --kind document --judge openai:gpt-5-mini
      annotator batch status --kind document --judge openai:gpt-5-mini
      annotator batch collect corpus/ -o labels.parquet --kind document --judge openai:gpt-5-mini

    \b
    Through files, for vllm run-batch or any other runner:
      annotator batch submit corpus/ --to-file requests.jsonl --kind document --judge openai:Qwen/Qwen3-8B
      vllm run-batch -i requests.jsonl -o answers.jsonl --model Qwen/Qwen3-8B
      annotator batch collect corpus/ --from-file answers.jsonl -o labels.parquet \\
          --kind document --judge openai:Qwen/Qwen3-8B
    """


@command.command("submit")
@_record_options
@ledger_option
@click.option("--to-file", metavar="FILE", help="Write the requests to FILE instead of submitting them.")
def submit_(
    inputs: Sequence[str], ledger: str, to_file: str | None, columns: dict[str, str], quiet: bool, as_json: bool,
    **options: Any,
) -> int:  # fmt: skip
    """Hand in every record that neither the cache nor an earlier batch answers. Safe to repeat after a crash."""
    from annotator import batch

    judge = _chat_judge(options, asks=not to_file)
    cutting = {"columns": columns} | {name: options[name] for name in ("max_input_tokens", "chunks", "cache_dir")}
    if to_file:
        keep_inputs(to_file, *inputs)
        count = batch.to_file(inputs, to_file, judge=judge, **cutting)
        emit({"requests": count, "file": to_file}, as_json=as_json, quiet=quiet,
             show=lambda: click.echo(f"{count:,} requests -> {to_file}"))  # fmt: skip
        return 0
    entries = batch.submit(inputs, judge=judge, ledger=ledger, **cutting)
    _emit_entries(entries, as_json=as_json, quiet=quiet)
    return 0


@command.command("status")
@judge_options
@ledger_option
@output_options
def status_(ledger: str, quiet: bool, as_json: bool, **options: Any) -> int:
    """Ask how the batches of the ledger stand."""
    from annotator import batch

    _emit_entries(batch.status(judge=_chat_judge(options), ledger=ledger), as_json=as_json, quiet=quiet)
    return 0


@command.command("collect")
@_record_options
@ledger_option
@click.option("--from-file", "files", multiple=True, metavar="FILE", help="Result files instead of the provider.")
@click.option("--out", "-o", required=True, metavar="PATH", help="Label table to write.")
def collect_(
    inputs: Sequence[str], ledger: str, files: Sequence[str], out: str, columns: dict[str, str], quiet: bool,
    as_json: bool, **options: Any,
) -> int:  # fmt: skip
    """Read the answers into the cache and write the labels. Rows without an answer are failed rows with the reason."""
    from annotator import batch

    keep_inputs(out, *inputs)
    line = ProgressLine("labelling", quiet=quiet)
    settings = {
        "out": Path(out),
        "judge": _chat_judge(options, asks=not files),
        "cache_dir": options["cache_dir"],
        "columns": columns,
        "max_input_tokens": options["max_input_tokens"],
        "chunks": options["chunks"],
        "progress": lambda now: line.update(now.done, now.total, progress_note(now)),
    }
    try:
        if files:
            collected, summary = batch.from_file(files, inputs, **settings)
        else:
            collected, summary = batch.collect(inputs, ledger=ledger, **settings)
    finally:
        line.close()
    counts = {"answers": collected.answers, "failures": dict(collected.failures), "unknown": collected.unknown}
    emit(counts | summary.as_dict(), as_json=as_json, quiet=quiet, show=lambda: show_labelling(summary))
    return 1 if summary.failed else 0


def _chat_judge(options: dict[str, Any], *, asks: bool = True) -> Any:
    specs = options["specs"]
    if len(specs) > 1 or options["votes"] > 1 or not specs[0].startswith("openai:"):
        what = "votes" if len(specs) > 1 or options["votes"] > 1 else repr(specs[0])
        remedy = "Give one --judge openai:MODEL; a student labels at once, without batches."
        raise BadInput(f"{what} cannot be asked in batches", where="--judge", remedy=remedy)
    return chosen_judge(options, asks=asks)


def _emit_entries(entries: Sequence[Any], *, as_json: bool, quiet: bool) -> None:
    columns = ("requests", "lines", "status", "batch_id", "collected")
    rows = [[getattr(entry, name) for name in columns] for entry in entries]
    batches = [dict(zip(columns, row, strict=True)) for row in rows]
    emit({"batches": batches}, as_json=as_json, quiet=quiet, show=lambda: print_table(columns, rows))
