"""Model outputs: one row a sample, from plain tables and from evaluation logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from annotator.errors import BadInput
from annotator.fingerprint import fingerprint
from annotator.readers.columns import SAMPLE_TYPES, SAMPLES, UNNAMED_RUN, check_overrides, resolve
from annotator.readers.duplicates import duplicate
from annotator.readers.frames import extra_columns, stack
from annotator.readers.items import all_rows
from annotator.readers.logs import HARNESSES, log_samples, rename
from annotator.readers.shards import Shard, find_shards
from annotator.readers.values import as_float, as_id, as_int, as_score, as_strings, flatten, strings_or_none

_SHARD, _ROW, _DIGEST = "annotator:shard", "annotator:row", "annotator:digest"  # while reading; never handed out


def read_samples(
    inputs: Sequence[str | Path],
    *,
    columns: Mapping[str, str] = {},
    filter: str | None = None,
    metric: str | None = None,
) -> pl.DataFrame:
    """All samples of some files, folders or globs, in the order of shards and rows.

    Args:
        inputs: plain tables, or logs of evaluation harnesses.
        columns: canonical name -> the tables' own name; a field of a nested object is "outer.inner".
        filter: which of the answers that lm-eval extracted in several ways is scored ("strict-match"); without it the
            first in the log, which is the first in the task's definition. The others stand beside it as
            "filters.NAME.parsed_answer" and "filters.NAME.METRIC".
        metric: which metric of a log becomes `score`; without it the first whose value lies in 0..1.

    Returns:
        item_id str, run str ("unnamed" where none is named), sample_index i64, response str?, score f64? in 0..1,
        finish_reason str? (in the words of its origin), max_tokens i64?, stop list[str]?, temperature f64?; from logs
        the columns of `annotator.readers.logs.EVIDENCE` and every metric as "metrics.NAME"; then all other columns as
        they came (see `read_items`). Only a log may have samples without a score: those the harness did not score.
        Where a table numbers no samples, those of one item and run are numbered by the fingerprint of their content,
        so that the order of rows does not matter.

    Raises:
        BadInput: naming file and row: unreadable file, bad JSON, no such column, filter or metric, missing id, a score
            that is missing or outside 0..1, one (item_id, run, sample_index) twice; or no samples at all.
    """
    check_overrides(columns, SAMPLES)
    frames = []
    shards = find_shards(inputs)
    for number, shard in enumerate(shards):
        if shard.format in HARNESSES:
            frame, rows = log_samples(shard, filter_name=filter, metric=metric)
            frame = rename(frame, columns, str(shard.path))
            frame = frame.with_columns(pl.Series(_ROW, rows, dtype=pl.Int64), pl.lit(None, pl.String).alias(_DIGEST))
        else:
            frame = _read_shard(shard, columns)
        if frame.height:
            frames.append(frame.with_columns(pl.lit(number, dtype=pl.Int64).alias(_SHARD)))
    if not frames:
        raise BadInput("no samples", where=", ".join(map(str, inputs)), remedy="Give a table with at least one row.")
    samples = _numbered(stack(frames))
    _refuse_duplicates(samples, shards)
    return samples.drop(_SHARD, _ROW, _DIGEST)


def _read_shard(shard: Shard, columns: Mapping[str, str]) -> pl.DataFrame:
    rows = all_rows(shard)
    if not rows.values:
        return pl.DataFrame()
    flat = [flatten(row) for row in rows.values]
    present = dict.fromkeys(name for row in flat for name in row)
    found = resolve(present, SAMPLES, columns, required=("item_id", "score"), where=str(shard.path))

    def taken(name: str) -> list[Any]:
        return [row.get(found[name]) for row in flat] if name in found else [None] * len(flat)

    data: dict[str, list[Any]] = {
        "item_id": [as_id(value) for value in taken("item_id")],
        "run": [as_id(value) or UNNAMED_RUN for value in taken("run")],
        "sample_index": [as_int(value) for value in taken("sample_index")],
        "response": strings_or_none(taken("response")),
        "score": _scores(shard, rows.numbers, taken("score")),
        "finish_reason": strings_or_none(taken("finish_reason")),
        "max_tokens": [as_int(value) for value in taken("max_tokens")],
        "stop": [None if value is None else as_strings(value) for value in taken("stop")],
        "temperature": [as_float(value) for value in taken("temperature")],
    }
    frame = pl.DataFrame({name: data[name] for name in SAMPLE_TYPES}, schema=SAMPLE_TYPES)
    missing = frame["item_id"].is_null().arg_true()
    if len(missing):
        raise BadInput(
            f"missing id ({found['item_id']!r} is empty)",
            where=shard.place(rows.numbers[missing[0]]),
            remedy="Fill it in, or leave the row out.",
        )
    digests = [
        None if index is not None else fingerprint([row.get(name) for name in sorted(row)])
        for row, index in zip(flat, data["sample_index"])
    ]
    return frame.with_columns(
        *extra_columns(flat, {*found.values(), *frame.columns}, from_text=shard.format == "csv"),
        pl.Series(_ROW, rows.numbers, dtype=pl.Int64),
        pl.Series(_DIGEST, digests, dtype=pl.String),
    )


def _scores(shard: Shard, numbers: Sequence[int], values: Sequence[Any]) -> list[float]:
    scores = []
    for row, value in zip(numbers, values):
        try:
            score = as_score(value)
        except ValueError as error:
            raise BadInput(
                str(error), where=shard.place(row), remedy="Scores are booleans or numbers from 0 to 1; rescale others."
            ) from None
        if score is None:
            raise BadInput("no score", where=shard.place(row), remedy="Score this sample, or leave the row out.")
        scores.append(score)
    return scores


def _numbered(samples: pl.DataFrame) -> pl.DataFrame:
    """Numbers for samples that have none: their rank by content among those of the same item and run."""
    unnumbered = pl.col("sample_index").is_null()
    rank = pl.col(_DIGEST).rank("ordinal").over("item_id", "run") - 1
    return samples.with_columns(pl.when(unnumbered).then(rank).otherwise("sample_index").alias("sample_index"))


def _refuse_duplicates(samples: pl.DataFrame, shards: Sequence[Shard]) -> None:
    key = ["item_id", "run", "sample_index"]
    if samples.select(key).is_unique().all():
        return
    twice = samples.filter(~pl.struct(key).is_first_distinct()).row(0, named=True)
    same = [pl.col(name) == twice[name] for name in key]
    first = samples.filter(*same).row(0, named=True)
    where, earlier = (shards[row[_SHARD]].place(row[_ROW]) for row in (twice, first))
    what = f"{twice['item_id']} (run {twice['run']}, sample {twice['sample_index']})"
    remedy = "Give the outputs of one run, or tell runs apart in a column (--column run=YOURS)."
    raise duplicate(what, where, earlier, remedy=remedy)
