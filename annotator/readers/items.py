"""Benchmark items: one row an item, from plain tables and from evaluation logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from annotator.errors import BadInput
from annotator.readers.columns import ITEMS, check_overrides, resolve
from annotator.readers.duplicates import SeenIds
from annotator.readers.frames import extra_columns, stack
from annotator.readers.shards import Shard, find_shards
from annotator.readers.tables import Rows, stream_rows
from annotator.readers.values import as_id, as_strings, flatten, strings_or_none

COLUMNS = {
    "item_id": pl.String,
    "benchmark": pl.String,
    "task": pl.String,
    "prompt": pl.String,
    "target": pl.String,
    "choices": pl.List(pl.String),
    "cluster_id": pl.String,
}


def read_items(inputs: Sequence[str | Path], *, columns: Mapping[str, str] = {}) -> pl.DataFrame:
    """All items of some files, folders or globs, in the order of shards and rows.

    Args:
        inputs: plain tables.
        columns: canonical name -> the tables' own name, where the aliases of the contract do not fit; a field of a
            nested object is "outer.inner".

    Returns:
        item_id str, benchmark str?, task str?, prompt str, target str? (several accepted answers joined by "; "),
        choices list[str]?, cluster_id str?; then all other columns as they came: scalars of a nested object as
        "outer.inner", lists and deeper objects as JSON text.

    Raises:
        BadInput: naming file and row: unreadable file, bad JSON, no such column, missing id, empty prompt, two items
            with one id; or no items at all.
    """
    check_overrides(columns, ITEMS)
    seen = SeenIds()
    frames = []
    for shard in find_shards(inputs):
        frame = _read_shard(shard, columns)
        if frame.height:
            seen.add(frame["item_id"], frame["row"], shard)
            frames.append(frame.drop("row"))
    if not frames:
        raise BadInput("no items", where=", ".join(map(str, inputs)), remedy="Give a table with at least one row.")
    return stack(frames)


def _read_shard(shard: Shard, columns: Mapping[str, str]) -> pl.DataFrame:
    rows = all_rows(shard)
    if not rows.values:
        return pl.DataFrame(schema={**COLUMNS, "row": pl.Int64})
    flat = [flatten(row) for row in rows.values]
    present = dict.fromkeys(name for row in flat for name in row)
    found = resolve(present, ITEMS, columns, required=("item_id", "prompt"), where=str(shard.path))
    frame = canonical_items(flat, found).with_columns(pl.Series("row", rows.numbers, dtype=pl.Int64))
    for name, fault in (("item_id", "missing id"), ("prompt", "empty prompt")):
        blank = frame.filter(pl.col(name).is_null() | (pl.col(name).str.strip_chars() == ""))
        if blank.height:
            raise BadInput(
                f"{fault} ({found[name]!r} has no text)",
                where=shard.place(blank["row"][0]),
                remedy="Fill it in, or leave the row out.",
            )
    extras = extra_columns(flat, {*found.values(), *frame.columns}, from_text=shard.format == "csv")
    return frame.with_columns(extras)


def all_rows(shard: Shard) -> Rows:
    """Every row of a shard at once; a row that cannot be parsed is an error here."""
    numbers: list[int] = []
    values: list[dict[str, Any]] = []
    for rows in stream_rows(shard):
        if rows.bad:
            row, fault = rows.bad[0]
            raise BadInput(fault, where=shard.place(row), remedy="Mend or remove this line.")
        numbers += rows.numbers
        values += rows.values
    return Rows(numbers, values)


def canonical_items(flat: Sequence[Mapping[str, Any]], found: Mapping[str, str]) -> pl.DataFrame:
    """The canonical item columns of some flattened rows; ids and prompts may be null or blank."""

    def taken(name: str) -> list[Any]:
        return [row.get(found[name]) for row in flat] if name in found else [None] * len(flat)

    texts = ("benchmark", "task", "prompt", "target")
    data: dict[str, list[Any]] = {name: strings_or_none(taken(name)) for name in texts}
    data["choices"] = [None if value is None else as_strings(value) for value in taken("choices")]
    for name in ("item_id", "cluster_id"):
        data[name] = [as_id(value) for value in taken(name)]
    return pl.DataFrame({name: data[name] for name in COLUMNS}, schema=COLUMNS)
