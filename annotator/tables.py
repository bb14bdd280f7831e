"""Our own tables on disk: one schema each, written whole or not at all, with the fingerprints of what made them."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import zstandard

from annotator.errors import BadInput

_STRINGS = pl.List(pl.String)

LABELS = {
    "record_id": pl.String,
    "kind": pl.String,
    "status": pl.String,
    "background_condition": pl.String,
    "task_type": pl.String,
    "solving_operation": _STRINGS,
    "output_constraint": pl.String,
    "exercise": pl.String,
    "quality": pl.Int64,
    "evidence": pl.String,
    "confidence": pl.Float64,
    "judge": pl.String,
    "model": pl.String,
    "taxonomy_version": pl.String,
    "prompt_version": pl.String,
    "fingerprint": pl.String,
    "cached": pl.Boolean,
    "truncated": pl.Boolean,
    "input_tokens": pl.Int64,
    "output_tokens": pl.Int64,
    "error": pl.String,
}
SLICES = {
    "slice_id": pl.String,
    "background_condition": pl.String,
    "task_type": pl.String,
    "solving_operation": _STRINGS,
    "output_constraint": pl.String,
    "items": pl.Int64,
    "samples": pl.Int64,
    "score": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "guess_floor": pl.Float64,
    "reference_score": pl.Float64,
    "deficit": pl.Float64,
    "deficit_shrunk": pl.Float64,
    "p_adjusted": pl.Float64,
    "q_value": pl.Float64,
    "stability": pl.Float64,
    "confirmed": pl.Boolean,
    "label_fragility": pl.Float64,
    "recoverable_points": pl.Float64,
    "item_ids": _STRINGS,
}
MATCHES = {
    "slice_id": pl.String,
    "category_id": pl.String,
    "affinity": pl.Float64,
    "weight": pl.Float64,
    "rule_ids": _STRINGS,
    "documents": pl.Int64,
    "tokens": pl.Int64,
    "supply_gap": pl.Float64,
}
UPSAMPLE = {
    "rank": pl.Int64,
    "doc_id": pl.String,
    "shard": pl.String,
    "row": pl.Int64,
    "source": pl.String,
    "category_id": pl.String,
    "slice_ids": _STRINGS,
    "rule_ids": _STRINGS,
    "score": pl.Float64,
    "tokens": pl.Int64,
    "repeats": pl.Int64,
}
DROPPED = {"doc_id": pl.String, "reason": pl.String, "detail": pl.String}

_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv")
_METADATA_KEY = "annotator"


def write_whole(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a temporary file beside `path`, then put it in place in one step.

    A crash or a full disk leaves the old file, or none; never half of one.

    Raises:
        BadInput: if the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    except OSError as error:
        remedy = "Choose an output path in a folder that you can write to."
        raise BadInput(f"cannot be written ({error.strerror or error})", where=str(path), remedy=remedy) from None
    os.close(handle)
    temporary = Path(name)
    try:
        fill(temporary)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise BadInput(f"cannot be written ({error.strerror or error})", where=str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def beside(out: Path, name: str) -> Path:
    """The path of a companion of a table: ("upsample.parquet", "x.csv") -> "upsample.parquet.x.csv"."""
    return out.with_name(f"{out.name}.{name}")


def write_text(path: Path, text: str) -> None:
    """Write a text file (JSON, HTML) whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, "utf-8") and None)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with sorted keys, whole or not at all."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    write_whole(path, lambda temporary: temporary.write_bytes(orjson.dumps(value, option=options)) and None)


def check_output(path: Path) -> None:
    """Raise BadInput before any work is done if a table cannot be written to `path`."""
    if not path.name.endswith(_SUFFIXES):
        remedy = f"Use a name that ends in {', '.join(_SUFFIXES)}."
        raise BadInput("this is not a table format that can be written", where=str(path), remedy=remedy)
    if path.is_dir():
        raise BadInput("is a folder", where=str(path), remedy="Name a file inside it.")
    write_probe(path.parent)


def write_probe(folder: Path) -> None:
    """Raise BadInput if files cannot be made in `folder` (it is created if missing)."""
    remedy = "Choose an output path in a folder that you can write to."
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise BadInput("is not a folder", where=str(folder), remedy=remedy) from None
    except OSError as error:
        raise BadInput(f"this folder cannot be made{_because(error)}", where=str(folder), remedy=remedy) from None
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        what = f"no file can be made in this folder{_because(error)}"
        raise BadInput(what, where=str(folder), remedy=remedy) from None


def _because(error: OSError) -> str:
    """The system's reason in brackets; nothing for "no such file", which the file systems of the kernel give."""
    return "" if isinstance(error, FileNotFoundError) else f" ({error.strerror or error})"


def write_table(frame: pl.DataFrame, path: Path, *, made_from: Mapping[str, Any] | None = None) -> None:
    """Write a table in the format of its name, whole or not at all.

    Args:
        frame: the rows, in their final order.
        path: ends in .parquet, .jsonl, .jsonl.gz, .jsonl.zst or .csv (lists as JSON text in csv).
        made_from: fingerprints and versions, kept as JSON in parquet metadata under "annotator".

    The bytes depend on rows and metadata only: one row group size, one thread-independent encoder, no time stamps.
    """
    check_output(path)
    write_whole(path, lambda temporary: _encode(frame.rechunk(), path.name, temporary, dict(made_from or {})))


