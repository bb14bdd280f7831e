"""Records streamed for labelling and ranking: memory follows the batch, never the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from annotator.errors import BadInput
from annotator.readers.columns import DOCUMENTS, ITEMS, check_overrides, resolve
from annotator.readers.duplicates import SeenIds
from annotator.readers.items import canonical_items
from annotator.readers.logs import HARNESSES, log_items, rename
from annotator.readers.recognise import PARQUET_FAULTS
from annotator.readers.records import BadRow, Batch, item_text
from annotator.readers.shards import Shard, find_shards
from annotator.readers.tables import Rows, parquet_fault, stream_frames, stream_rows
from annotator.readers.values import as_float, as_id, as_int, as_text, flatten
from annotator.taxonomy import Kind

_DOCUMENT = {
    "record_id": pl.String,
    "text": pl.String,
    "source": pl.String,
    "lang": pl.String,
    "url": pl.String,
    "tokens": pl.Int64,
    "quality": pl.Float64,
}
_PLAIN = ("jsonl", "csv", "parquet")


def read_records(
    shard: Shard,
    *,
    kind: Kind,
    columns: Mapping[str, str] = {},
    batch_rows: int = 4096,
    seen: SeenIds | None = None,
) -> Iterator[Batch]:
    """The records of one shard, in order, in batches of at most `batch_rows` and about 32 MB.

    Args:
        shard: from `find_shards`.
        kind: "item" (text is `item_text` of prompt, choices and target) or "document".
        columns: canonical name -> the shard's own name.
        batch_rows: at most so many rows in a batch.
        seen: ids of the shards read before by the same command; give one to all of them to find ids used twice.

    Raises:
        BadInput: a damaged file, a missing column, or an id that was there before (naming both places), be it of a row
            that is no record.
    """
    check_overrides(columns, DOCUMENTS if kind == "document" else ITEMS)
    seen = SeenIds() if seen is None else seen
    if kind == "document":
        batches = _documents(shard, columns, batch_rows, text=True)
    else:
        batches = _items(shard, columns, batch_rows)
    for batch in batches:
        seen.add(*_ids(batch), shard)
        yield batch


def _ids(batch: Batch) -> tuple[pl.Series, pl.Series]:
    """(ids, rows) of all rows of a batch that have an id, in their order."""
    named = [(bad.record_id, bad.row) for bad in batch.bad if bad.record_id is not None]
    records = batch.frame.select("record_id", "row")
    if named:
        bad = pl.DataFrame(named, schema=["record_id", "row"], orient="row").cast(dict(records.schema))
        records = pl.concat([records, bad]).sort("row")
    return records["record_id"], records["row"]


def read_documents(
    inputs: Sequence[str | Path],
    *,
    columns: Mapping[str, str] = {},
    batch_rows: int = 4096,
    text: bool = True,
    on_bad: Callable[[BadRow], None] | None = None,
) -> Iterator[pl.DataFrame]:
    """The documents of some files, folders or globs, batch by batch.

    Args:
        inputs: plain tables.
        columns: canonical name -> the tables' own name.
        batch_rows: at most so many rows in a frame.
        text: with False the texts are not read (quicker on parquet), there is no column text, and empty ones are not
            noticed.
        on_bad: called with each row that is left out.

    Yields:
        doc_id str, source str?, lang str?, url str?, tokens i64?, quality f64?, shard str, row i64, text str.

    Raises:
        BadInput: as `read_records`.
    """
    check_overrides(columns, DOCUMENTS)
    seen = SeenIds()
    for shard in find_shards(inputs):
        for batch in _documents(shard, columns, batch_rows, text=text):
            frame = batch.frame
            seen.add(frame["record_id"], frame["row"], shard)
            for bad in batch.bad:
                if on_bad is not None:
                    on_bad(bad)
            if frame.height:
                yield frame.select(
                    pl.col("record_id").alias("doc_id"),
                    "source",
                    "lang",
                    "url",
                    "tokens",
                    "quality",
                    pl.lit(shard.name).alias("shard"),
                    "row",
                    *(["text"] if text else []),
                )


BYTES_PER_TOKEN = 4  # of English text, about what byte-pair vocabularies of 32k to 128k give


def document_frame(inputs: Sequence[str | Path], *, columns: Mapping[str, str] = {}) -> pl.DataFrame:
    """What is known of the documents besides their text, in one frame.

    Returns:
        doc_id, source?, lang?, url?, tokens i64, quality?, shard, row, tokens_estimated bool. Where the corpus has no
        token counts, `tokens` is estimated as UTF-8 bytes / 4, at least 1.
    """
    length = (pl.col("text").str.len_bytes() // BYTES_PER_TOKEN).clip(lower_bound=1).cast(pl.Int64)
    counted = [
        batch.with_columns(
            pl.coalesce("tokens", length).alias("tokens"), pl.col("tokens").is_null().alias("tokens_estimated")
        ).drop("text")
        for batch in read_documents(inputs, columns=columns)
    ]
    return pl.concat(counted) if counted else pl.DataFrame(schema={"doc_id": pl.String, "tokens": pl.Int64})


def _documents(shard: Shard, columns: Mapping[str, str], batch_rows: int, *, text: bool) -> Iterator[Batch]:
    if shard.format not in _PLAIN:
        raise BadInput("is an evaluation log, not documents", where=str(shard.path), remedy="Use --kind item.")
    required = ("doc_id", "text") if text else ("doc_id",)
    if shard.format == "parquet":
        yield from _parquet_documents(shard, columns, batch_rows, required)
        return
    names = _Names(shard, DOCUMENTS, columns, required)
    for rows in stream_rows(shard, batch_rows=batch_rows):
        yield _checked(shard, _document_frame(rows, names.of(rows.values), text), rows.bad, text)


def _document_frame(rows: Rows, found: Mapping[str, str], text: bool) -> pl.DataFrame:
    makers: dict[str, Callable[[Any], Any]] = {"record_id": as_id, "tokens": as_int, "quality": as_float}
    data = []
    for name, dtype in _DOCUMENT.items():
        theirs = found.get("doc_id" if name == "record_id" else name)
        if name == "text" and not text:
            continue
        if theirs is None:
            data.append(pl.Series(name, [None] * len(rows.values), dtype=dtype))
            continue
        values = [_field(row, theirs) for row in rows.values]
        make = makers.get(name, as_text)
        if dtype != pl.String or not all(type(value) is str for value in values):
            values = [make(value) for value in values]
        data.append(pl.Series(name, values, dtype=dtype))
    return pl.DataFrame([*data, pl.Series("row", rows.numbers, dtype=pl.Int64)])


def _field(row: Mapping[str, Any], name: str) -> Any:
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    nested = row.get(outer) if dot else None
    return nested.get(inner) if isinstance(nested, dict) else None


def _parquet_documents(
    shard: Shard, columns: Mapping[str, str], batch_rows: int, required: Sequence[str]
) -> Iterator[Batch]:
    schema = parquet_schema(shard)
    nested = {
        f"{name}.{field.name}": field.dtype
        for name, dtype in schema.items()
        if isinstance(dtype, pl.Struct)
        for field in dtype.fields
    }
    found = resolve([*schema, *nested], DOCUMENTS, columns, required=required, where=str(shard.path))
    wanted = []
    for name, dtype in _DOCUMENT.items():
        theirs = found.get("doc_id" if name == "record_id" else name)
        if name == "text" and "text" not in required:
            continue
        if theirs is None:
            wanted.append(pl.lit(None, dtype=dtype).alias(name))
        else:
            own = schema.get(theirs, nested.get(theirs))
            wanted.append(_column(theirs, nested=theirs not in schema, own=own, dtype=dtype, shard=shard).alias(name))
    for first, frame in stream_frames(shard, columns=wanted, batch_rows=batch_rows):
        rows = pl.int_range(first, first + frame.height, dtype=pl.Int64, eager=True).alias("row")
        yield _checked(shard, frame.with_columns(rows), [], "text" in required)


def _column(theirs: str, *, nested: bool, own: Any, dtype: Any, shard: Shard) -> pl.Expr:
    outer, _, inner = theirs.partition(".")
    column = pl.col(outer).struct.field(inner) if nested else pl.col(theirs)
    if isinstance(own, pl.List | pl.Struct | pl.Array) or own == pl.Object:
        raise BadInput(
            f"column {theirs!r} holds {own}, not single values",
            where=str(shard.path),
            remedy="Name another column with --column.",
        )
    if dtype == pl.String and own.is_float():  # integers with gaps are often stored as floats
        whole = column.cast(pl.Int64, strict=False)
        return pl.when(whole.cast(own) == column).then(whole.cast(pl.String)).otherwise(column.cast(pl.String))
    return column.cast(dtype, strict=False)


def parquet_schema(shard: Shard) -> dict[str, Any]:
    """Column -> dtype of a parquet shard."""
    try:
        return dict(pl.scan_parquet(shard.path, glob=False).collect_schema())
    except PARQUET_FAULTS as error:
        raise parquet_fault(shard, error) from None


def _items(shard: Shard, columns: Mapping[str, str], batch_rows: int) -> Iterator[Batch]:
    if shard.format in HARNESSES:
        frame, rows = log_items(shard)
        yield from _log_batches(shard, rename(frame, columns, str(shard.path)), rows, batch_rows)
        return
    names = _Names(shard, ITEMS, columns, ("item_id", "prompt"))
    for rows in stream_rows(shard, batch_rows=batch_rows):
        flat = [flatten(row) for row in rows.values]
        items = canonical_items(flat, names.of(flat))
        yield _item_batch(shard, items, pl.Series(rows.numbers, dtype=pl.Int64), rows.bad)


def _log_batches(shard: Shard, items: pl.DataFrame, rows: pl.Series, batch_rows: int) -> Iterator[Batch]:
    for start in range(0, items.height, batch_rows):
        yield _item_batch(shard, items.slice(start, batch_rows), rows.slice(start, batch_rows), [])


def _item_batch(shard: Shard, items: pl.DataFrame, rows: pl.Series, bad: Sequence[tuple[int, str]]) -> Batch:
    texts = [
        item_text(prompt, choices, target) if prompt and prompt.strip() else None
        for prompt, choices, target in items.select("prompt", "choices", "target").iter_rows()
    ]
    text = pl.Series("text", texts, dtype=pl.String)
    return _checked(shard, pl.DataFrame([items["item_id"].alias("record_id"), text, rows.alias("row")]), bad, True)


class _Names:
    """Canonical -> own column names of one shard. What was found stays; the rest is looked for in every batch."""

    def __init__(
        self, shard: Shard, known: Mapping[str, tuple[str, ...]], overrides: Mapping[str, str], required: Sequence[str]
    ) -> None:
        self._shard, self._known, self._overrides, self._required = shard, known, overrides, required
        self._present: dict[str, None] = {}
        self._found: dict[str, str] = {}

    def of(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        before = len(self._present)
        for row in rows:
            self._present.update(dict.fromkeys(row))
        if any("." in theirs for theirs in self._overrides.values()):
            for row in rows:
                self._present.update(dict.fromkeys(flatten(dict(row))))
        if rows and len(self._present) > before:
            fresh = resolve(
                self._present, self._known, self._overrides, required=self._required, where=str(self._shard.path)
            )
            self._found = fresh | self._found
        return self._found


def _checked(shard: Shard, frame: pl.DataFrame, unparsed: Sequence[tuple[int, str]], text: bool) -> Batch:
    bad = [BadRow(shard.name, row, None, "bad_json", f"{detail} at {shard.place(row)}") for row, detail in unparsed]
    no_id = pl.col("record_id").is_null() | (pl.col("record_id").str.strip_chars() == "")
    empty = (pl.col("text").is_null() | (pl.col("text").str.strip_chars() == "")) if text else pl.lit(False)
    marked = frame.with_columns(no_id.alias("no_id"), empty.alias("empty"))
    good = ~(pl.col("no_id") | pl.col("empty"))
    for row, record_id, missing in marked.filter(~good).select("row", "record_id", "no_id").iter_rows():
        if missing:
            bad.append(BadRow(shard.name, row, None, "missing_id", f"no id at {shard.place(row)}"))
        else:
            bad.append(BadRow(shard.name, row, record_id, "empty_text", f"no text at {shard.place(row)}"))
    bad.sort(key=lambda one: one.row)
    return Batch(marked.filter(good).select(frame.columns), bad)
