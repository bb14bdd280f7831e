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
    from annotator.scores import one_run
    from annotator.tables import LABELS, read_table, write_json, write_probe

    write_probe(Path(out).parent)
    keep_inputs(out, *items, *samples, *reference_samples)
    theirs = columns_of("samples", columns)
    reference = (
        one_run(read_samples(reference_samples, columns=theirs), run=reference_run) if reference_samples else None
    )
    line = ProgressLine("re-scoring", quiet=quiet)
    diagnosis = diagnose(
        read_items(items, columns=columns_of("items", columns)),
        one_run(read_samples(samples, columns=theirs), run=run_name),
        reference=reference,
        labels=read_table(Path(labels_path), LABELS, made_by="annotator label") if labels_path else None,
        progress=line.update,
    )
    line.close()
    write_json(Path(out), diagnosis)
    emit(diagnosis, as_json=as_json, quiet=quiet, show=lambda: _show(diagnosis, out))
    return 0


def _show(diagnosis: dict[str, Any], out: str) -> None:
    show_verdict(diagnosis)
    triggered = [cause for cause in diagnosis["causes"] if cause["triggered"]]
    if triggered:
        print_table(
            ["cause", "recovered share"], [[found["id"], _share(found["recovered_share"])] for found in triggered]
        )
    click.echo(f"-> {out}")


def show_verdict(diagnosis: dict[str, Any]) -> None:
    """Print the verdict, the leading cause and the advice."""
    cause = f", leading cause: {diagnosis['cause']}" if diagnosis["cause"] else ""
    click.echo(f"Diagnosis: {diagnosis['verdict']}{cause}")
    advice = diagnosis["advice"]
    click.echo("\n".join(advice) if isinstance(advice, list) else advice)


def _share(recovered: Any) -> str:
    if isinstance(recovered, dict) and recovered.get("estimate") is not None:
        return f"{recovered['estimate']:.2f} [{recovered['low']:.2f}, {recovered['high']:.2f}]"
    return "" if recovered is None or isinstance(recovered, dict) else f"{recovered:.2f}"
