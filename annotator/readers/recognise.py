"""What a file is, from its first bytes. Names decide only where content cannot: an empty or a damaged file."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import polars as pl

from annotator.errors import BadInput
from annotator.readers.compressed import head

# Damaged files make polars panic in some places, and its panic is no Exception.
PARQUET_FAULTS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)

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
        jsonl, csv, parquet, or a harness: lm_eval, lighteval, inspect, opencompass, helm, nemo_skills.

    Raises:
        BadInput: the file cannot be opened.
    """
    try:
        with path.open("rb") as opened:
            magic = opened.read(4)
    except OSError as error:
        raise BadInput(f"cannot be opened ({error.strerror or error})", where=str(path)) from None
    name = path.name.lower()
    if not magic and not in_folder and not name.endswith((*_JSON_LINES, *_CSV)):
        raise BadInput("is empty", where=str(path), remedy="Was it still being written?")
    if magic.startswith(b"PK") or name.endswith(".eval"):
        return "inspect"
    if magic == b"PAR1" or name.endswith(".parquet"):
        return "lighteval" if _is_lighteval(path) else "parquet"
    start = head(path, _HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"{":
        return _recognise_json(start, path)
    if name.endswith(_JSON_LINES):
        return "jsonl"
    return "csv" if name.endswith(_CSV) else None


def _recognise_json(start: bytes, path: Path) -> str | None:
    """Which JSON this is: its first line if that is a whole object, else the keys that its first bytes show."""
    line, _, rest = start.partition(b"\n")
    keys = _keys(line)
    whole = keys is not None
    if keys is None:
        keys = {match.decode("utf-8", "replace") for match in _KEY.findall(start)}
    if {"doc_id", "doc", "resps", "arguments"} <= keys or (not whole and _LM_EVAL.match(start)):
        return "lm_eval"
    if {"eval", "status"} <= keys and _INSPECT.match(start):
        return "inspect"
    if {"adapter_spec", "request_states"} <= keys:
        return "helm"
    if _OPENCOMPASS.match(start) or ({"query", "gt"} <= keys and any(key.endswith("_pred") for key in keys)):
        return "opencompass"
    alone = not whole or (not rest.strip() and not keys & {"id", "item_id"})  # one document, not the first of many rows
    if alone and _OPENCOMPASS_RESULTS.search(start):
        return None if has_predictions(path) else "opencompass"
    if whole and _is_nemo_skills(keys):
        return "nemo_skills"
    return "jsonl" if whole or path.name.lower().endswith(_JSON_LINES) else None


_KEY = re.compile(rb'"([A-Za-z_][\w \-]*)"\s*:')
_LM_EVAL = re.compile(rb'\{"doc_id": ?\d+, ?"doc": ?\{')
_INSPECT = re.compile(rb'\{\s*"(version|status)"\s*:')
_OPENCOMPASS = re.compile(
    rb'\{\s*"\d+"\s*:\s*\{\s*"(origin_prompt|prediction|gold|label: |in-context examples|testing input)'
)
_OPENCOMPASS_RESULTS = re.compile(
    rb'"details"\s*:\s*(\{\s*("type"\s*:\s*"\w+"\s*,\s*)?"0"\s*:\s*\{|\[\s*\{)\s*'
    rb'"(prompt|origin_prediction|pred|predictions|answer|references|correct|example_abbr)"'
)
_SCORED = {"predicted_answer", "symbolic_correct", "is_correct", "proof_status", "judgement", "judgement-gen-base"}


def _is_nemo_skills(keys: set[str]) -> bool:
    own = bool(keys & {"generation", "num_generated_tokens"}) and bool(keys & _SCORED)
    return own and not keys & {"item_id", "score", "correct"}  # a plain table that says so itself


def has_predictions(path: Path) -> bool:
    """Whether an OpenCompass results file has its predictions beside it; those are read, with the results' details."""
    folder = predictions_folder(path)
    return folder is not None and any((folder / f"{path.stem}{end}.json").is_file() for end in ("", "_0"))


def predictions_folder(path: Path) -> Path | None:
    """WORK/results/MODEL/DATASET.json -> WORK/predictions/MODEL."""
    absolute = path.resolve()
    if len(absolute.parts) < 4 or absolute.parts[-3] != "results":
        return None
    return absolute.parents[2] / "predictions" / absolute.parts[-2]


def _is_lighteval(path: Path) -> bool:
    try:
        return {"doc", "model_response"} <= set(pl.scan_parquet(path, glob=False).collect_schema())
    except PARQUET_FAULTS:
        return False  # damaged: said when its rows are read


def _keys(line: bytes) -> set[str] | None:
    """The keys of a JSON object that stands whole in these bytes, else None."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return set(value) if isinstance(value, dict) else None
