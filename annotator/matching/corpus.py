"""What is known of a corpus besides its texts, as a lazy table: nothing is read before it is needed.

Parquet shards are scanned, so that memory follows what is kept of a document (its labels and sizes) and not the files.
Where no column counts tokens they are counted by a tokenizer, if one is given, or estimated from the bytes of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from annotator.errors import BadInput, did_you_mean
from annotator.matching.columns import nested_column, own_column
from annotator.readers import find_shards, read_documents
from annotator.readers.columns import DOCUMENTS, check_overrides, resolve
from annotator.readers.corpus import parquet_schema
from annotator.readers.shards import Shard
from annotator.readers.tables import stream_rows
from annotator.rule_table import Rules
from annotator.tables import LABELS
from annotator.taxonomy import AXES

BYTES_PER_TOKEN = 4  # UTF-8 bytes a token; 4.0-4.6 for English prose and 3-3.5 for code with today's vocabularies
_TEXTS = ("doc_id", "source", "lang", "url")
_MADE = ("doc_id", "source", "lang", "host", "tokens", "tokens_estimated", "shard", "row")
_HOST = r"^(?:[a-z][a-z0-9+.-]*://)?(?:www\.)?([^/:?#]+)"
Counter = Callable[[list[str]], list[int]]


def scan_documents(
    inputs: Sequence[str | Path],
    *,
    columns: Mapping[str, str] = {},
    rules: Rules | None = None,
    also: Collection[str] = (),
    count_tokens: Counter | None = None,
) -> pl.LazyFrame:
    """The documents of some files, folders or globs, without their texts.

    Args:
        columns: canonical name -> the tables' own name.
        rules: adds the corpus's own columns that they name, under the names that they use.
        also: further columns of the corpus to add, as far as it has them.
        count_tokens: texts -> tokens of each (`load_tokenizer`); replaces the column of tokens.

    Returns:
        doc_id str, source?, lang?, host?, tokens i64 (at least 1), tokens_estimated bool, shard str, row i64.

    Raises:
        BadInput: no documents, no column of ids, or neither tokens nor texts.
    """
    check_overrides(columns, DOCUMENTS)
    own = _Own(rules, also)
    frames = [
        _scanned(shard, columns, own)
        if shard.format == "parquet" and count_tokens is None
        else _streamed(shard, columns, own, count_tokens)
        for shard in find_shards(inputs)
    ]
    return pl.concat(frames, how="diagonal_relaxed")


def check_own_columns(inputs: Sequence[str | Path], *, rules: Rules) -> None:
    """Raise BadInput if the corpus lacks columns of its own that the rules look at, before anything is read for long.

    Looks at the columns of parquet shards and at the first rows of others, until one shard has all of them.
    """
    ours = {*LABELS, *_MADE} if rules.needs_labels else set(_MADE)
    wanted = [name for name in (*rules.category, *rules.extra_columns) if name not in ours]
    lacking: list[BadInput] = []
    for shard in find_shards(inputs):
        schema = _first_columns(shard)
        paths = {name: rules.columns.get(name, name) for name in wanted}
        missing = [n for n, path in paths.items() if not (nested_column(schema, n) or nested_column(schema, path))]
        if not missing:
            return
        name = missing[0]
        remedy = f"{did_you_mean(paths[name], schema)} Or name it: --column {name}=YOURS; in settings, under columns."
        what = f"no column {paths[name]!r}, at which the rules look"
        lacking.append(BadInput(what, where=str(shard.path), remedy=remedy))
    if lacking:
        raise lacking[0]


def _first_columns(shard: Shard) -> Mapping[str, pl.DataType]:
    if shard.format == "parquet":
        return parquet_schema(shard)
    rows = next(iter(stream_rows(shard)), None)
    return pl.DataFrame(rows.values if rows else [], infer_schema_length=None).schema


def known_documents(documents: pl.DataFrame | pl.LazyFrame, *, rules: Rules) -> pl.LazyFrame:
    """A user's table of documents with the columns of `scan_documents`; its own further columns stay."""
    table = documents.lazy()
    present = table.collect_schema().names()
    missing = [pl.lit(None, dtype=pl.String).alias(name) for name in ("source", "lang") if name not in present]
    tokens = pl.col("tokens").cast(pl.Int64) if "tokens" in present else pl.lit(None, dtype=pl.Int64)
    host = (
        [] if "host" in present else [_host(table.collect_schema(), rules, pl.col("url") if "url" in present else None)]
    )
    sized = table.with_columns(*missing, *host, *_sizes(tokens, pl.col("text") if "text" in present else None))
    return sized.drop("text", "url", strict=False)


