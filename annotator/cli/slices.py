"""`annotator slices`: which groups of items really fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from annotator.cli.common import (
    ProgressLine,
    column_option,
    columns_of,
    emit,
    keep_inputs,
    listed,
    output_options,
    print_table,
)
from annotator.errors import BadInput

SHOWN_VALUES = 20  # of a column
SHOWN_CHARACTERS = 60  # of a value


@click.command("slices")
@click.option("--items", required=True, multiple=True, metavar="INPUT", help="The evaluation items.")
@click.option("--labels", "labels_path", required=True, metavar="FILE", help="Their labels (annotator label).")
@click.option("--samples", required=True, multiple=True, metavar="INPUT", help="Outputs of the run in question.")
@click.option("--reference-samples", multiple=True, metavar="INPUT", help="Outputs of an earlier or better run.")
@click.option("--other-samples", multiple=True, metavar="INPUT",
              help="Without a reference: outputs of three or more other models, which say what to expect.")  # fmt: skip
@click.option("--run", "run_name", metavar="NAME", help="Which run, where --samples holds several.")
@click.option("--reference-run", metavar="NAME", help="Which run, where --reference-samples holds several.")
@click.option("--out", "-o", required=True, metavar="FILE", help="The table of slices to write.")
@click.option("--metric", default="mean", show_default=True, help="mean, pass@K, pass^K, g-pass@K:SHARE or maj@K.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Without a reference: the score that is expected.")
@click.option("--alpha", default=0.05, show_default=True, type=click.FloatRange(0, 1, min_open=True, max_open=True),
              help="Family-wise error over all slices.")  # fmt: skip
@click.option("--min-items", type=click.IntRange(2), help="Smallest slice (default: from the power of the test).")
@click.option("--by", "by", multiple=True, metavar="COLUMN[,COLUMN...]",
              help="Also compare the values of these columns of items or samples, such as language.")  # fmt: skip
@click.option("--agreement", "agreement_path", metavar="FILE",
              help="What `annotator agree -o` wrote for this judge: how often its labels are wrong.")  # fmt: skip
@column_option
@output_options
def command(
    items: tuple[str, ...], samples: tuple[str, ...], reference_samples: tuple[str, ...],
    other_samples: tuple[str, ...], labels_path: str, out: str, run_name: str | None, reference_run: str | None,
    by: tuple[str, ...], agreement_path: str | None, columns: dict[str, str], quiet: bool, as_json: bool,
    **options: Any,
) -> int:  # fmt: skip
    """Find the capability slices that really fail.

    A slice is a group of items that share label values. With --reference-samples the question is where the run is worse
    than the reference; without, where it is worse than --other-samples make us expect, or below --threshold, or below
    its own average. The summary says which question was answered.

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
    keep_inputs(out, *items, *samples, *reference_samples, *other_samples, labels_path, agreement_path or "")
    _one_question(reference_samples, other_samples, options["threshold"])
    further = list(dict.fromkeys(name for names in by for name in listed(names, "--by", "language,level")))
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
        other_runs=_other_runs(other_samples, theirs) if other_samples else None,
        extra_columns=further,
        agreement=_read_agreement(Path(agreement_path)) if agreement_path else None,
        progress=line.update,
        **options,
    )
    line.close()
    made_from = {"labels": read_made_from(Path(labels_path)), "taxonomy_version": same_taxonomy({labels_path: labels})}
    write_table(found.table, Path(out), made_from=made_from | found.summary)
    written = {"out": out}
    if by:
        name, dot, suffix = Path(out).name.partition(".")
        written["out_by_column"] = str(Path(out).with_name(f"{name}_by_column{dot}{suffix}"))
        write_table(found.by_column, Path(written["out_by_column"]), made_from=made_from)
    emit(found.summary | written, as_json=as_json, quiet=quiet, show=lambda: _show(found, written))
    return 0


def _one_question(reference: Sequence[str], others: Sequence[str], threshold: float | None) -> None:
    given = {"--reference-samples": reference, "--other-samples": others, "--threshold": threshold is not None}
    named = [name for name, value in given.items() if value]
    if len(named) > 1:
        what = f"{' and '.join(named)} ask different questions"
        raise BadInput(what, where="options", remedy="Give one of them; the summary says which question it answers.")


def _other_runs(inputs: Sequence[str], columns: dict[str, str]) -> Any:
    """Outputs of other models; a table that names no run is one run, called by its path."""
    import polars as pl

    from annotator.readers import read_samples
    from annotator.readers.columns import UNNAMED_RUN

    own = ("item_id", "run", "sample_index", "score")
    read = [read_samples([path], columns=columns) for path in inputs]
    return pl.concat(
        frame.select(column for column in (*own, "parsed_answer") if column in frame.columns).with_columns(
            run=pl.when(pl.col("run") == UNNAMED_RUN).then(pl.lit(path)).otherwise("run")
        )
        for path, frame in zip(inputs, read, strict=True)
    )


def _read_agreement(path: Path) -> dict[str, Any]:
    import orjson

    remedy = "Give the file that `annotator agree LABELS GOLD -o agreement.json` writes."
    try:
        found = orjson.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror or error})", where=str(path), remedy=remedy) from None
    except ValueError:
        raise BadInput("is not JSON", where=str(path), remedy=remedy) from None
    if not isinstance(found, dict) or not isinstance(found.get("axes"), dict):
        raise BadInput("holds no agreement of labels", where=str(path), remedy=remedy)
    return found


def _show(found: Any, written: dict[str, str]) -> None:
    show_slices(found.table, found.summary)
    if found.by_column.height:
        _show_by_column(found.by_column, written["out_by_column"])
    for path in written.values():
        click.echo(f"-> {path}")


def _show_by_column(table: Any, path: str) -> None:
    """Print each column's values, of a long one those with the largest deficits; `path` holds them all."""
    columns = ["value", "items", "score", "low", "high", "reference_score", "deficit", "p_adjusted"]
    click.echo("By the columns named, each value against the rest of its column:")
    for (name,), values in table.group_by(["column"], maintain_order=True):
        shown = values
        if values.height > SHOWN_VALUES:
            shown = values.sort("deficit", "value", descending=[True, False]).head(SHOWN_VALUES)
        rows = [[_shortened(row[0]), *row[1:]] for row in shown.select(columns).iter_rows()]
        print_table(columns, rows, title=name)
        if values.height > shown.height:
            click.echo(f"and {values.height - shown.height:,} more in {path}")
        if (values["items"] == 1).mean() > 0.5:
            click.echo(f"{name} separates nearly every item from the others: choose a column that groups them.")


def _shortened(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 3]}..."


def show_slices(table: Any, summary: dict[str, Any]) -> None:
    """Print the question that was answered and the failing slices, worst first."""
    click.echo(f"Failing slices. {summary['question_text']}")
    reference = summary.get("reference_score")
    compared = "" if reference is None else f", reference {reference:.3f}"
    unlabelled = summary.get("items_without_label")
    left_out = f"; {unlabelled:,} items without a label are left out" if unlabelled else ""
    click.echo(f"{summary['items_used']:,} items, score {summary['score']:.3f}{compared}{left_out}")
    columns = ["slice_id", "items", "score", "reference_score", "deficit", "p_adjusted", "recoverable_points"]
    if summary.get("guess_floor") is not None:
        columns.insert(3, "guess_floor")
    if table.height:
        print_table(columns, table.select(columns).rows())
    if summary.get("note"):
        click.echo(summary["note"])
