"""`annotator export`: the ranked list in a format that trainers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from annotator.cli.common import column_option, emit, keep_inputs, output_options
from annotator.errors import BadInput


@click.command("export")
@click.argument("upsample", metavar="UPSAMPLE")
@click.option("--format", "form", required=True, help="Whose format.",
              type=click.Choice(["jsonl", "megatron", "olmo-core", "streaming", "hf"]))  # fmt: skip
@click.option("--out", "-o", required=True, metavar="PATH", help="A file for jsonl and megatron, else a folder.")
@click.option("--documents", multiple=True, metavar="INPUT",
              help="olmo-core, streaming, hf: the documents that were ranked, whose texts are written.")  # fmt: skip
@click.option("--prefix", metavar="TEXT",
              help='megatron: where the tokenised data of a source lies, e.g. "/data/{source}_text_document", or, with '
                   "{group}, that of the documents of a source that are read equally often.")  # fmt: skip
@column_option
@output_options
def command(
    upsample: str, form: str, out: str, documents: tuple[str, ...], prefix: str | None, columns: dict[str, str],
    quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Write the ranked list UPSAMPLE as trainer input, with a manifest that traces it to its slices and rules.

    A mixture of several files is a folder of its own: a new or an empty one, or that of an earlier export, which is
    replaced whole.

    \b
    Examples:
      annotator export upsample.parquet --format jsonl -o upsample.jsonl.zst
      annotator export upsample.parquet --format hf --documents corpus/ -o mixture/
    """
    from annotator.export import FILES, export
    from annotator.exporting.place import check_folder, manifest_of
    from annotator.tables import UPSAMPLE, read_made_from, read_table, write_probe

    write_probe(Path(out).parent)
    for written in (Path(out), manifest_of(Path(out))):
        keep_inputs(written, upsample, *documents)
    if form not in FILES:
        _keep_folder(Path(out), upsample, documents)
        check_folder(Path(out))
    options: dict[str, Any] = {}
    if prefix is not None:
        options["prefix"] = _only(prefix, "--prefix", form, ("megatron",))
    if documents:
        options["documents"] = _only(list(documents), "--documents", form, ("olmo-core", "streaming", "hf"))
    if columns:
        options["columns"] = _only(columns, "--column", form, ("olmo-core", "streaming", "hf"))
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


def _keep_folder(out: Path, upsample: str, documents: tuple[str, ...]) -> None:
    """Raise BadInput if an input lies in the folder that is written, be it a file of an earlier export."""
    from annotator.readers import find_shards

    if not out.is_dir():
        return
    shards = find_shards(list(documents)) if documents else []
    for path in [*(shard.path for shard in shards), Path(upsample)]:
        if path.resolve().is_relative_to(out.resolve()):
            remedy = "Name another folder: what lies in it is replaced."
            raise BadInput("lies in the folder to write", where=str(path), remedy=remedy)


def _only(value: Any, option: str, form: str, forms: tuple[str, ...]) -> Any:
    """The value, if this format takes the option."""
    if form not in forms:
        raise BadInput(f"{form} takes no {option}", where="export", remedy=f"It is for {', '.join(forms)}.")
    return value
