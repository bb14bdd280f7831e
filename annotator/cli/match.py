"""`annotator match`: failing slices and corpus categories, linked by written rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotator.cli.common import column_option, emit, keep_inputs, output_options, print_table, taxonomy_option

SHOWN_PER_SLICE = 3


@click.command("match")
@click.option("--slices", "slices_path", required=True, metavar="FILE", help="Failing slices (annotator slices).")
@click.option("--document-labels", "labels_path", required=True, metavar="FILE", help="Labels of the documents.")
@click.option(
    "--item-labels",
    "item_labels_path",
    metavar="FILE",
    help="Labels of the items: axes that a slice leaves open are then judged by the mix of its items.",
)
@click.option("--documents", multiple=True, metavar="INPUT", help="The documents, for their sources and token counts.")
@click.option("--rules", "rules_path", metavar="FILE", help="Your own mapping rules.")
@click.option("--out", "-o", required=True, metavar="FILE", help="The table of matches to write.")
@column_option
@taxonomy_option
@output_options
def command(
    slices_path: str,
    item_labels_path: str | None, labels_path: str, documents: tuple[str, ...], rules_path: str | None, out: str,
    columns: dict[str, str], taxonomy_path: str | None, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Link each failing slice to the corpus categories that teach or exercise what it demands.

    No model is asked: the rules in schemas/mapping.toml decide, and every match names the rules that made it. A slice
    that the corpus has nothing for is said plainly.

    \b
    Example:
      annotator match --slices slices.parquet --document-labels documents.parquet -o matches.parquet
    """
    from annotator.mapping import load_rules
    from annotator.match import match
    from annotator.readers import document_frame
    from annotator.tables import (
        SLICES,
        agree_on_taxonomy,
        check_output,
        read_labels,
        read_made_from,
        read_table,
        same_taxonomy,
        write_table,
    )
    from annotator.taxonomy import load_taxonomy

    check_output(Path(out))
    keep_inputs(out, slices_path, labels_path, *documents)
    taxonomy = load_taxonomy(taxonomy_path)
    rules = load_rules(rules_path, taxonomy=taxonomy)
    labels = read_labels(Path(labels_path), "document")
    agree_on_taxonomy(
        {
            "the taxonomy": taxonomy.version,
            slices_path: read_made_from(Path(slices_path)).get("taxonomy_version"),
            labels_path: same_taxonomy({labels_path: labels}),
        }
    )
    found = match(
        read_table(Path(slices_path), SLICES, made_by="annotator slices"),
        labels,
        rules=rules,
        taxonomy=taxonomy,
        documents=document_frame(documents, columns=columns) if documents else None,
        item_labels=read_labels(Path(item_labels_path), "item") if item_labels_path else None,
    )
    made_from = {"rules": rules.fingerprint, "taxonomy": taxonomy.fingerprint, "taxonomy_version": taxonomy.version}
    write_table(found.table, Path(out), made_from=made_from)
    emit(found.summary | {"out": out}, as_json=as_json, quiet=quiet, show=lambda: _show(found, out))
    return 0


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
