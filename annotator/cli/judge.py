"""`annotator judge`: what a judge is and how far it can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotator.cli.common import emit, output_options, print_table
from annotator.errors import BadInput
from annotator.taxonomy import KINDS


@click.group("judge")
def command() -> None:
    """Show what a judge is and how far it can be trusted."""


@command.command("info")
@click.argument("spec", default="embedded")
@output_options
def info(spec: str, quiet: bool, as_json: bool) -> None:
    """Print the card of a student judge: SPEC is `embedded`, `embedded:accurate` or `student:PATH`.

    The agreement figures are against reference labels that the student was not trained on. After them: what share of
    records it labels if it abstains below a confidence (`annotator label --below`), and how much of that is right; and
    the learning curve, which says what more labels would buy.
    """
    from annotator.judges.student import Student, embedded_path

    scheme, _, path = spec.partition(":")
    if scheme not in ("embedded", "student"):
        remedy = "An LLM's agreement is measured with your own reference labels."
        raise BadInput(f"{spec!r} has no card: only students do", where="judge info", remedy=remedy)
    student = Student.load(embedded_path(spec) if scheme == "embedded" else Path(path))
    card = student.card
    emit(card | {"fingerprint": student.fingerprint}, as_json=as_json, quiet=quiet, show=lambda: show_card(card))


def show_card(card: dict[str, Any]) -> None:
    """Print what a student was made from, how well it agrees, and its learning curve."""
    for name, value in card.items():
        if not isinstance(value, dict | list):
            click.echo(f"{name.replace('_', ' ')}: {value}")
    for kind, speed in card.get("speed", {}).items():
        rate = f"{speed['texts_per_cpu_second']:,} {kind}s of {speed['characters']:,} characters"
        click.echo(f"speed: {rate} a CPU second")
    scores = card.get("scores", {})
    for kind in KINDS:
        for column, figures in scores.get(kind, {}).items():
            _show_scores(f"{kind}s, {column.replace('_', ' ')} (cross-validated on the training labels)", figures)
        _show_scores(f"{kind}s, reference labels kept for reporting", scores.get("test", {}).get(kind, {}))
    _show_abstention(card.get("abstention", {}))
    _show_curves(card.get("learning_curve", {}))


def _show_scores(title: str, axes: dict[str, Any]) -> None:
    measures = ("kappa", "macro_f1", "ece")
    rows = [
        [axis, *(figures.get(measure) for measure in measures)]
        for axis, figures in axes.items()
        if isinstance(figures, dict)
    ]
    if rows:
        click.echo()
        print_table(["axis", "kappa", "macro F1", "calibration error"], rows, title=title)


def _show_abstention(sides: dict[str, Any]) -> None:
    """Print what a student that abstains labels, and how much of that is right, to choose --below by."""
    for kind, columns in sides.items():
        for column, curve in columns.items():
            click.echo()
            rows = [["labelled", *curve["labelled"]]] + [[axis, *values] for axis, values in curve["agreement"].items()]
            headings = ["", "all", *(f"--below {below:g}" for below in curve["below"][1:])]
            title = f"{kind}s, {column.replace('_', ' ')}: share that gets a label, and of it the share that is right"
            print_table(headings, rows, title=title)


def _show_curves(curves: dict[str, Any]) -> None:
    """Print the learning curve of each side, and what it says."""
    for kind, curve in curves.items():
        click.echo()
        rows = [[axis, *values] for axis, values in curve["kappa"].items()] + [["mean", *curve["mean"]]]
        columns = ["axis", *(f"{labels:,} labels" for labels in curve["labels"])]
        print_table(columns, rows, title=f"{kind}s: kappa on held-out records, by number of labels")
        click.echo(curve["advice"])
