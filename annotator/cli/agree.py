"""`annotator agree`: how far two or more label tables agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from annotator.cli.common import column_option, emit, output_options, print_table, taxonomy_option
from annotator.errors import BadInput

_WIDTH = 40
_SHOWN = 10
_FEWEST = 5


@click.command("agree")
@click.argument("labels", metavar="LABELS")
@click.argument("gold", metavar="GOLD")
@click.argument("more", nargs=-1, metavar="[MORE]...")
@click.option("--out", "-o", metavar="FILE", help="Also write everything as JSON, e.g. agreement.json.")
@click.option("--items", multiple=True, metavar="INPUT", help="The labelled items, to tell benchmarks apart.")
@click.option("--documents", multiple=True, metavar="INPUT", help="The labelled documents, to tell sources apart.")
@column_option
@taxonomy_option
@output_options
def command(
    labels: str, gold: str, more: tuple[str, ...], out: str | None, items: tuple[str, ...], documents: tuple[str, ...],
    columns: dict[str, str], taxonomy_path: str | None, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Measure agreement per axis and value between LABELS and GOLD, or between more tables; the last one is the truth.

    Strict agreement, Cohen's kappa with a bootstrap interval, Krippendorff's alpha (MASI distance for operation sets,
    ordinal for grades), overlap kappa (comparable with published figures that count shared values as agreement),
    precision and recall per value, and the confusions that cost most.

    \b
    Example:
      annotator agree labels.parquet gold.jsonl --items items.jsonl -o agreement.json
    """
    from annotator.agreement import REQUIRED, agree
    from annotator.tables import read_table, write_json, write_probe
    from annotator.taxonomy import load_taxonomy

    if out:
        write_probe(Path(out).parent)
    paths = [labels, gold, *more]
    tables = {
        name: read_table(Path(path), REQUIRED, made_by="annotator label")
        for name, path in zip(_names(paths), paths, strict=True)
    }
    groups = _groups(items, documents, columns)
    found = agree(tables, taxonomy=load_taxonomy(taxonomy_path), groups=groups)
    if out:
        write_json(Path(out), found)
    emit(found, as_json=as_json, quiet=quiet, show=lambda: show_agreement(found, out))
    return 0


def _names(paths: Sequence[str]) -> list[str]:
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise BadInput("is given twice", where=twice, remedy="A table always agrees with itself.")
    short = [Path(path).name for path in paths]
    return short if len(set(short)) == len(short) else list(paths)


def _groups(items: Sequence[str], documents: Sequence[str], columns: dict[str, str]) -> Any:
    import polars as pl

    from annotator.readers import read_documents, read_items

    found = []
    if items:
        frame = read_items(items, columns=_only(columns, documents, "doc_id", "source"))
        found.append(frame.select(pl.col("item_id").alias("record_id"), "benchmark"))
    if documents:
        batches = read_documents(documents, columns=_only(columns, items, "item_id", "benchmark"), text=False)
        found += [batch.select(pl.col("doc_id").alias("record_id"), "source") for batch in batches]
    return pl.concat(found, how="diagonal") if found else None


def _only(columns: dict[str, str], other_side: Sequence[str], *names: str) -> dict[str, str]:
    """The overrides without those that can only be meant for the other side, where both are given."""
    return {name: theirs for name, theirs in columns.items() if not (other_side and name in names)}


def show_agreement(found: dict[str, Any], out: str | None) -> None:
    """Print coefficients, a bar for each axis, the weakest values, the dearest confusions, and groups."""
    tables = ", ".join(f"{name} ({rows:,})" for name, rows in found["tables"].items())
    click.echo(f"{found['records']:,} records with labels in two tables or more: {tables}")
    click.echo(f"reference: {found['reference']}\n")
    print_table(
        ["axis", "records", "agreement", "kappa", "95 % interval", "alpha", "overlap kappa", "macro F1", "other"],
        [_axis_row(axis, each, found["reference"]) for axis, each in found["axes"].items()],
    )
    click.echo("\nkappa: 0 = chance, 1 = perfect; ▒ = interval")
    for axis, each in found["axes"].items():
        click.echo(f"  {axis:<20} {_bar(each['kappa'])}")
    _show_values(found["axes"])
    _show_confusions(found["axes"])
    for column, groups in found["by"].items():
        if len(groups) > 1:
            axes = list(found["axes"])
            rows = [[name, *(_group_cell(each.get(axis)) for axis in axes)] for name, each in groups.items()]
            click.echo()
            print_table([column, *axes], rows, title=f"agreement / kappa (records) by {column}")
    if found["pairs"]:
        axes = list(found["axes"])
        rows = [[" / ".join(p["tables"]), *(p["axes"][axis]["kappa"] for axis in axes)] for p in found["pairs"]]
        click.echo()
        print_table(["tables", *axes], rows, title="kappa by pair")
    if out:
        click.echo(f"-> {out}")


def _axis_row(axis: str, found: dict[str, Any], reference: str) -> list[Any]:
    kappa, others = found["kappa"], found["other_share"]
    spread = "" if kappa["low"] is None else f"{kappa['low']:.3f} to {kappa['high']:.3f}"
    mine = [share for name, share in others.items() if name != reference and share is not None]
    used = f"{max(mine, default=0):.1%} / {others[reference] or 0:.1%}"
    overlap = found.get("overlap_kappa", {}).get("estimate")
    alpha = "" if found["alpha"] is None else f"{found['alpha']:.3f} {found['alpha_distance']}"
    return [
        axis,
        found["records"],
        found["agreement"],
        kappa["estimate"],
        spread,
        alpha,
        overlap,
        found["macro_f1"],
        used,
    ]


def _group_cell(found: dict[str, Any] | None) -> str:
    if not found or found["agreement"] is None:
        return ""
    kappa = "–" if found["kappa"] is None else f"{found['kappa']:.2f}"
    return f"{found['agreement']:.2f} / {kappa} ({found['records']})"


def _bar(kappa: dict[str, float | None]) -> str:
    if kappa["estimate"] is None:
        return "undefined"
    low, high = (kappa[end] if kappa[end] is not None else kappa["estimate"] for end in ("low", "high"))
    solid, spread = (round(_WIDTH * min(max(end or 0.0, 0.0), 1.0)) for end in (low, high))
    return f"{'█' * solid}{'▒' * (spread - solid)}{'·' * (_WIDTH - max(solid, spread))} {kappa['estimate']:.2f}"


def _show_values(axes: dict[str, Any]) -> None:
    known = [
        [axis, value["value"], value["support"], value["precision"], value["recall"], value["f1"]]
        for axis, each in axes.items()
        for value in each["values"]
        if value["support"] >= _FEWEST
    ]
    if known:
        weakest = sorted(known, key=lambda row: (row[5], row[0], row[1]))[:_SHOWN]
        click.echo()
        columns = ["axis", "value", "support", "precision", "recall", "F1"]
        print_table(
            columns, weakest, title=f"values that agree least (of those with {_FEWEST} or more in the reference)"
        )


def _show_confusions(axes: dict[str, Any]) -> None:
    every = [(axis, confusion) for axis, each in axes.items() for confusion in each["confusions"]]
    dearest = sorted(every, key=lambda entry: -(entry[1]["kappa_gain"] or 0.0))[:_SHOWN]
    if dearest:
        rows = [
            [axis, each["label"], each["reference"], each["records"], each["kappa_gain"], each["record_ids"][:2]]
            for axis, each in dearest
        ]
        click.echo()
        columns = ["axis", "labelled", "reference", "records", "kappa to gain", "examples"]
        print_table(columns, rows, title="confusions that cost most")
