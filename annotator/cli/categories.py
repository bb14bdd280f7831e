"""`annotator categories`: what a labelled corpus holds."""

from __future__ import annotations

from pathlib import Path

import click

from annotator.cli.common import column_option, emit, output_options, print_table, taxonomy_option

SHOWN = 25


@click.command("categories")
@click.option("--document-labels", "labels_path", required=True, metavar="FILE", help="Labels of the documents.")
@click.option("--documents", multiple=True, metavar="INPUT", help="The documents, for their token counts.")
@click.option("--matches", "matches_path", metavar="FILE", help="Matches: adds the supply gap of each category.")
@click.option("--rules", "rules_path", metavar="FILE", help="Your own mapping rules.")
@click.option("--out", "-o", metavar="FILE", help="Also write the table.")
@column_option
@taxonomy_option
@output_options
def command(
    labels_path: str, documents: tuple[str, ...], matches_path: str | None, rules_path: str | None, out: str | None,
    columns: dict[str, str], taxonomy_path: str | None, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Show the corpus as categories (operation x background x task), the largest first.

    \b
    Example:
      annotator categories --document-labels documents.parquet --documents corpus/ --matches matches.parquet
    """
    from annotator.categories import categories
    from annotator.mapping import load_rules
    from annotator.readers import document_frame
    from annotator.tables import LABELS, MATCHES, read_table, write_table
    from annotator.taxonomy import load_taxonomy

    rules = load_rules(rules_path, taxonomy=load_taxonomy(taxonomy_path))
    table = categories(
        read_table(Path(labels_path), LABELS, made_by="annotator label"),
        rules=rules,
        documents=document_frame(documents, columns=columns) if documents else None,
        matches=read_table(Path(matches_path), MATCHES, made_by="annotator match") if matches_path else None,
    )
    if out:
        write_table(table, Path(out), made_from={"rules": rules.fingerprint})
    emit({"categories": table.to_dicts()}, as_json=as_json, quiet=quiet,
         show=lambda: print_table(table.columns, table.head(SHOWN).rows()))  # fmt: skip
    return 0
