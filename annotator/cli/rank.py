"""`annotator rank`: documents for upsampling under a token budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotator.cli.common import (
    ProgressLine,
    column_option,
    emit,
    finite,
    keep_inputs,
    listed,
    output_options,
    print_table,
    taxonomy_option,
)
from annotator.cli.matching import labels_option, open_corpus, rules_option, tokenizer_option

SHOWN = 10


@click.command("rank")
@click.option("--matches", "matches_path", required=True, metavar="FILE", help="Matches (annotator match).")
@labels_option
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
@click.option("--max-source-share", default=0.5, show_default=True, callback=finite,
              help="At most this share of the budget from one source (1: no cap).")  # fmt: skip
@click.option("--max-host-share", default=0.05, show_default=True, callback=finite,
              help="At most this share from one web host, where addresses are known (1: no cap).")  # fmt: skip
@click.option("--replay-share", default=0.0, show_default=True, callback=finite,
              help="Keep this share of the budget for background text that serves no slice.")  # fmt: skip
@click.option("--languages", metavar="EN,DE", help="Only these values of the documents' language column.")
@click.option("--materialize", metavar="DIR", help="Also write the chosen documents with their texts, as shards.")
@click.option("--locate", is_flag=True, help="Fill the columns shard and row; they depend on how the corpus is split.")
@tokenizer_option
@rules_option
@click.option("--out", "-o", required=True, metavar="FILE", help="The ranked list; OUT.dropped.parquet is beside it.")
@column_option
@taxonomy_option
@output_options
def command(
    matches_path: str, labels_path: str | None, documents: tuple[str, ...], items: tuple[str, ...],
    slices_path: str | None, budget_tokens: int, max_repeats: int, max_source_share: float, max_host_share: float,
    replay_share: float, languages: str | None, materialize: str | None, locate: bool, tokenizer_path: str | None,
    rules_path: str | None, out: str, columns: dict[str, str], taxonomy_path: str | None, quiet: bool, as_json: bool,
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
    from annotator.rank import rank
    from annotator.ranking.materialize import check_empty
    from annotator.readers import read_items
    from annotator.tables import MATCHES, SLICES, beside, check_output, read_table, write_table

    check_output(Path(out))
    keep_inputs(out, *filter(None, [matches_path, labels_path, slices_path]), *documents, *items)
    if materialize:
        check_empty(Path(materialize))
    corpus = open_corpus(
        labels_path=labels_path, rules_path=rules_path, taxonomy_path=taxonomy_path, columns=columns,
        tables=[matches_path], tokenizer_path=tokenizer_path,
    )  # fmt: skip
    limits = {
        "budget_tokens": budget_tokens,
        "max_repeats": max_repeats,
        "max_source_share": None if max_source_share == 1 else max_source_share,
        "max_host_share": None if max_host_share == 1 else max_host_share,
        "replay_share": replay_share,
        "languages": listed(languages, "--languages", "en,de") or None,
    }
    line = ProgressLine("ranking", quiet=quiet)
    ranking = rank(
        read_table(Path(matches_path), MATCHES, made_by="annotator match"),
        corpus.labels,
        list(documents),
        read_items(items),
        rules=corpus.rules,
        slices=read_table(Path(slices_path), SLICES, made_by="annotator slices") if slices_path else None,
        locate=locate,
        columns=corpus.columns,
        count_tokens=corpus.count_tokens,
        progress=line.update,
        **limits,
    )
    line.close()
    made_from = corpus.made_from(limits=limits, inputs=ranking.summary["inputs"])
    write_table(ranking.dropped, beside(Path(out), "dropped.parquet"), made_from=made_from)
    write_table(ranking.chosen, Path(out), made_from=made_from)
    summary = ranking.summary | {"out": out}
    if materialize:
        summary["shards"] = _write_texts(ranking.chosen, documents, Path(materialize), corpus.columns, made_from)
    emit(summary, as_json=as_json, quiet=quiet, show=lambda: _show(ranking, summary))
    return 0


def _write_texts(
    chosen: Any, documents: tuple[str, ...], folder: Path, columns: dict[str, str], made_from: dict[str, Any]
) -> list[str]:
    from annotator.ranking.materialize import materialize

    return [str(path) for path in materialize(chosen, documents, folder, columns=columns, made_from=made_from)]


def _show(ranking: Any, summary: dict[str, Any]) -> None:
    show_ranking(ranking.chosen, summary)
    click.echo(f"-> {', '.join([summary['out'], *summary.get('shards', ())])}")


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
