"""`annotator taxonomy`: the codebook, shown, checked, and measured on labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotator.cli.common import emit, output_options, print_table, taxonomy_option
from annotator.taxonomy import AXES, KINDS, load_taxonomy


@click.group("taxonomy")
def command() -> None:
    """Show, check or compare codebooks of the four axes, and measure how well one fits its labels."""


@command.command("show")
@click.argument("axis", required=False, type=click.Choice(AXES))
@taxonomy_option
@output_options
def show(axis: str | None, taxonomy_path: str | None, as_json: bool, quiet: bool) -> None:
    """Print the values of AXIS (or of all four) with their meaning on each side."""
    taxonomy = load_taxonomy(taxonomy_path)
    axes = [axis] if axis else list(AXES)
    summary = {
        "version": taxonomy.version,
        "fingerprint": taxonomy.fingerprint,
        "axes": {name: taxonomy.axes[name].definitions for name in axes},
    }

    def tables() -> None:
        for name in axes:
            sides = taxonomy.axes[name].definitions
            rows = [
                [v, sides["item"].get(v, "(not used)"), sides["document"].get(v, "(not used)")]
                for v in taxonomy.all_values(name)
            ]
            print_table(["value", "on an item", "on a document"], rows, title=f"{name}: {taxonomy.axes[name].question}")
            click.echo()

    emit(summary, as_json=as_json, quiet=quiet, show=tables)


@command.command("check")
@click.argument("file", required=False)
@output_options
def check(file: str | None, as_json: bool, quiet: bool) -> None:
    """Validate a taxonomy FILE (default: the shipped one); exit 2 with one line if it is broken."""
    taxonomy = load_taxonomy(file)
    sizes = {axis: {kind: len(taxonomy.values(axis, kind)) for kind in KINDS} for axis in AXES}
    summary = {"ok": True, "version": taxonomy.version, "fingerprint": taxonomy.fingerprint, "values": sizes}

    def lines() -> None:
        click.echo(f"{Path(file) if file else 'the shipped taxonomy'}: version {taxonomy.version}, valid")
        print_table(
            ["axis", "values on items", "on documents"], [[a, s["item"], s["document"]] for a, s in sizes.items()]
        )

    emit(summary, as_json=as_json, quiet=quiet, show=lines)


@command.command("coverage")
@click.argument("labels", nargs=-1, required=True, metavar="LABELS...")
@taxonomy_option
@output_options
def coverage_(labels: tuple[str, ...], taxonomy_path: str | None, as_json: bool, quiet: bool) -> None:
    """Measure how well the codebook fits LABELS: "other", empty and crowded values, entropy, axes that tell the same.

    \b
    Example:
      annotator taxonomy coverage item_labels.parquet document_labels.parquet
    """
    import polars as pl

    from annotator.agreement import REQUIRED
    from annotator.coverage import coverage
    from annotator.tables import read_table, same_taxonomy

    columns = REQUIRED | {"kind": pl.String}
    tables = {path: read_table(Path(path), columns, made_by="annotator label") for path in labels}
    same_taxonomy({path: table for path, table in tables.items() if "taxonomy_version" in table.columns})
    found = coverage(pl.concat(tables.values(), how="diagonal_relaxed"), load_taxonomy(taxonomy_path))
    emit(found, as_json=as_json, quiet=quiet, show=lambda: show_coverage(found))


def show_coverage(found: dict[str, Any]) -> None:
    """Print a table of axes and one of their dependence for each side, then the findings."""
    for kind, side in found["kinds"].items():
        rows = [
            [axis, each["defined"], each["used"], each["other_share"], each["entropy_bits"], each["evenness"],
             f"{each['values'][0]['value']} {each['values'][0]['share']:.0%}" if each["values"] else ""]
            for axis, each in side["axes"].items()
        ]  # fmt: skip
        title = f"{side['records']:,} {kind}s"
        print_table(["axis", "values", "used", "other", "entropy (bits)", "evenness", "largest"], rows, title=title)
        click.echo()
        pairs = [[" / ".join(pair["axes"]), pair["nmi"], pair["by_chance"]] for pair in side["dependence"]]
        print_table(["axes", "normalised mutual information", "by chance"], pairs)
        click.echo()
    for finding in found["findings"]:
        click.echo(f"{finding['kind']:<15} {finding['side']:<9} {finding['axis']:<21} {finding['message']}")
    if not found["findings"]:
        click.echo("no findings")


@command.command("diff")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B", required=False)
@output_options
def diff(before: str, after: str | None, as_json: bool, quiet: bool) -> None:
    """Tell what changed from codebook A to codebook B (default: the shipped one): values, meanings, tie-breaks."""
    from annotator.taxonomy_diff import taxonomy_diff

    found = taxonomy_diff(load_taxonomy(before), load_taxonomy(after))
    emit(found, as_json=as_json, quiet=quiet, show=lambda: show_diff(found))


def show_diff(found: dict[str, Any]) -> None:
    """Print one line a change, then what to do about old labels."""
    click.echo(f"version {found['before']} -> {found['after']}")
    for axis, change in (found["axes"] | found["grades"]).items():
        for sign, how in (("+", "added"), ("-", "removed")):
            for row in change.get(how, []):
                click.echo(f"{sign} {axis} {row['value']} ({', '.join(row['kinds'])})")
        for row in change.get("renamed", []):
            click.echo(f"> {axis} {row['before']} -> {row['after']} ({', '.join(row['kinds'])})")
        reworded = [(f"{row['value']} ({row['kind']})", row) for row in change.get("changed", [])]
        reworded += [(name, change[name]) for name in ("question", "rule") if name in change]
        for name, row in reworded:
            click.echo(f"~ {axis} {name}\n    - {row['before']}\n    + {row['after']}")
    for kind, change in found["tiebreaks"].items():
        for sign, how in (("+", "added"), ("-", "removed")):
            for rule in change.get(how, []):
                click.echo(f"{sign} tie-break ({kind}) {rule}")
    click.echo(found["note"])
