"""`annotator taxonomy`: the codebook, shown, checked, and measured on labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from annotator.cli.common import emit, keep_inputs, output_options, print_table, taxonomy_option
from annotator.taxonomy import AXES, GRADES, KINDS, load_taxonomy


@click.group("taxonomy")
def command() -> None:
    """Show, check or compare codebooks of the four axes, measure how one fits its labels, carry labels to the next."""


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
@click.option(
    "--labels", multiple=True, metavar="LABELS", help="Also tell values that these labels never use, or lack."
)
@output_options
def check(file: str | None, labels: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Validate a taxonomy FILE (default: the shipped one); exit 2 with one line if it is broken.

    Then name what an author should look at: values with the same meaning or all but the same name, definitions that are
    told apart by few words, names in rules and tie-breaks that no axis has, and with --labels values that nobody used.
    """
    from annotator.taxonomy_check import taxonomy_check

    taxonomy = load_taxonomy(file)
    sizes = {axis: {kind: len(taxonomy.values(axis, kind)) for kind in KINDS} for axis in AXES}
    findings = taxonomy_check(taxonomy, used=_used(labels) if labels else None)
    summary = {
        "ok": True,
        "version": taxonomy.version,
        "fingerprint": taxonomy.fingerprint,
        "values": sizes,
        "findings": findings,
    }

    def lines() -> None:
        click.echo(f"{Path(file) if file else 'the shipped taxonomy'}: version {taxonomy.version}, valid")
        print_table(
            ["axis", "values on items", "on documents"], [[a, s["item"], s["document"]] for a, s in sizes.items()]
        )
        for finding in findings:
            click.echo(f"{finding['kind']:<10} {finding['axis']:<21} {finding['message']}")
        if not findings:
            click.echo("no findings")

    emit(summary, as_json=as_json, quiet=quiet, show=lines)


def _used(paths: Sequence[str]) -> dict[str, set[str]]:
    """axis or grade -> the values that some label tables use."""
    found: dict[str, set[str]] = {}
    for table in _label_tables(paths).values():
        for name in (*AXES, *GRADES):
            if name in table.columns:
                column = table[name].explode() if name == "solving_operation" else table[name]
                found.setdefault(name, set()).update(column.cast(str).drop_nulls())
    return found


def _label_tables(paths: Sequence[str]) -> dict[str, Any]:
    """path -> table of labels, all of one taxonomy version."""
    import polars as pl

    from annotator.agreement import REQUIRED
    from annotator.tables import read_table, same_taxonomy

    columns = REQUIRED | {"kind": pl.String}
    tables = {path: read_table(Path(path), columns, made_by="annotator label") for path in paths}
    same_taxonomy({path: table for path, table in tables.items() if "taxonomy_version" in table.columns})
    return tables


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

    from annotator.coverage import coverage

    tables = _label_tables(labels).values()
    found = coverage(pl.concat(tables, how="diagonal_relaxed"), load_taxonomy(taxonomy_path))
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
        reworded += [("question", change["question"])] if "question" in change else []
        rules = change.get("rule", {"before": {}, "after": {}})
        reworded += [
            (f"rule ({kind})", {when: rules[when][kind] for when in ("before", "after")}) for kind in rules["before"]
        ]
        for name, row in reworded:
            click.echo(f"~ {axis} {name}\n    - {row['before']}\n    + {row['after']}")
    for kind, change in found["tiebreaks"].items():
        for sign, how in (("+", "added"), ("-", "removed")):
            for rule in change.get(how, []):
                click.echo(f"{sign} tie-break ({kind}) {rule}")
    click.echo(found["note"])


@command.command("migrate")
@click.argument("labels", metavar="LABELS")
@click.option("--mapping", "mapping_path", required=True, metavar="FILE", help="What became of each old value (TOML).")
@click.option("--out", "-o", required=True, metavar="FILE", help="Label table to write.")
@taxonomy_option
@output_options
def migrate_(
    labels: str, mapping_path: str, out: str, taxonomy_path: str | None, as_json: bool, quiet: bool
) -> int:  # fmt: skip
    """Carry LABELS to the version of --taxonomy (default: the shipped one) along a written mapping.

    \b
    from = "1"
    to = "2"
    [task_type]
    calculate = "compute"            # renamed, or merged into another
    order = ["sort", "rank"]         # split: such rows are to be labelled again

    Values that the mapping does not name stay as they are; if the new taxonomy lacks one, nothing is written and all of
    them are listed. Rows with a value that was split become failed rows (exit code 1); `annotator label ... -o OUT
    --retry-failed` labels just those again.
    """
    from annotator.migration import migrate, read_mapping
    from annotator.tables import LABELS, check_output, read_table, write_table

    check_output(Path(out))
    keep_inputs(out, labels, mapping_path)
    taxonomy = load_taxonomy(taxonomy_path)
    mapping = read_mapping(mapping_path, taxonomy)
    migrated = migrate(read_table(Path(labels), LABELS, made_by="annotator label"), mapping, taxonomy)
    made_from = {"step": "migrate", "mapping": mapping.fingerprint, "taxonomy": taxonomy.fingerprint}
    write_table(migrated.labels, Path(out), made_from=made_from)

    def show() -> None:
        moved = ", ".join(f"{axis} {rows:,}" for axis, rows in migrated.moved.items()) or "none"
        click.echo(
            f"{migrated.labels.height:,} rows, version {mapping.before} -> {mapping.after}; values changed: {moved}"
        )
        click.echo(f"{migrated.relabel:,} rows to label again -> {out}")

    emit(migrated.as_dict() | {"out": out}, as_json=as_json, quiet=quiet, show=show)
    return 1 if migrated.relabel else 0
