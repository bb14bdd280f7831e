"""`annotator categories`: what a labelled corpus holds."""

from __future__ import annotations

from pathlib import Path

import click

from annotator.cli.common import column_option, emit, listed, output_options, print_table, taxonomy_option
from annotator.cli.matching import labels_option, open_corpus, rules_option, tokenizer_option

SHOWN = 25


@click.command("categories")
@labels_option
@click.option("--documents", multiple=True, metavar="INPUT", help="The documents, for their token counts.")
@click.option("--matches", "matches_path", metavar="FILE", help="Matches: adds the supply gap of each category.")
@click.option("--by", metavar="COLUMNS", help="Also tell them by these columns: source, lang, quality, or your own.")
@tokenizer_option
@rules_option
@click.option("--out", "-o", metavar="FILE", help="Also write the table.")
@column_option
@taxonomy_option
@output_options
def command(
    labels_path: str | None, documents: tuple[str, ...], matches_path: str | None, by: str | None,
    tokenizer_path: str | None, rules_path: str | None, out: str | None, columns: dict[str, str],
    taxonomy_path: str | None, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Show the corpus as categories (operation x background x task), the largest first.

    The supply gap, with --matches, is the share of the recoverable points that slices want from such text, over the
    share of the corpus that serves them: above 2 the corpus is short of it.

    \b
    Example:
      annotator categories --document-labels documents.parquet --documents corpus/ --matches matches.parquet
    """
    from annotator.categories import categories
    from annotator.tables import MATCHES, check_output, read_table, write_table

    if out:
        check_output(Path(out))
    further = tuple(listed(by, "--by", "source,lang"))
    corpus = open_corpus(
        labels_path=labels_path, rules_path=rules_path, taxonomy_path=taxonomy_path, columns=columns,
        tables=[matches_path] if matches_path else [], tokenizer_path=tokenizer_path,
    )  # fmt: skip
    table = categories(
        corpus.labels,
        rules=corpus.rules,
        documents=corpus.scan(documents, also=further),
        matches=read_table(Path(matches_path), MATCHES, made_by="annotator match") if matches_path else None,
        by=further,
    )
    if out:
        write_table(table, Path(out), made_from=corpus.made_from())
    emit({"categories": table.to_dicts()}, as_json=as_json, quiet=quiet,
         show=lambda: print_table(table.columns, table.head(SHOWN).rows()))  # fmt: skip
    return 0
