"""Evaluation logs: one set of columns for the evidence that all harnesses leave behind.

Each harness has a module here with a function `records(shard)` that yields `LogRecord`s; this module turns them into
the frames of `read_items` and `read_samples`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import polars as pl

from annotator.errors import BadInput, did_you_mean
from annotator.fingerprint import without_surrogates
from annotator.readers.columns import ITEM_TYPES, SAMPLE_TYPES, UNNAMED_RUN
from annotator.readers.compressed import chunks
from annotator.readers.frames import extra_columns
from annotator.readers.shards import Shard
from annotator.readers.values import as_float, as_id, as_int, as_strings, as_text

HARNESSES = {
    "lm_eval": "annotator.readers.lm_eval",
    "lighteval": "annotator.readers.lighteval",
    "inspect": "annotator.readers.inspect_log",
    "opencompass": "annotator.readers.opencompass",
    "helm": "annotator.readers.helm",
    "nemo_skills": "annotator.readers.nemo_skills",
}

_STRINGS, _IDS = pl.List(pl.String), pl.List(pl.Int64)

# What a sample of a log carries beside the columns of every sample; null where the harness does not record it.
EVIDENCE = {
    "harness": pl.String,  # lm_eval, lighteval, inspect, opencompass, helm, nemo_skills
    "harness_version": pl.String,
    "task": pl.String,
    "task_version": pl.String,
    "task_hash": pl.String,
    "num_fewshot": pl.Int64,
    "prompt": pl.String,  # as sent to the model; chat messages as JSON
    "target": pl.String,
    "parsed_answer": pl.String,  # what the scorer compared: after filters, extraction or post-processing
    "filter": pl.String,  # lm-eval's name of that
    "metric": pl.String,  # which metric `score` is
    "score_level": pl.String,  # "sample", or "item" if one score stands for all samples of the item
    "top_p": pl.Float64,
    "do_sample": pl.Boolean,
    "seed": pl.Int64,
    "input_tokens": pl.Int64,
    "output_tokens": pl.Int64,
    "input_token_ids": _IDS,
    "output_token_ids": _IDS,
    "truncated_input_tokens": pl.Int64,  # tokens of the prompt that did not fit
    "context_length": pl.Int64,  # the model's, in tokens
    "doc_hash": pl.String,
    "prompt_hash": pl.String,  # SHA-256 of the prompt, the harness's own where it has one
    "target_hash": pl.String,
    "system_instruction_sha": pl.String,
    "chat_template_sha": pl.String,
    "fewshot_as_multiturn": pl.Boolean,
    "bos_token": pl.String,
    "bos_token_id": pl.Int64,
    "eos_token": pl.String,
    "eos_token_id": pl.Int64,
    "pad_token": pl.String,
    "pad_token_id": pl.Int64,
    "eot_token_id": pl.Int64,
    "model_args": pl.String,
    "error": pl.String,  # of this sample
    "limit": pl.String,  # what cut this sample short (Inspect: token, time, message, ...)
}


@dataclass(slots=True)
class LogRecord:
    """One sample of a log.

    row: 0-based place in the shard. item: the canonical item columns by name, and others. sample: the canonical sample
    columns and EVIDENCE by name, and others; absent keys are null. scores: every metric of the sample by name, in the
    harness's order, as it wrote them; `sample["score"]` is made from them unless it is there.
    """

    row: int
    item: dict[str, Any]
    sample: dict[str, Any]
    scores: dict[str, Any] = field(default_factory=dict)


def log_records(shard: Shard) -> list[LogRecord]:
    """All samples of a log.

    Raises:
        BadInput: it is damaged, cut short, or holds no samples.
    """
    try:
        records = list(importlib.import_module(HARNESSES[shard.format]).records(shard))
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        what = f"does not have the shape of a {shard.format} log ({type(error).__name__}: {error})"
        raise BadInput(what, where=str(shard.path), remedy="Was it changed, or is it of an unknown version?") from error
    if not records:
        raise BadInput(
            "holds no samples", where=str(shard.path), remedy="Log samples when evaluating (lm-eval: --log_samples)."
        )
    for record in records:
        for name in ("prompt", "target", "filter"):
            record.sample[name] = as_text(record.sample.get(name))
    return records


def log_items(shard: Shard) -> tuple[pl.DataFrame, pl.Series]:
    """The items of a log, one row each, with the columns of `read_items`; and the rows where they stand first."""
    unique: dict[str, LogRecord] = {}
    for record in log_records(shard):
        unique.setdefault(record.item["item_id"], record)
    rows = [record.item for record in unique.values()]
    if not any(row.get("prompt") for row in rows):
        raise BadInput(
            "this log does not hold the text of its items",
            where=str(shard.path),
            remedy="Give the benchmark itself as --items.",
        )
    return _frame(rows, ITEM_TYPES), pl.Series([record.row for record in unique.values()], dtype=pl.Int64)


def log_samples(shard: Shard, *, filter_name: str | None, metric: str | None) -> tuple[pl.DataFrame, list[int]]:
    """The samples of a log, with the columns of `read_samples`, EVIDENCE and all metrics; and their rows in the log."""
    records = _filtered(log_records(shard), shard, filter_name)
    if metric is not None and not any(metric in record.scores for record in records):
        known = list(dict.fromkeys(name for record in records for name in record.scores))
        raise BadInput(f"no metric {metric!r}", where=str(shard.path), remedy=did_you_mean(metric, known))
    for record in records:
        _complete(record, metric)
    rows = [
        {**record.sample, **{f"metrics.{name}": value for name, value in record.scores.items()}} for record in records
    ]
    return _frame(rows, SAMPLE_TYPES | EVIDENCE), [record.row for record in records]


def _filtered(records: list[LogRecord], shard: Shard, wanted: str | None) -> list[LogRecord]:
    """One row a sample: the records of the wanted filter, else of the log's first; the others' answers beside them."""
    names = list(dict.fromkeys(record.sample.get("filter") for record in records))
    if wanted is not None and wanted not in names:
        known = [name for name in names if name]
        remedy = f"It has: {', '.join(known)}." if known else "Only lm-eval logs have filters."
        raise BadInput(f"no filter {wanted!r}", where=str(shard.path), remedy=remedy)
    if len(names) < 2:
        return records
    chosen = wanted if wanted is not None else names[0]
    kept = {_key(record): record for record in records if record.sample.get("filter") == chosen}
    for record in records:
        name, mine = record.sample.get("filter"), kept.get(_key(record))
        if name == chosen or mine is None:
            continue
        mine.sample[f"filters.{name}.parsed_answer"] = record.sample.get("parsed_answer")
        for metric, value in record.scores.items():
            mine.sample[f"filters.{name}.{metric}"] = value
    return list(kept.values())


def _key(record: LogRecord) -> tuple[Any, ...]:
    return record.sample.get("item_id"), record.sample.get("sample_index")


def _complete(record: LogRecord, metric: str | None) -> None:
    sample = record.sample
    sample.setdefault("run", UNNAMED_RUN)
    sample.setdefault("score_level", "sample")
    if sample["target"] is None:
        sample["target"] = as_text(record.item.get("target"))
    if "score" not in sample or metric is not None:
        candidates = record.scores if metric is None else {metric: record.scores.get(metric)}
        sample["metric"], sample["score"] = next(
            ((name, score) for name, value in candidates.items() if (score := unit_score(value)) is not None),
            (metric, None),
        )
    if sample["prompt"] is not None and sample.get("prompt_hash") is None:
        sample["prompt_hash"] = sha256(sample["prompt"])
    if sample["target"] is not None and sample.get("target_hash") is None:
        sample["target_hash"] = sha256(sample["target"])
    if sample.get("doc_hash") is None:
        item = record.item
        content = as_text([item.get("prompt"), item.get("choices"), item.get("target")])
        sample["doc_hash"] = sha256(content or "") if item.get("prompt") else None


def unit_score(value: Any) -> float | None:
    """A metric's value as a score, if it is a boolean or a number in 0..1; else None: a perplexity, a grade, a list."""
    if isinstance(value, str):
        value = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "true": 1.0, "false": 0.0}.get(value, as_float(value))
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        return None
    return float(value)


