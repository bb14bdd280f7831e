"""`annotator report`: one self-contained page from the artefacts of a run."""

from __future__ import annotations

from pathlib import Path

import click

from annotator.cli.common import column_option, emit, output_options


@click.command("report")
@click.argument("folder", metavar="DIR")
@click.option("--out", "-o", default="report.html", show_default=True, metavar="FILE", help="The page to write.")
@click.option(
    "--documents", multiple=True, metavar="INPUT", help="The corpus, to show how each listed document begins."
)
@column_option
@output_options
def command(
    folder: str, out: str, documents: tuple[str, ...], columns: dict[str, str], quiet: bool, as_json: bool
) -> int:
    """Make one HTML page from the artefacts in DIR: verdict, slices, categories, documents, and where they come from.

    DIR is what `annotator run` writes, or any folder with the same file names; what is missing is named on the page. It
    holds no script and loads nothing, so it can be sent around.

    \b
    Example:
      annotator report demo -o report.html --documents corpus/
    """
    from annotator.errors import BadInput
    from annotator.report import report
    from annotator.tables import write_probe, write_text

    if Path(out).suffix.lower() not in (".html", ".htm"):  # an artefact must not be overwritten by a slip
        raise BadInput("the page is an HTML file", where=f"--out {out}", remedy="Write -o report.html, say.")
    write_probe(Path(out).parent)
    page = report(folder, documents=documents, columns=columns)
    write_text(Path(out), page)
    size = len(page.encode("utf-8"))
    emit({"out": out, "bytes": size}, as_json=as_json, quiet=quiet, show=lambda: click.echo(f"{size:,} bytes -> {out}"))
    return 0
