"""Benchmark items: one row an item, from plain tables and from evaluation logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from annotator.errors import BadInput
from annotator.fingerprint import fingerprint
from annotator.readers.columns import ITEM_TYPES, ITEMS, check_overrides, resolve
from annotator.readers.duplicates import SeenIds
from annotator.readers.frames import extra_columns, stack
from annotator.readers.logs import HARNESSES, log_items, rename
from annotator.readers.shards import Shard, find_shards
from annotator.readers.tables import Rows, stream_rows
from annotator.readers.values import as_id, as_strings, flatten, strings_or_none


def read_items(inputs: Sequence[str | Path], *, columns: Mapping[str, str] = {}) -> pl.DataFrame:
    """All items of some files, folders or globs, in the order of shards and rows.

    Args:
        inputs: plain tables, or logs of evaluation harnesses (see `annotator.readers.logs`).
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
    logged: dict[str, tuple[str, str]] = {}
    frames = []
    for shard in find_shards(inputs):
        if shard.format in HARNESSES:
            frame, rows = _new_log_items(shard, columns, logged)
        else:
            frame, rows = _read_shard(shard, columns)
        if frame.height:
            seen.add(frame["item_id"], rows, shard)
            frames.append(frame)
    if not frames:
        raise BadInput("no items", where=", ".join(map(str, inputs)), remedy="Give a table with at least one row.")
    return stack(frames)


def _new_log_items(
    shard: Shard, columns: Mapping[str, str], logged: dict[str, tuple[str, str]]
) -> tuple[pl.DataFrame, pl.Series]:
    """The items of a log that no log before it had; the logs of two runs of one benchmark may be given together.

    logged: item id -> (fingerprint of its text, where it was read), filled here.
    """
    frame, rows = log_items(shard)
    frame = rename(frame, columns, str(shard.path))
    fresh = []
    for item_id, row, *content in zip(frame["item_id"], rows, frame["prompt"], frame["target"]):
        text = fingerprint(content)
        known, place = logged.setdefault(item_id, (text, shard.place(row)))
        if known != text:
            what = f"item {item_id!r} has another text than at {place}"
            raise BadInput(what, where=shard.place(row), remedy="Give logs of one version of the benchmark.")
        fresh.append(place == shard.place(row))
    mask = pl.Series(fresh, dtype=pl.Boolean)
    return frame.filter(mask), rows.filter(mask)


def _read_shard(shard: Shard, columns: Mapping[str, str]) -> tuple[pl.DataFrame, pl.Series]:
    """The items of a plain table, and their rows in it."""
    rows = all_rows(shard)
    numbers = pl.Series(rows.numbers, dtype=pl.Int64)
    if not rows.values:
        return pl.DataFrame(schema=ITEM_TYPES), numbers
    flat = [flatten(row) for row in rows.values]
    present = dict.fromkeys(name for row in flat for name in row)
    found = resolve(present, ITEMS, columns, required=("item_id", "prompt"), where=str(shard.path))
    frame = canonical_items(flat, found)
    for name, fault in (("item_id", "missing id"), ("prompt", "empty prompt")):
        blank = (frame[name].is_null() | (frame[name].str.strip_chars() == "")).arg_true()
        if len(blank):
            raise BadInput(
                f"{fault} ({found[name]!r} has no text)",
                where=shard.place(numbers[blank[0]]),
                remedy="Fill it in, or leave the row out.",
            )
    extras = extra_columns(flat, {*found.values(), *frame.columns}, from_text=shard.format == "csv")
    return frame.with_columns(extras), numbers


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
    return pl.DataFrame({name: data[name] for name in ITEM_TYPES}, schema=ITEM_TYPES)
