"""`annotator rules`: the mapping rules, checked and explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotator.cli.common import emit, output_options, print_table, taxonomy_option
from annotator.errors import BadInput


@click.group("rules")
def command() -> None:
    """Check or explain the mapping rules."""


@command.command("check")
@click.argument("file", required=False)
@taxonomy_option
@output_options
def check(file: str | None, taxonomy_path: str | None, quiet: bool, as_json: bool) -> int:
    """Look for values without a rule, dead rules, overlaps, circles of near values and benchmark names in FILE.

    Exit code 1 if anything is found.
    """
    from annotator.mapping import load_rules
    from annotator.matching.rule_findings import check_rules
    from annotator.taxonomy import load_taxonomy

    taxonomy = load_taxonomy(taxonomy_path)
    rules = load_rules(file, taxonomy=taxonomy)
    findings = [[found.kind, found.rule, found.message] for found in check_rules(rules, taxonomy=taxonomy)]
    summary = {
        "version": rules.version,
        "fingerprint": rules.fingerprint,
        "findings": [dict(zip(("kind", "rule", "message"), found, strict=True)) for found in findings],
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
@click.option("--document-labels", "labels_path", required=True, metavar="FILE", help="Labels of the documents.")
@click.option("--rules", "rules_path", metavar="FILE", help="Your own mapping rules.")
@taxonomy_option
@output_options
def explain_(
    slice_id: str, doc_id: str, labels_path: str, rules_path: str | None, taxonomy_path: str | None,
    quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Show the arithmetic of one slice and one document, axis by axis.

    \b
    Example:
      annotator rules explain "op=state_tracking" doc-17 --document-labels documents.parquet
    """
    from dataclasses import asdict

    from annotator.mapping import load_rules
    from annotator.match import explain
    from annotator.slicing.lattice import described_by
    from annotator.tables import read_labels
    from annotator.taxonomy import load_taxonomy

    described = asdict(described_by(slice_id))
    slice_row = described | {"solving_operation": list(described["solving_operation"]) or None}
    taxonomy = load_taxonomy(taxonomy_path)
    for axis, named in slice_row.items():
        for value in named if isinstance(named, list) else [named] if named else []:
            taxonomy.check(axis, value, where=slice_id, kind="item")
    labels = read_labels(Path(labels_path), "document")
    found = labels.filter(labels["record_id"] == doc_id)
    if found.is_empty():
        raise BadInput(f"no document {doc_id!r}", where=labels_path, remedy="Check the id in the column record_id.")
    rules = load_rules(rules_path, taxonomy=taxonomy)
    reasons = explain(slice_row, found.row(0, named=True), rules=rules)
    emit(reasons, as_json=as_json, quiet=quiet, show=lambda: _show(reasons))
    return 0


def _show(reasons: dict[str, Any]) -> None:
    columns = ["axis", "weight", "slice", "document", "strength", "rule_ids"]
    for part in reasons["operations"]:
        rows = [[step[name] for name in columns] for step in part["steps"]]
        print_table(columns, rows, title=f"{part['category_id']} (position weight {part['position']:g})")
        click.echo(f"{part['arithmetic']}\n")
    click.echo(f"affinity {reasons['affinity']:.3f}")
    if reasons["guard"]:
        click.echo(f"Shut out by the guard {reasons['guard']!r}.")
