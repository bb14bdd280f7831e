"""`annotator decontaminate`: documents that quote benchmark items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotator.cli.common import ProgressLine, column_option, emit, keep_inputs, output_options, print_table

SHOWN = 10


@click.command("decontaminate")
@click.argument("documents", nargs=-1, required=True, metavar="DOCUMENTS...")
@click.option("--items", required=True, multiple=True, metavar="INPUT", help="All benchmark items that matter.")
@click.option("--threshold", default=0.5, show_default=True, type=click.FloatRange(0, 1),
              help="Share of an item, rare words weighing more, that a document may hold.")  # fmt: skip
@click.option("--only", metavar="FILE", help="Look at the documents of this table alone (annotator rank).")
@click.option("--paraphrases", is_flag=True,
              help="Also look for reworded questions, 10 documents a second; needs annotator[accurate].")  # fmt: skip
@click.option("--out", "-o", required=True, metavar="FILE", help="The table of hits to write.")
@column_option
@output_options
def command(
    documents: tuple[str, ...], items: tuple[str, ...], threshold: float, only: str | None, paraphrases: bool, out: str,
    columns: dict[str, str], quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Find the documents that share long word sequences with benchmark items, and say where.

    Documents without a hit are n-gram-clean; paraphrases are found with --paraphrases alone, and not all of them.

    \b
    Examples:
      annotator decontaminate corpus/ --items gsm8k.jsonl --items math.jsonl -o hits.parquet
      annotator decontaminate corpus/ --items gsm8k.jsonl --only upsample.parquet --paraphrases -o hits.parquet
    """
    from annotator.decontaminate import decontaminate
    from annotator.readers import read_items
    from annotator.tables import check_output, read_table, write_table

    check_output(Path(out))
    keep_inputs(out, *documents, *items, *filter(None, [only]))
    chosen = read_table(Path(only), {"doc_id": str}, made_by="annotator rank")["doc_id"].to_list() if only else None
    line = ProgressLine("comparing", quiet=quiet)
    found = decontaminate(
        list(documents), read_items(items), threshold=threshold, only=chosen, paraphrases=paraphrases, columns=columns,
        progress=line.update,
    )  # fmt: skip
    line.close()
    write_table(found.hits, Path(out), made_from={"threshold": threshold, "paraphrases": paraphrases})
    emit(found.summary | {"out": out}, as_json=as_json, quiet=quiet, show=lambda: _show(found, out))
    return 0


def _show(found: Any, out: str) -> None:
    summary = found.summary
    click.echo(f"{summary['flagged_documents']:,} of {summary['documents']:,} documents quote one of "
               f"{summary['items']:,} items. The others are {summary['statement']}.")  # fmt: skip
    columns = ["doc_id", "item_id", "part", "rule", "coverage", "span"]
    if found.hits.height:
        print_table(columns, found.hits.sort("coverage", descending=True).head(SHOWN).select(columns).rows())
    click.echo(f"-> {out}")
