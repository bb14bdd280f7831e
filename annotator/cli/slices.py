"""`annotator slices`: which groups of items really fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotator.cli.common import ProgressLine, column_option, columns_of, emit, keep_inputs, output_options, print_table


@click.command("slices")
@click.option("--items", required=True, multiple=True, metavar="INPUT", help="The evaluation items.")
@click.option("--labels", "labels_path", required=True, metavar="FILE", help="Their labels (annotator label).")
@click.option("--samples", required=True, multiple=True, metavar="INPUT", help="Outputs of the run in question.")
@click.option("--reference-samples", multiple=True, metavar="INPUT", help="Outputs of an earlier or better run.")
@click.option("--run", "run_name", metavar="NAME", help="Which run, where --samples holds several.")
@click.option("--reference-run", metavar="NAME", help="Which run, where --reference-samples holds several.")
@click.option("--out", "-o", required=True, metavar="FILE", help="The table of slices to write.")
@click.option("--metric", default="mean", show_default=True, help="mean, or pass@K.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Without a reference: the score that is expected.")
@click.option("--alpha", default=0.05, show_default=True, type=click.FloatRange(0, 1, min_open=True, max_open=True),
              help="Family-wise error over all slices.")  # fmt: skip
@click.option("--min-items", type=click.IntRange(2), help="Smallest slice (default: from the power of the test).")
@click.option("--by", "extra_columns", multiple=True, metavar="COLUMN", help="Also compare levels of this column.")
@column_option
@output_options
def command(
    items: tuple[str, ...], samples: tuple[str, ...], reference_samples: tuple[str, ...], labels_path: str, out: str,
    run_name: str | None, reference_run: str | None, columns: dict[str, str], quiet: bool, as_json: bool,
    **options: Any,
) -> int:  # fmt: skip
    """Find the capability slices that really fail.

    A slice is a group of items that share label values. With --reference-samples the question is where the run is worse
    than the reference; without, where it is below --threshold or below its own average. The summary says which question
    was answered.

    \b
    Example:
      annotator slices --items gsm8k.jsonl --labels items.parquet \\
          --samples after.jsonl --reference-samples before.jsonl -o slices.parquet
    """
    from annotator.readers import read_items, read_samples
    from annotator.scores import one_run
    from annotator.slices import find_slices
    from annotator.tables import LABELS, check_output, read_made_from, read_table, same_taxonomy, write_table

    check_output(Path(out))
    keep_inputs(out, *items, *samples, *reference_samples, labels_path)
    theirs = columns_of("samples", columns)
    reference = (
        one_run(read_samples(reference_samples, columns=theirs), run=reference_run) if reference_samples else None
    )
    line = ProgressLine("testing slices", quiet=quiet)
    labels = read_table(Path(labels_path), LABELS, made_by="annotator label")
    found = find_slices(
        read_items(items, columns=columns_of("items", columns)),
        labels,
        one_run(read_samples(samples, columns=theirs), run=run_name),
        reference=reference,
        progress=line.update,
        **options,
    )
    line.close()
    made_from = {"labels": read_made_from(Path(labels_path)), "taxonomy_version": same_taxonomy({labels_path: labels})}
    write_table(found.table, Path(out), made_from=made_from | found.summary)
    emit(found.summary | {"out": out}, as_json=as_json, quiet=quiet, show=lambda: _show(found, out))
    return 0


def _show(found: Any, out: str) -> None:
    show_slices(found.table, found.summary)
    click.echo(f"-> {out}")


def show_slices(table: Any, summary: dict[str, Any]) -> None:
    """Print the question that was answered and the failing slices, worst first."""
    click.echo(f"Failing slices. {summary['question_text']}")
    reference = summary.get("reference_score")
    compared = "" if reference is None else f", reference {reference:.3f}"
    click.echo(f"{summary['items_used']:,} items, score {summary['score']:.3f}{compared}")
    columns = ["slice_id", "items", "score", "reference_score", "deficit", "p_adjusted", "recoverable_points"]
    if table.height:
        print_table(columns, table.select(columns).rows())
    if summary.get("note"):
        click.echo(summary["note"])