def rename(frame: pl.DataFrame, columns: Mapping[str, str], where: str) -> pl.DataFrame:
    """A log's frame with some canonical columns taken from others of it, as the user asked.

    Raises:
        BadInput: an override names a column that is not there.
    """
    for canonical, theirs in columns.items():
        if theirs not in frame.columns:
            what = f"no column {theirs!r} (asked for as {canonical})"
            raise BadInput(what, where=where, remedy=did_you_mean(theirs, frame.columns))
        dtype = frame.schema[canonical]
        values = [_make(value, canonical, dtype) for value in frame[theirs].to_list()]
        frame = frame.with_columns(pl.Series(canonical, values, dtype=dtype))
    return frame


def sha256(text: str) -> str:
    """64 hex digits of a text; the same that lm-eval writes as prompt_hash and target_hash."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def read_json(path: Any) -> Any:
    """A JSON file, plain or compressed.

    Raises:
        BadInput: it is empty, damaged or cut short.
    """
    raw = b"".join(chunks(path))
    if not raw.strip():
        raise BadInput("is empty", where=str(path), remedy="Was the evaluation stopped before it wrote its log?")
    return parse_json(raw, where=str(path))


def parse_json(raw: bytes, *, where: str) -> Any:
    """JSON as harnesses write it: NaN, Infinity and lone surrogates are let through.

    Raises:
        BadInput: it is not whole JSON.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        return without_surrogates(json.loads(raw.decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:
        first = (str(error).splitlines() or ["unreadable"])[0]
        raise BadInput(
            f"is not whole JSON ({first})", where=where, remedy="It may be cut short; copy it again."
        ) from None


def _frame(rows: Sequence[dict[str, Any]], schema: dict[str, Any]) -> pl.DataFrame:
    columns = [
        pl.Series(name, [_make(row.get(name), name, dtype) for row in rows], dtype=dtype)
        for name, dtype in schema.items()
    ]
    return pl.DataFrame([*columns, *extra_columns(rows, set(schema), from_text=False)])


def _make(value: Any, name: str, dtype: Any) -> Any:
    if value is None or (isinstance(value, str) and dtype == pl.String):
        return value
    if name in ("item_id", "run"):
        return as_id(value)
    if dtype == pl.String:
        return as_text(value)
    if dtype == pl.Int64:
        return as_int(value)
    if dtype == pl.Float64:
        return as_float(value)
    if dtype == pl.Boolean:
        return bool(value)
    return as_strings(value) if dtype == _STRINGS else _token_ids(value)


def _token_ids(value: Any) -> list[int] | None:
    return [int(one) for one in value] if isinstance(value, list) and value else None
