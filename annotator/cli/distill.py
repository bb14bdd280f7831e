"""`annotator distill`: a student judge from labels that a larger judge made."""

from __future__ import annotations

from pathlib import Path

import click

from annotator.cli.common import ProgressLine, column_option, emit, output_options, taxonomy_option


@click.command("distill")
@click.argument("labels_path", metavar="LABELS")
@click.option("--text", "inputs", required=True, multiple=True, metavar="INPUT", help="The records that were labelled.")
@click.option("--out", "-o", required=True, metavar="DIR", help="Folder of the student.")
@click.option(
    "--accurate",
    is_flag=True,
    help="Let the student also see sentence embeddings (extra: accurate): better on unseen sources, but "
    "about a hundred times slower.",
)
@column_option
@taxonomy_option
@output_options
def command(
    labels_path: str, inputs: tuple[str, ...], out: str, accurate: bool, columns: dict[str, str],
    taxonomy_path: str | None, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Train a student on LABELS, to label the rest of a corpus on a CPU.

    The student's card says how well it agrees with the labels on records, and on whole sources, that it has not seen;
    `annotator judge info student:DIR` shows it again. A few hundred labels a side are the least that makes sense; the
    learning curve, kappa with a quarter, half, three quarters and all of the labels, says when to stop paying.

    \b
    Example:
      annotator distill sample.parquet --text sample.jsonl -o student/
      annotator label corpus/ -o labels.parquet --kind document --judge student:student/
    """
    from annotator.cli.judge import show_card
    from annotator.distill import distill, measure_speed, texts_of, written_examples
    from annotator.tables import LABELS, read_table, same_taxonomy, write_probe
    from annotator.taxonomy import load_taxonomy

    write_probe(Path(out))
    labels = read_table(Path(labels_path), LABELS, made_by="annotator label")
    same_taxonomy({labels_path: labels})
    texts = texts_of(labels, inputs, columns=columns)
    line = ProgressLine("distilling, fits", quiet=quiet)
    try:
        distill(
            labels,
            texts,
            taxonomy=load_taxonomy(taxonomy_path),
            out=Path(out),
            data=f"{labels.height:,} labels of {Path(labels_path).name}",
            examples=written_examples(),
            accurate=accurate,
            progress=line.update,
        )
    finally:
        line.close()
    card = measure_speed(Path(out), labels, texts)
    emit(card, as_json=as_json, quiet=quiet, show=lambda: show_card(card))
    return 0
