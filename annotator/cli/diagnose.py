"""`annotator diagnose`: whether data can be the cause at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotator.cli.common import ProgressLine, column_option, columns_of, emit, keep_inputs, output_options, print_table


@click.command("diagnose")
@click.option("--items", required=True, multiple=True, metavar="INPUT", help="The evaluation items.")
@click.option("--samples", required=True, multiple=True, metavar="INPUT", help="Raw outputs of the run in question.")
@click.option("--reference-samples", multiple=True, metavar="INPUT", help="Raw outputs of an earlier or better run.")
@click.option("--labels", "labels_path", metavar="FILE", help="Labels of the items, for the shape of the drop.")
@click.option("--run", "run_name", metavar="NAME", help="Which run, where --samples holds several.")
@click.option("--reference-run", metavar="NAME", help="Which run, where --reference-samples holds several.")
@click.option("--out", "-o", default="diagnosis.json", show_default=True, metavar="FILE", help="Where to write it.")
@column_option
@output_options
def command(
    items: tuple[str, ...], samples: tuple[str, ...], reference_samples: tuple[str, ...], labels_path: str | None,
    run_name: str | None, reference_run: str | None, out: str, columns: dict[str, str], quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Say whether training data can be the cause of a low score: data, not_data, or inconclusive.

    Looks for what else explains the drop (prompt and version drift, missing stop, generation cap, answer extraction,
    ...) by re-scoring both runs with the same rule, and says how much of the drop each cause recovers.

    \b
    Example:
      annotator diagnose --items bbh.jsonl --samples after.jsonl --reference-samples before.jsonl
    """
    from annotator.diagnose import diagnose
    from annotator.readers import read_items, read_samples
    from annotator.tables import LABELS, read_table, write_json, write_probe

    write_probe(Path(out).parent)
    keep_inputs(out, *items, *samples, *reference_samples)
    theirs = columns_of("samples", columns)
    line = ProgressLine("re-scoring", quiet=quiet)
    diagnosis = diagnose(
        read_items(items, columns=columns_of("items", columns)),
        read_samples(samples, columns=theirs),
        reference=read_samples(reference_samples, columns=theirs) if reference_samples else None,
        run=run_name,
        reference_run=reference_run,
        labels=read_table(Path(labels_path), LABELS, made_by="annotator label") if labels_path else None,
        progress=line.update,
    )
    line.close()
    write_json(Path(out), diagnosis)
    emit(diagnosis, as_json=as_json, quiet=quiet, show=lambda: _show(diagnosis, out))
    return 0


def _show(diagnosis: dict[str, Any], out: str) -> None:
    show_verdict(diagnosis)
    scores = diagnosis["scores"]
    if scores["reference"] is not None:
        drop = _with_interval({"estimate": diagnosis["drop"], **diagnosis["drop_interval"]})
        click.echo(
            f"{diagnosis['items_used']:,} items, score {scores['here']:.3f}, reference {scores['reference']:.3f}, "
            f"drop {drop}"
        )
        click.echo(diagnosis["summary"])
    triggered = [cause for cause in diagnosis["causes"] if cause["triggered"]]
    if triggered:
        print_table(
            ["cause", "recovered share"],
            [[found["id"], _with_interval(found["recovered_share"])] for found in triggered],
        )
    click.echo(f"-> {out}")


def show_verdict(diagnosis: dict[str, Any]) -> None:
    """Print the verdict, the leading cause and the advice."""
    cause = f", leading cause: {diagnosis['cause']}" if diagnosis["cause"] else ""
    click.echo(f"Diagnosis: {diagnosis['verdict']}{cause}")
    click.echo("\n".join(diagnosis["advice"]))


def _with_interval(found: dict[str, float | None] | None) -> str:
    if not found or found["estimate"] is None:
        return ""
    ends = [found[end] for end in ("low", "high")]
    interval = "" if None in ends else f" [{ends[0]:.2f}, {ends[1]:.2f}]"
    return f"{found['estimate']:.2f}{interval}"