def load_tokenizer(path: str | Path) -> Counter:
    """A function that counts tokens, from a `tokenizer.json` (or the folder that holds one).

    Raises:
        BadInput: the package `tokenizers` is not installed, or the file is not a tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        remedy = "Install it (pip install tokenizers), or give a column of token counts."
        raise BadInput("needs the package tokenizers", where="--tokenizer", remedy=remedy) from None
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises plain Exception for missing and broken files
        remedy = "Give a tokenizer.json, as model folders hold one."
        raise BadInput(f"is not a tokenizer ({error})", where=str(file), remedy=remedy) from None

    def count(texts: list[str]) -> list[int]:
        return [len(found.ids) for found in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    return count


def _scanned(shard: Shard, columns: Mapping[str, str], own: _Own) -> pl.LazyFrame:
    schema = parquet_schema(shard)
    inner = [
        f"{name}.{field.name}"
        for name, dtype in schema.items()
        if isinstance(dtype, pl.Struct)
        for field in dtype.fields
    ]
    found = resolve([*schema, *inner], DOCUMENTS, columns, required=("doc_id",), where=str(shard.path))
    table = pl.scan_parquet(shard.path, glob=False, row_index_name="row")
    theirs = {name: nested_column(schema, found[name]) for name in (*_TEXTS, "tokens", "text") if name in found}
    texts = {name: _as_text(*theirs[name]) for name in _TEXTS if name in theirs}
    tokens = theirs["tokens"][0].cast(pl.Int64, strict=False) if "tokens" in theirs else pl.lit(None, dtype=pl.Int64)
    return table.select(
        *(texts.get(name, pl.lit(None, dtype=pl.String)).alias(name) for name in _TEXTS[:3]),
        _host(schema, own.rules, texts.get("url")),
        *_sizes(tokens, theirs["text"][0] if "text" in theirs else None),
        pl.lit(shard.name).alias("shard"),
        pl.col("row").cast(pl.Int64),
        *own.of(table, schema),
    ).filter(_has_id())  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Own:
    """The corpus's own columns that are kept of it: those that rules name, and `also`."""

    rules: Rules | None
    also: Collection[str]

    @property
    def names(self) -> list[str]:
        """As the rules call them."""
        rules, named = self.rules, set(self.also)
        if rules is not None:
            named.update(rules.extra_columns, rules.columns, () if rules.needs_labels else rules.category)
        return sorted(named.difference(_MADE, ("url", "text"), AXES))

    def of(self, table: pl.LazyFrame, schema: Mapping[str, pl.DataType]) -> list[pl.Expr]:
        """Those of them that a shard has."""
        found = []
        for name in self.names:
            if self.rules is None:
                known = nested_column(schema, name)
                found += [known[0].alias(name)] if known else []
            elif nested_column(schema, name) or nested_column(schema, self.rules.columns.get(name, name)):
                found.append(own_column(table, name, self.rules).alias(name))
        return found


def _streamed(shard: Shard, columns: Mapping[str, str], own: _Own, count_tokens: Counter | None) -> pl.LazyFrame:
    """A shard read batch by batch in Python: text formats, and any format whose tokens are to be counted."""
    batches = list(_batches(shard, columns, count_tokens))
    if not batches:
        return pl.LazyFrame(schema={"doc_id": pl.String})
    frame = pl.concat(batches).with_columns(pl.lit(shard.name).alias("shard"))
    if shard.format == "parquet":
        table = pl.scan_parquet(shard.path, glob=False, row_index_name="row")
        theirs = table.select(pl.col("row").cast(pl.Int64), *own.of(table, parquet_schema(shard)))
        return frame.lazy().join(theirs, on="row", how="left", maintain_order="left")
    return _with_own(frame, shard, own).lazy()


def _with_own(frame: pl.DataFrame, shard: Shard, own: _Own) -> pl.DataFrame:
    """Adds the corpus's own columns that are kept from the rows of a text file, if it has any of them."""
    if not own.names:
        return frame
    read = [(number, value) for rows in stream_rows(shard) for number, value in zip(rows.numbers, rows.values)]
    table = pl.DataFrame([value for _, value in read], infer_schema_length=None)
    theirs = own.of(table.lazy(), table.schema)
    if not theirs:
        return frame
    numbers = pl.Series("row", [number for number, _ in read], dtype=pl.Int64)
    return frame.join(table.select(theirs).with_columns(numbers), on="row", how="left", maintain_order="left")


def _batches(shard: Shard, columns: Mapping[str, str], count_tokens: Counter | None) -> Iterator[pl.DataFrame]:
    tokens = list(read_documents([shard.path], columns=columns, text=False)) if count_tokens is None else []
    if tokens and not any(batch["tokens"].null_count() for batch in tokens):
        for batch in tokens:
            yield (
                batch.drop("quality")
                .with_columns(_host({}, None, pl.col("url")), *_sizes(pl.col("tokens"), None))
                .drop("url")
            )
        return
    for batch in read_documents([shard.path], columns=columns):
        counted = pl.col("tokens")
        if count_tokens is not None:
            counted = pl.Series("tokens", count_tokens(batch["text"].to_list()), dtype=pl.Int64)
        sized = batch.with_columns(counted).with_columns(
            _host({}, None, pl.col("url")), *_sizes(pl.col("tokens"), pl.col("text"))
        )
        yield sized.drop("quality", "text", "url")


def _sizes(tokens: pl.Expr, text: pl.Expr | None) -> list[pl.Expr]:
    guess = pl.lit(None, dtype=pl.Int64) if text is None else (text.str.len_bytes() // BYTES_PER_TOKEN).cast(pl.Int64)
    return [
        pl.coalesce(tokens, guess).clip(lower_bound=1).alias("tokens"),
        tokens.is_null().alias("tokens_estimated"),
    ]


def _host(schema: Mapping[str, pl.DataType], rules: Rules | None, url: pl.Expr | None) -> pl.Expr:
    """The web host: from the column that a pack names, else from the address; null without either."""
    named = nested_column(schema, rules.columns["host"]) if rules and "host" in rules.columns else None
    if named is not None:
        return named[0].cast(pl.String).str.to_lowercase().alias("host")
    if url is None:
        return pl.lit(None, dtype=pl.String).alias("host")
    return url.str.to_lowercase().str.extract(_HOST).alias("host")


def _as_text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_float():  # integers with gaps are often stored as floats
        whole = column.cast(pl.Int64, strict=False)
        return pl.when(whole.cast(dtype) == column).then(whole.cast(pl.String)).otherwise(column.cast(pl.String))
    return column.cast(pl.String)


def _has_id() -> pl.Expr:
    return pl.col("doc_id").is_not_null() & (pl.col("doc_id").str.strip_chars() != "")
