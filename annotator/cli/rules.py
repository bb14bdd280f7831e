"""`annotator rules`: the mapping rules, checked and explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotator.cli.common import column_option, emit, output_options, print_table, taxonomy_option
from annotator.cli.matching import Corpus, labels_option, open_corpus, rules_option
from annotator.errors import BadInput


@click.group("rules")
def command() -> None:
    """Check or explain the mapping rules."""


@command.command("check")
@click.argument("file", required=False, metavar="[FILE|PACK]")
@click.option("--document-labels", "labels_path", metavar="FILE", help="Also find rules that none of these meets.")
@click.option("--documents", multiple=True, metavar="INPUT", help="The same for a corpus with labels of its own.")
@column_option
@taxonomy_option
@output_options
def check(
    file: str | None, labels_path: str | None, documents: tuple[str, ...], columns: dict[str, str],
    taxonomy_path: str | None, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Look for values without a rule, dead rules, overlaps, circles of near values and benchmark names.

    FILE is your own rule file or a pack (weborganizer, essential-web); default: the shipped rules. Exit code 1 if
    anything is found.
    """
    from annotator.mapping import load_rules, renamed
    from annotator.matching.corpus import scan_documents
    from annotator.matching.labels import scan_labels
    from annotator.matching.rule_findings import check_rules
    from annotator.taxonomy import load_taxonomy

    taxonomy = load_taxonomy(taxonomy_path)
    rules, rest = renamed(load_rules(file, taxonomy=taxonomy), columns)
    found = check_rules(
        rules,
        taxonomy=taxonomy,
        document_labels=scan_labels(Path(labels_path)) if labels_path else None,
        documents=scan_documents(documents, columns=rest, rules=rules) if documents else None,
    )
    findings = [[one.kind, one.rule, one.message] for one in found]
    summary = {
        "version": rules.version,
        "fingerprint": rules.fingerprint,
        "findings": [dict(zip(("kind", "rule", "message"), one, strict=True)) for one in findings],
    }

    def lines() -> None:
        click.echo(f"{file or 'the shipped rules'}: version {rules.version}, {len(rules.rules)} rules, "
                   f"{len(findings)} findings")  # fmt: skip
        if findings:
            print_table(["finding", "rule", "what"], findings)

    emit(summary, as_json=as_json, quiet=quiet, show=lines)
    return 1 if findings else 0


@command.command("explain")
@click.argument("slice_id")
@click.argument("doc_id")
@labels_option
@click.option("--documents", multiple=True, metavar="INPUT", help="The documents, for columns that rules look at.")
@rules_option
@column_option
@taxonomy_option
@output_options
def explain_(
    slice_id: str, doc_id: str, labels_path: str | None, documents: tuple[str, ...], rules_path: str | None,
    columns: dict[str, str], taxonomy_path: str | None, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Show the arithmetic of one slice and one document, axis by axis, and what ranking makes of it.

    \b
    Example:
      annotator rules explain "op=state_tracking" doc-17 --document-labels documents.parquet
    """
    from dataclasses import asdict

    from annotator.match import explain
    from annotator.slicing.lattice import described_by

    described = asdict(described_by(slice_id))
    slice_row = described | {"solving_operation": list(described["solving_operation"]) or None}
    corpus = open_corpus(labels_path=labels_path, rules_path=rules_path, taxonomy_path=taxonomy_path, columns=columns)
    for axis, named in slice_row.items():
        for value in named if isinstance(named, list) else [named] if named else []:
            corpus.taxonomy.check(axis, value, where=slice_id, kind="item")
    reasons = explain(slice_row, _document(corpus, doc_id, documents, labels_path), rules=corpus.rules)
    emit(reasons, as_json=as_json, quiet=quiet, show=lambda: _show(reasons))
    return 0


def _document(corpus: Corpus, doc_id: str, documents: tuple[str, ...], labels_path: str | None) -> dict[str, Any]:
    """What is known of one document: its row of the corpus, if that is given, and its labels."""
    import polars as pl

    row: dict[str, Any] = {}
    found = corpus.scan(documents)
    if found is not None:
        mine = found.filter(pl.col("doc_id") == doc_id).collect()
        row = mine.row(0, named=True) if mine.height else {}
    if corpus.labels is not None:
        labels = corpus.labels.filter(pl.col("record_id") == doc_id).collect()
        row |= labels.row(0, named=True) if labels.height else {}
        if labels.is_empty():
            remedy = "Check the id in the column record_id."
            raise BadInput(f"no document {doc_id!r}", where=labels_path or "", remedy=remedy)
    elif not row:
        where = ", ".join(documents) or "--documents"
        raise BadInput(f"no document {doc_id!r}", where=where, remedy="Give the corpus that holds it with --documents.")
    return row


def _show(reasons: dict[str, Any]) -> None:
    columns = ["axis", "weight", "slice", "document", "strength", "rule_ids"]
    for part in reasons["operations"]:
        rows = [[step[name] for name in columns] for step in part["steps"]]
        print_table(columns, rows, title=f"{part['category_id']} (position weight {part['position']:g})")
        click.echo(f"{part['arithmetic']}\n")
    click.echo(f"affinity {reasons['affinity']:.3f}")
    click.echo(f"worth {reasons['worth']['arithmetic']}")
    if reasons["guard"]:
        click.echo(f"Shut out by the guard {reasons['guard']!r}.")
