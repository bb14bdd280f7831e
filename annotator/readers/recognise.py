"""What a file is, from its first bytes. Names decide only where content cannot: an empty or a damaged file."""

from __future__ import annotations

from pathlib import Path

import orjson

from annotator.errors import BadInput
from annotator.readers.compressed import head

_HEAD_BYTES = 1 << 18
_JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst", ".ndjson.gz", ".ndjson.zst", ".json.gz", ".json.zst")
_CSV = (".csv", ".tsv", ".csv.gz", ".csv.zst", ".tsv.gz", ".tsv.zst")


def recognise(path: Path, *, in_folder: bool) -> str | None:
    """The format of a file, or None if it is not one that we read.

    Args:
        path: the file.
        in_folder: it was found in a folder rather than named, so it may be something beside the data: then text
            without a known name must begin with a JSON object on one line to be taken for rows.

    Returns:
        jsonl, csv, parquet, or a harness: lm_eval.

    Raises:
        BadInput: the file cannot be opened.
    """
    try:
        with path.open("rb") as opened:
            magic = opened.read(4)
    except OSError as error:
        raise BadInput(f"cannot be opened ({error.strerror or error})", where=str(path)) from None
    name = path.name.lower()
    if magic == b"PAR1" or name.endswith(".parquet"):
        return "parquet"
    start = head(path, _HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"{":
        return _recognise_json(start, name)
    if name.endswith(_JSON_LINES):
        return "jsonl"
    return "csv" if name.endswith(_CSV) else None


def _recognise_json(start: bytes, name: str) -> str | None:
    line = start.partition(b"\n")[0]
    keys = _keys(line)
    if keys is None:
        return "jsonl" if name.endswith(_JSON_LINES) else None
    if {"doc_id", "doc", "resps", "arguments"} <= keys:
        return "lm_eval"
    return "jsonl"


def _keys(line: bytes) -> set[str] | None:
    """The keys of a JSON object that stands whole in these bytes, else None."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return set(value) if isinstance(value, dict) else None
