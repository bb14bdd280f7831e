"""Label tables in the making: finished input shards are kept, so that a restart skips them without reading them."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
import polars as pl

from annotator.errors import BadInput
from annotator.fingerprint import fingerprint, short
from annotator.readers import Shard
from annotator.tables import check_output, write_json, write_probe, write_table, write_whole

_ROW_GROUP = 32_768  # a million rows are joined in 130 MB; groups four times as large take twice that
_EDGE_BYTES = 1 << 16
_TABLES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of one output lie. Plain values, so that worker processes can be told.

    run: fingerprint of everything but the shards that makes the labels. is_folder: `out` gets one table a shard.
    """

    out: Path
    folder: Path
    run: str
    is_folder: bool


class Parts:
    """The finished and unfinished shards of one output: a table file, or a folder with one table a shard.

    Args:
        out: what the user named; a folder if it is one, or its name has no suffix.
        run: see `Layout`.

    Raises:
        BadInput: it cannot be written, or another run is writing it.
    """

    def __init__(self, out: Path, run: str) -> None:
        is_folder = out.is_dir() or not out.suffix
        if is_folder:
            write_probe(out)
        else:
            check_output(out)
        folder = out / ".parts" if is_folder else out.with_name(f"{out.name}.parts")
        write_probe(folder)
        self.layout = Layout(out, folder, run, is_folder)
        self._lock: IO[str] = (folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            remedy = "Wait for it, or name another output."
            raise BadInput("another run is writing this output", where=str(out), remedy=remedy) from None

    def close(self) -> None:
        """Let other runs write this output. A folder without finished shards goes: a restart would begin anew."""
        if not any(self.layout.folder.glob("*.json")):
            shutil.rmtree(self.layout.folder, ignore_errors=True)
        self._lock.close()

    def publish(self, parts: Sequence[Part], made_from: Mapping[str, Any]) -> Path | None:
        """Write the dead letters and the table, each whole; the dead-letter file, or None when it would be empty.

        Args:
            parts: all finished, in the order of the shards.
        """
        out = self.layout.out
        failed_path = failed_path_of(out)
        failed = [part.failed for part in parts if part.failed.exists()]
        if failed:
            write_whole(failed_path, lambda temporary: _join(failed, temporary))
        else:
            failed_path.unlink(missing_ok=True)
        if not self.layout.is_folder:
            tables = [part.table for part in parts]
            # A shard without records says nothing of the columns that a student adds, and the first decides them.
            filled = [table for table in tables if pl.scan_parquet(table, glob=False).select(pl.len()).collect().item()]
            _write_table(filled or tables, out, dict(made_from))
            shutil.rmtree(self.layout.folder, ignore_errors=True)
        return failed_path if failed else None


def failed_path_of(out: Path) -> Path:
    """Where the dead-letter file of an output goes."""
    return out.with_name(f"{out.name}.failed.jsonl")


class Part:
    """The labels of one input shard: pieces while it is being labelled, then one table and a mark that it is whole.

    The mark holds the counts of the shard and is written last, so it vouches for the rest.
    """

    def __init__(self, layout: Layout, shard: Shard) -> None:
        self.shard = shard
        name = short(fingerprint([layout.run, shard.name, _identity(shard.path)]))
        self._mark = layout.folder / f"{name}.json"
        self._pieces = layout.folder / name
        self.failed = layout.folder / f"{name}.failed.jsonl"
        self.table = layout.folder / f"{name}.parquet"
        if layout.is_folder:
            self.table = layout.out / f"{_without_suffix(shard.name)}.parquet"
            if self.table.exists() and self.table.samefile(shard.path):
                remedy = "Name another folder: the labels would replace the records."
                raise BadInput("the output folder is where the input lies", where=str(layout.out), remedy=remedy)
        self._written = 0
        self._expected: int | None = None
        self._guard = threading.Lock()  # pieces are written in one thread while the shard is read in another

    def finished(self) -> dict[str, Any] | None:
        """What `finish` was told about a shard that is finished, or None."""
        try:
            counts = orjson.loads(self._mark.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None
        # In a folder a table keeps its name whatever made it, so another run may have replaced it.
        return counts if self.table.exists() and counts.pop("table", None) == _identity(self.table) else None

    def begin(self) -> None:
        """Forget the pieces of a run that was interrupted within this shard; their answers are in the cache."""
        shutil.rmtree(self._pieces, ignore_errors=True)

    def add_piece(self, index: int, labels: pl.DataFrame, letters: Sequence[Mapping[str, Any]]) -> None:
        """Write the labels and dead letters of some consecutive records; `index` says where they belong."""
        self._pieces.mkdir(exist_ok=True)
        if len(labels):
            labels.write_parquet(self._pieces / f"{index:08}.parquet", compression="zstd", compression_level=1)
        if letters:
            lines = b"".join(orjson.dumps(letter, option=orjson.OPT_APPEND_NEWLINE) for letter in letters)
            (self._pieces / f"{index:08}.jsonl").write_bytes(lines)
        with self._guard:
            self._written += 1

    def expect(self, pieces: int) -> None:
        """Say how many pieces the shard has, once it is read to the end."""
        with self._guard:
            self._expected = pieces

    def is_complete(self) -> bool:
        """Whether all pieces are there; true for one caller only, who then finishes the part."""
        with self._guard:
            complete = self._expected is not None and self._written == self._expected
            if complete:
                self._expected = None
            return complete

    def finish(self, empty: pl.DataFrame, made_from: Mapping[str, Any], counts: Mapping[str, Any]) -> None:
        """Join the pieces into the table of the shard.

        Args:
            empty: has the columns, for a shard without records.
            counts: JSON values to be had back from `finished`.
        """
        tables = sorted(self._pieces.glob("*.parquet"))
        letters = sorted(self._pieces.glob("*.jsonl"))
        if letters:
            write_whole(self.failed, lambda temporary: _join(letters, temporary))
        else:
            self.failed.unlink(missing_ok=True)  # of an earlier run of this shard
        if tables:
            _write_table(tables, self.table, dict(made_from))
        else:
            write_table(empty, self.table, made_from=made_from)
        write_json(self._mark, {**counts, "table": _identity(self.table)})
        shutil.rmtree(self._pieces, ignore_errors=True)


def _identity(path: Path) -> list[Any]:
    """Size, time and both ends of a file: enough to notice that it is another one, without reading a terabyte."""
    status = path.stat()
    with path.open("rb") as opened:
        ends = hashlib.sha256(opened.read(_EDGE_BYTES))
        opened.seek(max(0, status.st_size - _EDGE_BYTES))
        ends.update(opened.read(_EDGE_BYTES))
    return [status.st_size, status.st_mtime_ns, ends.hexdigest()]


def _without_suffix(name: str) -> str:
    for suffix in (".jsonl.gz", ".jsonl.zst", *_TABLES, ".json"):
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def _join(files: Sequence[Path], target: Path) -> None:
    with target.open("wb") as joined:
        for file in files:
            with file.open("rb") as opened:
                shutil.copyfileobj(opened, joined)


def _write_table(tables: Sequence[Path], path: Path, made_from: dict[str, Any]) -> None:
    """Join parquet files into one table in the format of its name, streaming: memory does not follow the rows."""
    frame = pl.scan_parquet(list(tables), missing_columns="insert", glob=False)
    if path.name.endswith(".csv"):
        write_table(frame.collect(), path)
    elif path.name.endswith(".parquet"):
        metadata = {"annotator": orjson.dumps(made_from, option=orjson.OPT_SORT_KEYS).decode()}
        write_whole(
            path,
            lambda temporary: (
                frame.sink_parquet(
                    temporary, compression="zstd", row_group_size=_ROW_GROUP, metadata=metadata, maintain_order=True
                )
                and None
            ),
        )
    else:
        compression = {"gz": "gzip", "zst": "zstd"}.get(path.name.rsplit(".", 1)[-1], "uncompressed")
        write_whole(
            path,
            lambda temporary: frame.sink_ndjson(temporary, compression=compression, check_extension=False) and None,  # type: ignore[arg-type]
        )
