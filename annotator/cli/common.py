"""What all commands share: options, progress on stderr, results on stdout."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from annotator.errors import BadInput

F = Callable[..., Any]


def output_options(function: F) -> F:
    """Adds --quiet and --json, which every command has."""
    function = click.option(
        "--json", "as_json", is_flag=True, help="Print a machine-readable summary on stdout instead of tables."
    )(function)
    return click.option("--quiet", "-q", is_flag=True, help="No progress, no tables; errors only.")(function)


def column_option(function: F) -> F:
    """Adds --column canonical=theirs, which may be given several times."""
    return click.option(
        "--column",
        "columns",
        multiple=True,
        metavar="NAME=THEIRS",
        callback=_parse_columns,
        help="Read the column NAME from their column THEIRS, e.g. --column item_id=uuid.",
    )(function)


def taxonomy_option(function: F) -> F:
    """Adds --taxonomy FILE."""
    return click.option(
        "--taxonomy", "taxonomy_path", metavar="FILE", help="Your own taxonomy with the same four axes."
    )(function)


def finite(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    """Callback of options whose value must be a number: NaN is in every range, and an endless limit is none."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.")
    return value


def _parse_columns(_context: click.Context, _option: click.Parameter, pairs: Sequence[str]) -> dict[str, str]:
    columns = {}
    for pair in pairs:
        name, sign, theirs = pair.partition("=")
        if not (name and sign and theirs):
            raise BadInput(f"{pair!r} is not NAME=THEIRS", where="--column", remedy="Write --column item_id=uuid, say.")
        columns[name] = theirs
    return columns


@contextmanager
def stdin_as_file(inputs: Sequence[str]) -> Iterator[list[str]]:
    """The inputs with `-` replaced by a temporary .jsonl file that holds what stdin gave."""
    if "-" not in inputs:
        yield list(inputs)
        return
    with tempfile.TemporaryDirectory(prefix="annotator-stdin-") as folder:
        spooled = Path(folder) / "stdin.jsonl"
        with spooled.open("wb") as target:
            while block := sys.stdin.buffer.read(1 << 20):
                target.write(block)
        if not spooled.stat().st_size:
            raise BadInput("nothing came", where="standard input", remedy="Did the command before the pipe fail?")
        yield [str(spooled) if name == "-" else name for name in inputs]


def keep_inputs(out: str | Path, *inputs: str | Path) -> None:
    """Raise BadInput if writing `out` would overwrite a file that is read (files, folders, globs; None is skipped)."""
    from annotator.readers import find_shards

    target = Path(out)
    if not target.exists():
        return
    paths = [shard.path for shard in find_shards([path for path in inputs if path])]
    if any(path.exists() and path.samefile(target) for path in paths):
        raise BadInput("is one of the inputs", where=str(out), remedy="Name another output: it would be overwritten.")


def columns_of(side: str, columns: dict[str, str]) -> dict[str, str]:
    """The overrides that one kind of table ("items" or "samples") knows, out of those for a command that reads both.

    Raises:
        BadInput: an override that neither knows.
    """
    from annotator.errors import did_you_mean
    from annotator.readers.columns import ITEMS, SAMPLES

    for name in columns:
        if name not in ITEMS and name not in SAMPLES:
            remedy = did_you_mean(name, [*ITEMS, *SAMPLES])
            raise BadInput(f"{name!r} is not a column that can be set", where="--column", remedy=remedy)
    known = ITEMS if side == "items" else SAMPLES
    return {name: theirs for name, theirs in columns.items() if name in known}


def listed(text: str | None, option: str, example: str) -> list[str]:
    """The names of an option that takes several by comma, each once; none where it is not given.

    Raises:
        BadInput: it is given and names nothing.
    """
    names = list(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    if text is not None and not names:
        raise BadInput(f"{text!r} names nothing", where=option, remedy=f"Write {option} {example}, say.")
    return names


def emit(summary: dict[str, Any], *, as_json: bool, quiet: bool, show: Callable[[], None]) -> None:
    """Print the result of a command: JSON for scripts, what `show` prints for people, or nothing."""
    if as_json:
        options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        click.echo(orjson.dumps(summary, option=options).decode())
    elif not quiet:
        show()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    """A plain table on stdout; numbers to the right, long cells wrapped to the width of the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    numeric = [all(isinstance(row[k], int | float | None) for row in rows) and bool(rows) for k in range(len(columns))]
    if title:
        click.echo(title)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, is_number in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    # Rendered to text first: rich ends the program with exit code 1 when a pipe is closed.
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    with console.capture() as captured:
        console.print(table)
    click.echo(captured.get(), nl=False)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(str(inner) for inner in value)
    return str(value)


class ProgressLine:
    """Progress on stderr: a bar with rate and time left on a terminal, a plain line every ten seconds elsewhere.

    Appears only after two seconds, so that short commands stay silent; never appears when quiet.
    """

    def __init__(self, label: str, *, quiet: bool) -> None:
        self.label, self.quiet = label, quiet
        self.started = self.last_shown = time.monotonic()
        self.bar: Any = None

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Report `done` records of `total` (None when unknown); `note` is shown at the end (tokens, cost)."""
        now = time.monotonic()
        if self.quiet or now - self.started < 2:
            return
        if sys.stderr.isatty():
            self._draw(done, total, note)
        elif now - self.last_shown >= 10:
            self.last_shown = now
            share = f"{done:,}/{total:,}" if total else f"{done:,}"
            click.echo(f"{self.label}: {share}, {done / (now - self.started):,.0f}/s {note}".rstrip(), err=True)

    def _draw(self, done: int, total: int | None, note: str) -> None:
        if self.bar is None:
            from rich import progress
            from rich.console import Console

            self.bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[rate]}"),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self.bar.add_task(self.label, total=total, rate="", note="")
            self.bar.start()
        rate = f"{done / (time.monotonic() - self.started):,.0f}/s"
        self.bar.update(self.bar.task_ids[0], completed=done, total=total, rate=rate, note=note)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
