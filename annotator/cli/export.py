"""`annotator export`: the ranked list in a format that trainers read."""

from __future__ import annotations

from pathlib import Path

import click

from annotator.cli.common import emit, output_options


@click.command("export")
@click.argument("upsample", metavar="UPSAMPLE")
@click.option("--format", "form", required=True, help="jsonl, megatron, olmo-core, streaming or hf.",
              type=click.Choice(["jsonl", "megatron", "olmo-core", "streaming", "hf"]))  # fmt: skip
@click.option("--out", "-o", required=True, metavar="PATH", help="A file for jsonl, a folder for the others.")
@output_options
def command(upsample: str, form: str, out: str, quiet: bool, as_json: bool) -> int:
    """Write the ranked list UPSAMPLE as trainer input, with a manifest that traces it to its slices and rules.

    \b
    Example:
      annotator export upsample.parquet --format jsonl -o upsample.jsonl.zst
    """
    from annotator.export import export
    from annotator.tables import UPSAMPLE, read_made_from, read_table, write_probe

    write_probe(Path(out).parent)
    summary = export(
        read_table(Path(upsample), UPSAMPLE, made_by="annotator rank"),
        Path(out),
        format=form,
        made_from=read_made_from(Path(upsample)),
    )
    emit(summary, as_json=as_json, quiet=quiet,
         show=lambda: click.echo("\n".join(f"-> {name}" for name in summary["files"])))  # fmt: skip
    return 0
