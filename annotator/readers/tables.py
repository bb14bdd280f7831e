"""Rows of plain tables, streamed: jsonl, csv and parquet, in batches bounded in rows and in bytes."""

from __future__ import annotations

import codecs
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from annotator.errors import BadInput
from annotator.fingerprint import without_surrogates
from annotator.readers.compressed import chunks
from annotator.readers.recognise import PARQUET_FAULTS
from annotator.readers.shards import Shard, find_shards

_BATCH_BYTES = 32 << 20
_LINE_BYTES = 1 << 28
_TO_UTF8 = "Convert it: iconv -f {} -t UTF-8 OLD > NEW."

csv.field_size_limit(sys.maxsize if sys.maxsize < 1 << 31 else 1 << 31)  # cells of a megabyte and more are real


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of one shard as they stand in it.

    numbers: 0-based rows in the shard. values: the row's columns, as many as numbers. bad: (row, what is wrong with it)
    for the rows that could not be parsed.
    """

    numbers: list[int]
    values: list[dict[str, Any]]
    bad: list[tuple[int, str]] = field(default_factory=list)


def stream_rows(shard: Shard, *, batch_rows: int = 4096) -> Iterator[Rows]:
    """The rows of a shard as dicts, at most `batch_rows` (and about 32 MB of text) at a time.

    A line of jsonl that is not a JSON object is reported in `Rows.bad`. Lone surrogates become U+FFFD.

    Raises:
        BadInput: the file is damaged or cut short, or is not a table.
    """
    if shard.format in ("parquet", "lighteval"):
        for first, frame in stream_frames(shard, batch_rows=batch_rows):
            yield Rows(list(range(first, first + frame.height)), frame.to_dicts())
    elif shard.format == "csv":
        yield from _csv_rows(shard, batch_rows)
    else:
        yield from _jsonl_rows(shard, batch_rows)


def filled_shards(inputs: Sequence[str | Path]) -> list[Shard]:
    """`find_shards`, sure that there is a row to read.

    Raises:
        BadInput: as `find_shards` and `stream_rows`, or if no shard has a row.
    """
    shards = find_shards(inputs)
    if not any(_has_rows(shard) for shard in shards):
        where = str(shards[0].path) if len(shards) == 1 else f"{len(shards)} files"
        raise BadInput("no records", where=where, remedy="Was it still being written?")
    return shards


def _has_rows(shard: Shard) -> bool:
    """Whether a plain table has a row, found by reading to the first; logs of a harness are taken to have some."""
    return shard.format not in ("jsonl", "csv", "parquet") or any(True for _ in stream_rows(shard, batch_rows=1))


# jsonl ---------------------------------------------------------------------------------------------------------------


def _jsonl_rows(shard: Shard, batch_rows: int) -> Iterator[Rows]:
    rows, size = Rows([], []), 0
    numbers, values = rows.numbers, rows.values
    loads = orjson.loads
    readable, first_bad = False, None
    for number, line in enumerate(_lines(shard)):
        try:
            value = loads(line)
        except orjson.JSONDecodeError:
            if not line.strip():
                continue
            value = _parse_leniently(line)
        if type(value) is dict:
            numbers.append(number)
            values.append(value)
        else:
            rows.bad.append((number, value if type(value) is _Fault else "not a JSON object"))
            first_bad = first_bad or (number, rows.bad[-1][1], line)
        size += len(line)
        if len(numbers) >= batch_rows or size >= _BATCH_BYTES:
            readable = readable or bool(numbers)
            yield rows
            rows, size = Rows([], []), 0
            numbers, values = rows.numbers, rows.values
    if first_bad and not (readable or numbers):
        raise _unreadable(shard, *first_bad)
    if numbers or rows.bad:
        yield rows


def _lines(shard: Shard) -> Iterator[bytes]:
    """Lines without their line feed. Split on line feeds only: other separators may stand inside JSON strings."""
    parts: list[bytes] = []
    begun = 0
    first = True
    for chunk in chunks(shard.path):
        lines = chunk.split(b"\n")
        if len(lines) == 1:
            parts.append(chunk)
            begun += len(chunk)
            if begun > _LINE_BYTES:
                raise BadInput(
                    f"a line of more than {_LINE_BYTES >> 20} MB",
                    where=str(shard.path),
                    remedy="Is it a table with one JSON object a line?",
                )
            continue
        parts.append(lines[0])
        lines[0] = b"".join(parts)
        if first:
            lines[0], first = lines[0].removeprefix(b"\xef\xbb\xbf"), False
        parts, begun = [lines.pop()], 0
        yield from lines
    last = b"".join(parts)
    if last:
        yield last.removeprefix(b"\xef\xbb\xbf") if first else last


def _unreadable(shard: Shard, row: int, fault: str, line: bytes) -> BadInput:
    """The error for a file without a single row that can be read: it is something else than JSON lines."""
    remedy = "Give one JSON object a line."
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        fault, remedy = "this is UTF-16 text", _TO_UTF8.format("UTF-16")
    elif b"\0" in line:
        fault = "this is binary data, not text"
    elif line.lstrip().startswith(b"["):
        fault, remedy = "this is a JSON array, not one JSON object a line", "Convert it: jq -c '.[]' OLD > NEW.jsonl."
    return BadInput(f"no line is a JSON object ({fault})", where=shard.place(row), remedy=remedy)


class _Fault(str):
    """Why a line is not JSON."""


def _parse_leniently(line: bytes) -> Any:
    """A line that the strict parser refuses: lone surrogates, NaN and Infinity, which other writers let through."""
    try:
        return without_surrogates(json.loads(line.decode("utf-8")))
    except UnicodeDecodeError:
        return _Fault("not UTF-8 text")
    except json.JSONDecodeError as error:
        return _Fault(f"not JSON ({error.msg.removesuffix(' at')} at character {error.pos + 1})")
    except (RecursionError, ValueError):
        return _Fault("not JSON that can be read (too deep, or a number too long)")


# csv -----------------------------------------------------------------------------------------------------------------


def _csv_rows(shard: Shard, batch_rows: int) -> Iterator[Rows]:
    """Every cell is a string; an empty one is None. The separator is a comma, tab or semicolon, by the header."""
    lines = _csv_lines(shard)
    header = next(lines, None)
    if header is None:
        return
    separator = max(",\t;", key=header.count)
    # Handing lines over one by one keeps the reader's memory at one record; a quoted cell may hold line feeds.
    reader = csv.reader(_chain(header, lines), delimiter=separator, strict=True)
    rows, size, begun = Rows([], []), 0, 0  # begun: lines before the current record
    try:
        names = next(reader)
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise BadInput(f"column {twice[0]!r} is there twice", where=str(shard.path), remedy="Rename one of them.")
        number = -1
        begun = reader.line_num
        for cells in reader:
            begun = reader.line_num
            if not cells:
                continue
            number += 1
            if len(cells) > len(names):
                raise BadInput(
                    f"{len(cells)} cells, but the header has {len(names)}",
                    where=shard.place(number),
                    remedy="Quote cells that hold the separator.",
                )
            rows.numbers.append(number)
            rows.values.append(dict(zip(names, (cell or None for cell in cells))))
            size += sum(map(len, cells))
            if len(rows.numbers) >= batch_rows or size >= _BATCH_BYTES:
                yield rows
                rows, size = Rows([], []), 0
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            remedy = "Close it; a quote inside a quoted cell is written twice."
            raise BadInput("a quoted cell is not closed", where=f"{shard.path}:{begun + 1}", remedy=remedy) from None
        remedy = "Write a quote inside a quoted cell twice."
        raise BadInput(f"not csv ({error})", where=f"{shard.path}:{reader.line_num}", remedy=remedy) from None
    if rows.numbers:
        yield rows


def _csv_lines(shard: Shard) -> Iterator[str]:
    for number, line in enumerate(_lines(shard), start=1):
        where = f"{shard.path}:{number}"
        if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise BadInput("this is UTF-16 text", where=where, remedy=_TO_UTF8.format("UTF-16"))
        try:
            yield line.decode("utf-8") + "\n"
        except UnicodeDecodeError:
            raise BadInput("not UTF-8 text", where=where, remedy=_TO_UTF8.format("LATIN1")) from None


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


# parquet -------------------------------------------------------------------------------------------------------------


def stream_frames(
    shard: Shard, *, columns: list[pl.Expr] | None = None, batch_rows: int = 4096
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Slices of a parquet file with the row they start at, each of about 32 MB or less.

    Slices of a lazy scan touch only the pages that hold their rows, so memory follows the slice; reading by row group
    would follow the writer's choice of row group, which may be the whole file.

    Raises:
        BadInput: the file is damaged or cut short.
    """
    try:
        scan = pl.scan_parquet(shard.path, glob=False)
        total = scan.select(pl.len()).collect().item()
        if columns is not None:
            scan = scan.select(columns)
        start, wanted = 0, min(batch_rows, 512)
        while start < total:
            frame = scan.slice(start, wanted).collect()
            yield start, frame
            start += frame.height
            fitting = int(frame.height * _BATCH_BYTES / max(frame.estimated_size(), 1))
            wanted = max(1, min(batch_rows, fitting))
    except PARQUET_FAULTS as error:
        raise parquet_fault(shard, error) from None


def parquet_fault(shard: Shard, error: Exception) -> BadInput:
    """The error for a parquet file that polars cannot read."""
    first = (str(error).splitlines() or ["unreadable"])[0]
    return BadInput(
        f"cannot be read as parquet ({first})", where=str(shard.path), remedy="Copy or write the file again."
    )
