"""`annotator review`: a person looks at labels and corrects them; the answers are gold."""

from __future__ import annotations

import getpass
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.common import column_option, emit, keep_inputs, output_options, taxonomy_option
from annotator.errors import BadInput

if TYPE_CHECKING:
    import polars as pl

    from annotator.review import Queue
    from annotator.taxonomy import Taxonomy


@click.command("review")
@click.argument("labels_path", metavar="[LABELS]", required=False)
@click.option("--text", "inputs", multiple=True, metavar="INPUT", help="The records that were labelled.")
@click.option("--out", "-o", metavar="GOLD", help="Table of the answers. [default: gold.jsonl beside LABELS]")
@click.option("--annotator", metavar="NAME", help="Who answers; stands in every row. [default: your login name]")
@click.option("--sample", "draw", type=click.IntRange(1), metavar="N", help="Only N records, drawn fairly.")
@click.option("--to-label-studio", "tasks_path", metavar="TASKS.json", help="Write tasks for Label Studio instead.")
@click.option("--from-label-studio", "export_path", metavar="EXPORT.json", help="Read annotations of Label Studio.")
@column_option
@taxonomy_option
@output_options
def command(
    labels_path: str | None, inputs: tuple[str, ...], out: str | None, annotator: str | None, draw: int | None,
    tasks_path: str | None, export_path: str | None, columns: dict[str, str], taxonomy_path: str | None,
    quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Look at LABELS in the browser, correct them with the keyboard, and keep the answers as gold.

    Prints the address of a page on this machine, which shows one record after the other, those first that the judge was
    least sure of, with the evidence marked and the values defined. Enter accepts, ? shows the keys, Ctrl-C here stops.
    Every answer is written at once; the same command goes on where it was, without the records in GOLD.

    \b
    GOLD has the columns of a label table and annotator, reviewed_at, corrected:
    `annotator agree LABELS GOLD` and `annotator distill GOLD --text ...` read it.
    To measure a judge, use --sample: the least sure first are not a fair sample.
    Two people who answer the same records need a GOLD each.

    \b
    Examples:
      annotator review labels.parquet --text corpus/ --sample 200 -o gold.jsonl
      annotator review labels.parquet --text corpus/ --to-label-studio tasks.json
      annotator review --from-label-studio export.json -o gold.jsonl
    """
    from annotator.taxonomy import load_taxonomy

    taxonomy = load_taxonomy(taxonomy_path)
    if export_path:
        _only_import(labels_path, inputs, draw, tasks_path)
        summary = _import(Path(export_path), out, taxonomy, annotator)
        emit(summary, as_json=as_json, quiet=quiet, show=lambda: _show_import(summary))
        return 0
    if not labels_path or not inputs:
        raise click.UsageError("give LABELS and, with --text, the records that were labelled.")
    if tasks_path:
        if out or annotator:
            raise click.UsageError("-o and --annotator mean nothing with --to-label-studio.")
        summary = _export(labels_path, inputs, tasks_path, taxonomy, draw, columns)
        emit(summary, as_json=as_json, quiet=quiet, show=lambda: _show_export(summary))
        return 0
    out = out or str(Path(labels_path).with_name("gold.jsonl"))
    keep_inputs(out, labels_path, *inputs)
    return _review(labels_path, inputs, Path(out), taxonomy, _name(annotator), draw, columns, quiet, as_json)


def _only_import(labels_path: str | None, inputs: tuple[str, ...], draw: int | None, tasks_path: str | None) -> None:
    if labels_path or inputs or draw or tasks_path:
        raise click.UsageError("--from-label-studio takes only -o, --annotator and --taxonomy.")


def _name(given: str | None) -> str:
    from annotator.review import check_annotator

    try:
        return check_annotator(getpass.getuser() if given is None else given)
    except (OSError, KeyError, ImportError):  # no login name, as in a container: Python 3.13 has OSError
        raise BadInput("your login name is not known", where="--annotator", remedy="Give your name.") from None


def _queue(labels_path: str, taxonomy: Taxonomy, draw: int | None, reviewed: set[str]) -> Queue:
    from annotator.review import read_reviewable, review_queue

    return review_queue(read_reviewable(Path(labels_path), taxonomy), reviewed=reviewed, draw=draw)


def _texts(queue: Queue, inputs: tuple[str, ...], columns: dict[str, str]) -> pl.DataFrame:
    from annotator.distill import texts_of
    from annotator.review import with_texts

    return with_texts(queue.labels, texts_of(queue.labels, inputs, columns=columns))


def _review(
    labels_path: str, inputs: tuple[str, ...], out: Path, taxonomy: Taxonomy, name: str, draw: int | None,
    columns: dict[str, str], quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    from annotator.review import GoldFile, check_version
    from annotator.reviewing.desk import Desk
    from annotator.reviewing.server import ReviewServer

    gold = GoldFile(out)
    for row in gold.rows.values():
        check_version(row["taxonomy_version"], taxonomy, where=str(out))
    queue = _queue(labels_path, taxonomy, draw, set(gold.rows))
    summary = {"out": str(out), "annotator": name, "reviewed_before": queue.reviewed, "failed": queue.failed}
    summary |= {"not_drawn": queue.not_drawn, "answered": 0, "corrected": 0, "left": 0}
    if queue.labels.height:
        desk = Desk(_texts(queue, inputs, columns), gold, taxonomy=taxonomy, annotator=name)
        with ReviewServer(desk) as server:
            # On stderr, also with --quiet: without the address nobody can start.
            click.echo(f"Open {server.url}\n{queue.labels.height:,} records; Ctrl-C stops.", err=True)
            _serve(server)
        summary |= {"answered": desk.answered, "corrected": desk.corrected}
        summary["left"] = queue.labels.height - desk.answered
    emit(summary, as_json=as_json, quiet=quiet, show=lambda: _show_review(summary))
    return 3 if summary["left"] else 0


def _serve(server: Any) -> None:
    """Serve until Ctrl-C or SIGTERM, which here are the way to finish."""

    def stop(_signal: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        with server.lock:  # an answer that is being written is finished first
            pass
    finally:
        signal.signal(signal.SIGTERM, before)


def _export(
    labels_path: str, inputs: tuple[str, ...], tasks_path: str, taxonomy: Taxonomy, draw: int | None,
    columns: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    from annotator.reviewing.label_studio import labelling_config, tasks
    from annotator.tables import beside, write_json, write_probe, write_text

    target = Path(tasks_path)
    config = beside(target, "config.xml")
    write_probe(target.parent)
    keep_inputs(tasks_path, labels_path, *inputs)
    queue = _queue(labels_path, taxonomy, draw, set())
    kinds = queue.labels["kind"].unique().sort().to_list()
    if len(kinds) != 1:
        what = "there are labels of both items and documents" if kinds else "there is no label"
        remedy = "A project of Label Studio has one form: give the labels of one side."
        raise BadInput(what, where=labels_path, remedy=remedy)
    made = tasks(_texts(queue, inputs, columns), taxonomy)
    write_json(target, made)
    write_text(config, labelling_config(kinds[0], taxonomy))
    return {"tasks": len(made), "out": str(target), "config": str(config), "failed": queue.failed,
            "not_drawn": queue.not_drawn}  # fmt: skip


def _import(export: Path, out: str | None, taxonomy: Taxonomy, annotator: str | None) -> dict[str, Any]:
    from annotator.reviewing.label_studio import read_export
    from annotator.tables import check_output, write_table

    if not out:
        raise click.UsageError("--from-label-studio needs -o GOLD.")
    check_output(Path(out))
    if Path(out).exists():
        raise BadInput("exists already", where=out, remedy="Name another file: gold is never overwritten.")
    found = read_export(export, taxonomy, annotator=annotator)
    if found.gold.is_empty():
        remedy = "Annotate some tasks first, or name another --annotator."
        raise BadInput(f"no annotation in {found.read:,} tasks", where=str(export), remedy=remedy)
    write_table(found.gold, Path(out), made_from={"step": "review", "taxonomy_version": taxonomy.version})
    return {"tasks": found.read, "answered": found.gold.height, "corrected": found.corrected,
            "unanswered": found.unanswered, "skipped": found.skipped, "out": out}  # fmt: skip


def _show_review(summary: dict[str, Any]) -> None:
    if not summary["answered"] and not summary["left"]:
        click.echo(f"Nothing is left to review: {summary['reviewed_before']:,} records are in {summary['out']}.")
        return
    click.echo(
        f"{summary['answered']:,} answered by {summary['annotator']}, {summary['corrected']:,} of them corrected; "
        f"{summary['left']:,} left -> {summary['out']}"
    )
    if summary["left"]:
        click.echo("The same command goes on from there.")


def _show_export(summary: dict[str, Any]) -> None:
    click.echo(f"{summary['tasks']:,} tasks -> {summary['out']}")
    click.echo(f"labelling form (Settings, Labeling Interface, Code) -> {summary['config']}")


def _show_import(summary: dict[str, Any]) -> None:
    click.echo(
        f"{summary['answered']:,} of {summary['tasks']:,} tasks annotated, {summary['corrected']:,} of them corrected; "
        f"{summary['unanswered']:,} unanswered, {summary['skipped']:,} skipped -> {summary['out']}"
    )
