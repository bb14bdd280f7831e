"""`annotator rank`: documents for upsampling under a token budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotator.cli.common import (
    ProgressLine,
    column_option,
    emit,
    keep_inputs,
    output_options,
    print_table,
    taxonomy_option,
)

SHOWN = 10


@click.command("rank")
@click.option("--matches", "matches_path", required=True, metavar="FILE", help="Matches (annotator match).")
@click.option("--document-labels", "labels_path", required=True, metavar="FILE", help="Labels of the documents.")
@click.option("--documents", required=True, multiple=True, metavar="INPUT", help="The documents themselves.")
@click.option("--items", required=True, multiple=True, metavar="INPUT",
              help="All benchmark items: documents that quote them are left out.")  # fmt: skip
@click.option(
    "--slices", "slices_path", metavar="FILE", help="The slices: stricter about the benchmarks they came from."
)
@click.option(
    "--budget-tokens", required=True, type=click.IntRange(1, 2**63 - 1), help="Tokens to add, repeats included."
)
@click.option("--max-repeats", default=4, show_default=True, type=click.IntRange(1), help="Passes over one document.")
@click.option("--locate", is_flag=True, help="Fill the columns shard and row; they depend on how the corpus is split.")
@click.option("--rules", "rules_path", metavar="FILE", help="Your own mapping rules.")
@click.option("--out", "-o", required=True, metavar="FILE", help="The ranked list; OUT.dropped.parquet is beside it.")
@column_option
@taxonomy_option
@output_options
def command(
    matches_path: str, labels_path: str, documents: tuple[str, ...], items: tuple[str, ...], slices_path: str | None,
    budget_tokens: int, max_repeats: int, locate: bool, rules_path: str | None, out: str, columns: dict[str, str],
    taxonomy_path: str | None, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Rank documents by expected gain per token, and choose within the budget.

    Every chosen document names its slices and rules; every other one is in OUT.dropped.parquet with a reason. Documents
    that share long word sequences with any of --items are left out: the list is n-gram-clean, which is not a promise
    that no paraphrase is left.

    \b
    Example:
      annotator rank --matches matches.parquet --document-labels documents.parquet --documents corpus/ \\
          --items gsm8k.jsonl --items math.jsonl --budget-tokens 2000000000 -o upsample.parquet
    """
    from annotator.mapping import load_rules
    from annotator.rank import rank
    from annotator.readers import read_items
    from annotator.tables import (
        MATCHES,
        SLICES,
        agree_on_taxonomy,
        beside,
        check_output,
        read_labels,
        read_made_from,
        read_table,
        same_taxonomy,
        write_table,
    )
    from annotator.taxonomy import load_taxonomy

    check_output(Path(out))
    keep_inputs(out, matches_path, labels_path, *documents, *items, *([slices_path] if slices_path else ()))
    taxonomy = load_taxonomy(taxonomy_path)
    rules = load_rules(rules_path, taxonomy=taxonomy)
    line = ProgressLine("ranking", quiet=quiet)
    labels = read_labels(Path(labels_path), "document")
    agree_on_taxonomy(
        {
            "the taxonomy": taxonomy.version,
            matches_path: read_made_from(Path(matches_path)).get("taxonomy_version"),
            labels_path: same_taxonomy({labels_path: labels}),
        }
    )
    ranking = rank(
        read_table(Path(matches_path), MATCHES, made_by="annotator match"),
        labels,
        list(documents),
        read_items(items),
        rules=rules,
        budget_tokens=budget_tokens,
        slices=read_table(Path(slices_path), SLICES, made_by="annotator slices") if slices_path else None,
        max_repeats=max_repeats,
        locate=locate,
        columns=columns,
        progress=line.update,
    )
    line.close()
    made_from = {"rules": rules.fingerprint, "taxonomy": taxonomy.fingerprint, "budget_tokens": budget_tokens}
    write_table(ranking.dropped, beside(Path(out), "dropped.parquet"), made_from=made_from)
    write_table(ranking.chosen, Path(out), made_from=made_from)
    emit(ranking.summary | {"out": out}, as_json=as_json, quiet=quiet, show=lambda: _show(ranking, out))
    return 0


def _show(ranking: Any, out: str) -> None:
    show_ranking(ranking.chosen, ranking.summary)
    click.echo(f"-> {out}")


def show_ranking(chosen: Any, summary: dict[str, Any]) -> None:
    """Print the top documents with their reasons, and what became of the rest."""
    click.echo("Documents to train on, best first")
    columns = ["rank", "doc_id", "source", "score", "tokens", "repeats", "slice_ids", "rule_ids"]
    if chosen.height:
        print_table(columns, chosen.head(SHOWN).select(columns).rows())
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in sorted(summary["dropped"].items()) if count)
    click.echo(f"{summary['chosen']:,} of {summary['documents']:,} documents chosen, {summary['tokens']:,} of "
               f"{summary['budget_tokens']:,} tokens. Dropped: {dropped or 'none'}.")  # fmt: skip
    if summary.get("note"):
        click.echo(summary["note"])
