"""`annotator taxonomy`: the codebook, shown, checked, and measured on labels."""

from __future__ import annotations

from pathlib import Path

import click

from annotator.cli.common import emit, output_options, print_table, taxonomy_option
from annotator.taxonomy import AXES, KINDS, load_taxonomy


@click.group("taxonomy")
def command() -> None:
    """Show or check the four-axis codebook."""


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
