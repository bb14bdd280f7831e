"""`annotator export`: the ranked list in a format that trainers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotator.cli.common import emit, keep_inputs, output_options
from annotator.errors import BadInput


@click.command("export")
@click.argument("upsample", metavar="UPSAMPLE")
@click.option("--format", "form", required=True, help="Whose format.",
              type=click.Choice(["jsonl", "megatron", "olmo-core", "streaming", "hf"]))  # fmt: skip
@click.option("--out", "-o", required=True, metavar="PATH", help="A file for jsonl and megatron, else a folder.")
@click.option("--documents", multiple=True, metavar="INPUT",
              help="olmo-core, streaming, hf: the corpus, to write the chosen texts as well.")  # fmt: skip
@click.option("--prefix", metavar="TEXT",
              help='megatron: where a source\'s tokenised data lies, e.g. "/data/{source}_text_document".')  # fmt: skip
@output_options
def command(
    upsample: str, form: str, out: str, documents: tuple[str, ...], prefix: str | None, quiet: bool, as_json: bool
) -> int:
    """Write the ranked list UPSAMPLE as trainer input, with a manifest that traces it to its slices and rules.

    \b
    Examples:
      annotator export upsample.parquet --format jsonl -o upsample.jsonl.zst
      annotator export upsample.parquet --format hf --documents corpus/ -o mixture/
    """
    from annotator.export import export
    from annotator.tables import UPSAMPLE, read_made_from, read_table, write_probe

    write_probe(Path(out).parent)
    keep_inputs(out, upsample)
    options: dict[str, Any] = {}
    if prefix is not None:
        options["prefix"] = _only(prefix, "--prefix", form, ("megatron",))
    if documents:
        options["documents"] = _only(list(documents), "--documents", form, ("olmo-core", "streaming", "hf"))
    summary = export(
        read_table(Path(upsample), UPSAMPLE, made_by="annotator rank"),
        Path(out),
        format=form,
        made_from=read_made_from(Path(upsample)),
        **options,
    )
    emit(summary, as_json=as_json, quiet=quiet,
         show=lambda: click.echo("\n".join(f"-> {name}" for name in summary["files"])))  # fmt: skip
    return 0


def _only(value: Any, option: str, form: str, forms: tuple[str, ...]) -> Any:
    """The value, if this format takes the option."""
    if form not in forms:
        raise BadInput(f"{form} takes no {option}", where="export", remedy=f"It is for {', '.join(forms)}.")
    return value
