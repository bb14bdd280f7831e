"""`annotator verify`: what a change of the training data did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from annotator.cli.common import (
    ProgressLine,
    column_option,
    columns_of,
    emit,
    finite,
    keep_inputs,
    output_options,
    print_table,
)
from annotator.errors import BadInput


def _parse_arms(_context: click.Context, _option: click.Parameter, pairs: Sequence[str]) -> dict[str, list[str]]:
    """NAME=INPUT, given several times; one name may have several inputs (training seeds)."""
    arms: dict[str, list[str]] = {}
    for pair in pairs:
        name, sign, path = pair.partition("=")
        if not (name and sign and path):
            raise BadInput(f"{pair!r} is not NAME=INPUT", where="--controls", remedy="Write random=outputs.jsonl, say.")
        arms.setdefault(name, []).append(path)
    return arms


@click.command("verify")
@click.option("--items", required=True, multiple=True, metavar="INPUT", help="The evaluation items.")
@click.option("--labels", "labels_path", required=True, metavar="FILE", help="Their labels (annotator label).")
@click.option("--before", required=True, multiple=True, metavar="INPUT", help="Outputs before the change.")
@click.option("--after", required=True, multiple=True, metavar="INPUT", help="Outputs after it; several runs: seeds.")
@click.option("--slices", "slices_path", required=True, metavar="FILE", help="The slices the change was aimed at.")
@click.option("--controls", "controls", multiple=True, metavar="NAME=INPUT", callback=_parse_arms,
              help="Outputs after another change from the same start: random=r1.jsonl; repeatable.")  # fmt: skip
@click.option("--metric", default="mean", show_default=True, help="mean, or pass@K.")
@click.option(
    "--margin",
    default=0.02,
    show_default=True,
    type=click.FloatRange(0, 1),
    callback=finite,
    help="A loss elsewhere up to this rate is no loss.",
)
@click.option("--disjoint-items", multiple=True, metavar="INPUT", help="Another benchmark of the same skills.")
@click.option("--disjoint-before", multiple=True, metavar="INPUT", help="Outputs on it before the change.")
@click.option("--disjoint-after", multiple=True, metavar="INPUT", help="Outputs on it after the change.")
@click.option("--out", "-o", default="verification.json", show_default=True, metavar="FILE", help="Where to write it.")
@column_option
@output_options
def command(
    items: tuple[str, ...], labels_path: str, before: tuple[str, ...], after: tuple[str, ...], slices_path: str,
    controls: dict[str, list[str]], metric: str, margin: float, disjoint_items: tuple[str, ...],
    disjoint_before: tuple[str, ...], disjoint_after: tuple[str, ...], out: str, columns: dict[str, str],
    quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Say what a change of the training data did: confirmed, not_confirmed, harmful, or inconclusive.

    Compares paired outputs on the target slices and elsewhere, with confidence intervals, against control arms where
    there are any, and looks for regressions over all other slices.

    \b
    Example:
      annotator verify --items math.jsonl --labels items.parquet --slices slices.parquet --before base.jsonl \\
          --after targeted-s0.jsonl --after targeted-s1.jsonl --controls random=random-s0.jsonl
    """
    from annotator.readers import read_items, read_samples
    from annotator.tables import LABELS, SLICES, read_table, write_json, write_probe
    from annotator.verify import verify

    write_probe(Path(out).parent)
    others = (*disjoint_items, *disjoint_before, *disjoint_after, *(path for arm in controls.values() for path in arm))
    keep_inputs(out, *items, labels_path, *before, *after, slices_path, *others)
    ours, theirs = columns_of("items", columns), columns_of("samples", columns)
    line = ProgressLine("comparing", quiet=quiet)
    found = verify(
        read_items(items, columns=ours),
        read_table(Path(labels_path), LABELS, made_by="annotator label"),
        read_samples(before, columns=theirs),
        read_samples(after, columns=theirs),
        read_table(Path(slices_path), SLICES, made_by="annotator slices"),
        controls={name: read_samples(paths, columns=theirs) for name, paths in controls.items()} or None,
        metric=metric,
        margin=margin,
        disjoint_items=read_items(disjoint_items, columns=ours) if disjoint_items else None,
        disjoint_before=read_samples(disjoint_before, columns=theirs) if disjoint_before else None,
        disjoint_after=read_samples(disjoint_after, columns=theirs) if disjoint_after else None,
        progress=line.update,
    )
    line.close()
    write_json(Path(out), found)
    emit(found, as_json=as_json, quiet=quiet, show=lambda: _show(found, out))
    return 0


def _show(found: dict[str, Any], out: str) -> None:
    click.echo(f"Verification: {found['verdict']}")
    click.echo(found["summary"])
    others = f" ({found['items_left_out']:,} others lack a score in some run)" if found["items_left_out"] else ""
    click.echo(f"{found['items_used']:,} items{others}, {found['items_target']:,} of them targets; effects in points:")
    controls = [arm["name"] for arm in found["controls"]]
    heads = ["items of", "items", "after", *controls, *(f"over {name}" for name in controls)]
    groups = [(name, found[name]) for name in ("overall", "target", "untouched", "disjoint") if found.get(name)]
    groups += [(row["slice_id"], row) for row in found["slices"]]
    print_table(heads, [_row(name, row, controls) for name, row in groups])
    click.echo("\n".join(found["advice"]))
    click.echo(f"-> {out}")


def _row(name: str, row: dict[str, Any], controls: list[str]) -> list[Any]:
    """One group of items: what each arm did there, and how much more the targeted one did than each control."""
    cells = [_points(row[kind].get(arm)) for kind in ("control_effects", "over_controls") for arm in controls]
    return [name, row["effect"]["items"], _points(row["effect"]), *cells]


def _points(effect: dict[str, Any] | None) -> str:
    """An effect in points with its interval; nothing where there is none."""
    if effect is None:
        return ""
    ends = "" if effect["low"] is None else f" [{100 * effect['low']:+z.1f}, {100 * effect['high']:+z.1f}]"
    return f"{100 * effect['estimate']:+z.1f}{ends}"
