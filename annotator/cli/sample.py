"""`annotator sample`: which records an LLM should label next."""

from __future__ import annotations

from pathlib import Path

import click

from annotator.cli.common import column_option, emit, keep_inputs, output_options, stdin_as_file, taxonomy_option


@click.command("sample")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--out", "-o", required=True, metavar="FILE", help="Table of the chosen records (.parquet, .jsonl, ...).")
@click.option("--kind", type=click.Choice(["item", "document"]), required=True, help="What the records are.")
@click.option("--count", "-n", default=2000, show_default=True, type=click.IntRange(1), help="How many to choose.")
@click.option(
    "--strategy",
    default="stratified",
    show_default=True,
    type=click.Choice(["uncertainty", "diverse", "stratified"]),
    help="How to choose; see above.",
)
@click.option("--labelled", multiple=True, metavar="LABELS", help="Tables of labels that exist already: not again.")
@click.option(
    "--judge",
    "spec",
    default="embedded",
    show_default=True,
    metavar="SPEC",
    help="embedded, embedded:accurate or student:PATH: whose uncertainty counts.",
)
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(["source", "host", "length"]),
    default=("source", "length"),
    show_default=True,
    help="Strata of --strategy stratified; may be repeated.",
)
@column_option
@taxonomy_option
@output_options
def command(
    inputs: tuple[str, ...], out: str, kind: str, count: int, strategy: str, labelled: tuple[str, ...], spec: str,
    by: tuple[str, ...], columns: dict[str, str], taxonomy_path: str | None, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Choose the records of INPUT... that an LLM should label next; `label` takes the table at once.

    \b
    stratified   as many of every source and length (--by) as of any other
    diverse      far from each other in the student's features (k-means++)
    uncertainty  of twice as many as asked for, the student's least sure: those that diverse takes

    Is it worth it? A little. Measured on this project's reference labels (train on silver, kappa on dev, mean over the
    axes; standard error over three draws), labels chosen so rather than at random gave:

    \b
                   450 documents (150 first)   250 items (100 first)
      uncertainty      +0.012 ± 0.004            +0.029 ± 0.013
      stratified       +0.008 ± 0.009            +0.020 ± 0.011
      diverse          +0.003 ± 0.006            +0.021 ± 0.012
    Taking simply the least sure gave -0.016 ± 0.009 and +0.009 ± 0.023: no better than random, so it is not offered.

    The same records come out whatever the order of rows and the split into shards. Records in --labelled are left out.

    \b
    Example:
      annotator sample corpus/ -n 2000 --kind document --labelled labels.parquet -o next.parquet
      annotator label next.parquet --kind document --judge openai:gpt-5-mini -o more.parquet
      annotator distill more.parquet --text next.parquet -o student/
    """
    from annotator.sample import sample
    from annotator.tables import check_output, write_table

    check_output(Path(out))
    with stdin_as_file(inputs) as paths:
        keep_inputs(out, *paths, *labelled)
        found = sample(
            paths,
            kind=kind,  # type: ignore[arg-type]
            count=count,
            strategy=strategy,
            judge=_student(spec, kind, taxonomy_path) if strategy == "uncertainty" else None,
            labelled=_ids(labelled),
            by=by,
            columns=columns,
        )
    write_table(found.records, Path(out), made_from={"step": "sample", "strategy": strategy})
    summary = found.as_dict() | {"strategy": strategy, "out": out}

    def show() -> None:
        left = f"{found.labelled:,} labelled already, {found.repeated:,} repeat another's text"
        click.echo(f"{found.records.height:,} of {found.read:,} records chosen ({left}) -> {out}")

    emit(summary, as_json=as_json, quiet=quiet, show=show)
    return 0


def _student(spec: str, kind: str, taxonomy_path: str | None) -> object:
    from annotator.errors import BadInput
    from annotator.judges.columns import open_student
    from annotator.taxonomy import load_taxonomy

    if spec.partition(":")[0] not in ("embedded", "student"):
        remedy = "Give embedded, embedded:accurate or student:PATH."
        raise BadInput(f"{spec!r} has no probabilities to be unsure by", where="--judge", remedy=remedy)
    return open_student(spec, kind=kind, taxonomy=load_taxonomy(taxonomy_path))  # type: ignore[arg-type]


def _ids(tables: tuple[str, ...]) -> set[str]:
    """The ids of records that have a label in some tables; failed rows have none."""
    import polars as pl

    from annotator.tables import read_table

    found: set[str] = set()
    for path in tables:
        table = read_table(Path(path), {"record_id": pl.String}, made_by="annotator label")
        if "status" in table.columns:
            table = table.filter(pl.col("status") == "ok")
        found.update(table["record_id"].drop_nulls())
    return found
