"""`annotator demo`: the whole loop on the bundled example, offline."""

from __future__ import annotations

import click

from annotator.cli.common import emit, output_options


@click.command("demo")
@click.option("--out", "-o", default="demo", show_default=True, metavar="DIR", help="Folder for the artefacts.")
@output_options
def command(out: str, quiet: bool, as_json: bool) -> int:
    """Run the whole loop on the bundled example with the embedded judge: no network, no key, about a minute.

    The example is synthetic: items, model outputs and documents were written for this project, and the second
    checkpoint was made weak in two kinds of task, which the loop has to find.
    """
    from annotator.cli.run import run_with_progress, show_result
    from annotator.resources import resource

    result = run_with_progress(str(resource("examples", "loop.toml")), out=out, cache_dir="cache", quiet=quiet)
    emit(result.as_dict(), as_json=as_json, quiet=quiet, show=lambda: show_result(result))
    return 1 if result.failed else 0