def _encode(frame: pl.DataFrame, name: str, target: Path, made_from: dict[str, Any]) -> None:
    if name.endswith(".parquet"):
        metadata = {_METADATA_KEY: orjson.dumps(made_from, option=orjson.OPT_SORT_KEYS).decode()}
        frame.write_parquet(target, compression="zstd", row_group_size=131_072, metadata=metadata)
    elif name.endswith(".csv"):
        lists = [column for column, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
        as_json = [
            pl.Series(column, [None if row is None else orjson.dumps(row).decode() for row in frame[column].to_list()])
            for column in lists
        ]
        frame.with_columns(as_json).write_csv(target)
    else:
        target.write_bytes(_compress(frame.write_ndjson().encode("utf-8"), name))


def _compress(text: bytes, name: str) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(text, mtime=0)
    if name.endswith(".zst"):
        return zstandard.ZstdCompressor(level=6).compress(text)
    return text


def read_table(path: Path, columns: Mapping[str, Any], *, made_by: str) -> pl.DataFrame:
    """Read one of our tables back, with its columns checked and cast.

    Args:
        columns: name -> dtype, the columns that must be there (LABELS, SLICES, ...); others are kept.
        made_by: the command that writes such tables, for the error message ("annotator slices").

    Raises:
        BadInput: missing file, unreadable file, or missing column.
    """
    frame = _decode(path)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        remedy = f"Give a table written by `{made_by}`."
        raise BadInput(f"no column {missing[0]!r}", where=str(path), remedy=remedy)
    try:
        return frame.with_columns(_cast(frame, name, dtype) for name, dtype in columns.items())
    except pl.exceptions.PolarsError as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"a column has the wrong type ({first})", where=str(path)) from None


def read_labels(path: Path, kind: str) -> pl.DataFrame:
    """A label table of one side.

    Raises:
        BadInput: as `read_table`, or if the labels are of the other side.
    """
    frame = read_table(path, LABELS, made_by=f"annotator label --kind {kind}")
    others = frame.filter(pl.col("kind") != kind)
    if others.height:
        what = f"these are labels of {others['kind'][0]}s"
        raise BadInput(what, where=str(path), remedy=f"Give the labels made with --kind {kind}.")
    return frame


def _cast(frame: pl.DataFrame, name: str, dtype: Any) -> pl.Expr:
    if isinstance(dtype, pl.List) and frame.schema[name] == pl.String:  # lists come back from csv as JSON text
        return pl.col(name).str.json_decode(dtype)
    return pl.col(name).cast(dtype)


def _decode(path: Path) -> pl.DataFrame:
    if not path.exists():
        raise BadInput("no such file", where=str(path), remedy="Check the path, or run the step that makes it.")
    try:
        if path.name.endswith(".csv"):
            return pl.read_csv(path, infer_schema_length=None, glob=False)
        if path.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
            return pl.read_ndjson(_decompress(path), infer_schema_length=None)
        return pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError, zstandard.ZstdError, EOFError) as error:
        first = (str(error).splitlines() or ["unreadable"])[0]
        raise BadInput(f"cannot be read as a table ({first})", where=str(path)) from None


def _decompress(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.name.endswith(".gz"):
        return gzip.decompress(raw)
    if path.name.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(raw)
    return raw


def read_made_from(path: Path) -> dict[str, Any]:
    """The fingerprints that a parquet table of ours carries; empty for other formats and foreign tables."""
    if not path.name.endswith(".parquet"):
        return {}
    try:
        text = pl.read_parquet_metadata(path).get(_METADATA_KEY)
        value = orjson.loads(text) if text else {}
    except (pl.exceptions.PolarsError, OSError, orjson.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def agree_on_taxonomy(versions: Mapping[str, str | None]) -> None:
    """Raise BadInput unless all tables (name -> taxonomy version, None where unknown) were made with one taxonomy."""
    known = [(name, version) for name, version in versions.items() if version]
    for name, version in known[1:]:
        if version != known[0][1]:
            what = f"made with taxonomy version {version!r}, but {known[0][0]} with {known[0][1]!r}"
            raise BadInput(what, where=name, remedy="Label again, or migrate one side to the other's version.")


def same_taxonomy(tables: Mapping[str, pl.DataFrame]) -> str:
    """The one `taxonomy_version` of several label tables (name for messages -> table).

    Raises:
        BadInput: if they differ; labels of different vocabularies must not be joined.
    """
    seen: dict[str, str] = {}
    for name, frame in tables.items():
        # Read from csv, version "1" is a number.
        for version in sorted(frame["taxonomy_version"].cast(pl.String).drop_nulls().unique().to_list()):
            seen.setdefault(version, name)
    if len(seen) > 1:
        (first, second), (where_first, where) = list(seen)[:2], list(seen.values())[:2]
        what = f"taxonomy version {second!r}, but {where_first} has {first!r}"
        raise BadInput(what, where=where, remedy="Label again, or migrate one table to the other's version.")
    return next(iter(seen), "")
