"""`annotator match`: failing slices and corpus categories, linked by written rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotator.cli.common import column_option, emit, keep_inputs, output_options, print_table, taxonomy_option
from annotator.cli.matching import labels_option, open_corpus, rules_option, tokenizer_option
from annotator.errors import BadInput

SHOWN_PER_SLICE = 3


@click.command("match")
@click.option("--slices", "slices_path", required=True, metavar="FILE", help="Failing slices (annotator slices).")
@labels_option
@click.option(
    "--item-labels",
    "item_labels_path",
    metavar="FILE",
    help="Labels of the items: axes that a slice leaves open are then judged by the mix of its items.",
)
@click.option("--documents", multiple=True, metavar="INPUT", help="The documents, for their sources and token counts.")
@click.option(
    "--mixtures", nargs=2, metavar="BEFORE AFTER",
    help="Two tables of source and share: do slices fail where the second mixture holds less of what serves them?",
)  # fmt: skip
@tokenizer_option
@rules_option
@click.option("--out", "-o", required=True, metavar="FILE", help="The table of matches to write.")
@column_option
@taxonomy_option
@output_options
def command(
    slices_path: str, item_labels_path: str | None, labels_path: str | None, documents: tuple[str, ...],
    mixtures: tuple[str, str] | None, tokenizer_path: str | None, rules_path: str | None, out: str,
    columns: dict[str, str], taxonomy_path: str | None, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Link each failing slice to the corpus categories that teach or exercise what it demands.

    No model is asked: the rules in schemas/mapping.toml decide, and every match names the rules that made it. A slice
    that the corpus has nothing for is said plainly. A corpus that carries labels of its own needs none of ours: with
    --rules weborganizer or --rules essential-web, give --documents and no labels.

    \b
    Example:
      annotator match --slices slices.parquet --document-labels documents.parquet -o matches.parquet
    """
    from annotator.match import match
    from annotator.tables import SLICES, check_output, read_labels, read_table, write_table

    check_output(Path(out))
    keep_inputs(out, *filter(None, [slices_path, labels_path, item_labels_path]), *documents)
    corpus = open_corpus(
        labels_path=labels_path, rules_path=rules_path, taxonomy_path=taxonomy_path, columns=columns,
        tables=[slices_path], tokenizer_path=tokenizer_path,
    )  # fmt: skip
    slices = read_table(Path(slices_path), SLICES, made_by="annotator slices")
    if not slices.height:
        remedy = "Nothing is wanted of the corpus, unless `annotator slices` finds one with more items or outputs."
        raise BadInput("holds no failing slice", where=slices_path, remedy=remedy)
    found = match(
        slices,
        corpus.labels,
        rules=corpus.rules,
        taxonomy=corpus.taxonomy,
        documents=corpus.scan(documents),
        item_labels=read_labels(Path(item_labels_path), "item") if item_labels_path else None,
        mixtures=_mixtures(*mixtures, documents=documents) if mixtures else None,
    )
    write_table(found.table, Path(out), made_from=corpus.made_from(inputs=found.summary["inputs"]))
    emit(found.summary | {"out": out}, as_json=as_json, quiet=quiet, show=lambda: _show(found, out))
    return 0


def _mixtures(before: str, after: str, *, documents: tuple[str, ...]) -> tuple[dict[str, float], dict[str, float]]:
    from annotator.matching.dose import read_mixture
    from annotator.tables import read_table

    if not documents:
        raise BadInput("are missing", where="--documents", remedy="Mixtures are of sources, which the documents name.")
    tables = [read_table(Path(path), {}, made_by="your own hand") for path in (before, after)]
    first, second = (read_mixture(table, where=path) for table, path in zip(tables, (before, after), strict=True))
    return first, second


def _show(found: Any, out: str) -> None:
    show_matches(found.table, found.summary)
    click.echo(f"-> {out}")


def show_matches(table: Any, summary: dict[str, Any]) -> None:
    """Print the best categories of each slice, and the slices that the corpus has nothing for."""
    import polars as pl

    click.echo("Corpus categories that serve them, by written rules")
    columns = ["slice_id", "category_id", "affinity", "documents", "tokens", "supply_gap", "rule_ids"]
    by_supply = table.sort("affinity", "documents", "category_id", descending=[True, True, False], maintain_order=True)
    order = table["slice_id"].unique(maintain_order=True)
    best = pl.DataFrame({"slice_id": order}).join(by_supply, on="slice_id", maintain_order="left")
    best = best.group_by("slice_id", maintain_order=True).head(SHOWN_PER_SLICE).select(columns)
    if best.height:
        print_table(columns, best.rows())
    for missing in summary.get("unmatched", ()):
        click.echo(f"{missing['slice_id']}: nothing to upsample ({missing['reason']}). {missing['wanted']}")
    if summary.get("dose_response"):
        click.echo(summary["dose_response"]["note"])
