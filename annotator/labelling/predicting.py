"""The engine behind `label` for students: whole columns of texts, shard by shard, in one process or several."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import polars as pl

from annotator.judges import StudentJudge, open_judge
from annotator.labelling.parts import Layout, Part
from annotator.labelling.rows import (
    SCHEMA,
    Maker,
    Window,
    content_digest,
    dead_letters,
    make_window,
    only_records,
    with_bad_rows,
)
from annotator.labelling.tally import ShardCounts
from annotator.readers import SeenIds, Shard, read_records

_ROWS = 2048
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides the labels of a shard besides the student; plain values, so that worker processes can be told."""

    layout: Layout
    identity: str
    columns: Mapping[str, str]
    max_input_tokens: int | None
    only: frozenset[str] | None
    maker: Maker
    made_from: Mapping[str, Any]


def predict_shard(
    judge: StudentJudge, shard: Shard, plan: Plan, *, count: Callable[[int, Counter[str]], None], seen: SeenIds | None
) -> None:
    """Label one shard and finish its part; `count` gets the labelled rows and the failures as they come."""
    part = Part(plan.layout, shard)
    part.begin()
    counts = ShardCounts()
    batches = read_records(shard, kind=judge.kind, columns=plan.columns, batch_rows=_ROWS, seen=seen)
    for index, batch in enumerate(batches):
        some = only_records(batch, plan.only)
        window = make_window(shard, index, some, plan.identity, max_input_tokens=plan.max_input_tokens)
        part.add_piece(index, predicted_frame(window, judge, plan.maker), dead_letters(window, plan.maker))
        failures = Counter(bad.reason for bad in window.bad)
        counts.labelled += len(window.ids)
        counts.failed += len(window.bad)
        counts.failures += failures
        counts.digest += content_digest(window)
        count(len(window.ids), failures)
    counts.models[judge.name] = counts.labelled
    part.finish(pl.DataFrame(schema=SCHEMA), plan.made_from, counts.as_json())


def predicted_frame(window: Window, judge: StudentJudge, maker: Maker) -> pl.DataFrame:
    """The rows of a window as a student labels them: the columns of SCHEMA, and its confidence in each axis."""
    predicted = judge.student.predict(window.texts, judge.kind)
    per_axis = [name for name in predicted.columns if name.startswith("confidence_")]
    constants = {
        "kind": maker.kind,
        "status": "ok",
        "judge": maker.judge,
        "model": maker.judge,
        "taxonomy_version": maker.taxonomy_version,
        "cached": False,
        "input_tokens": 0,
        "output_tokens": 0,
        "evidence_dropped": False,  # a student copies its evidence from the text
        "strategy": "student",
        "attempts": 1,
        "cached_input_tokens": 0,
    }
    framed = predicted.with_columns(
        pl.Series("record_id", window.ids, dtype=pl.String),
        pl.Series("fingerprint", window.keys, dtype=pl.String),
        pl.Series("truncated", window.truncated, dtype=pl.Boolean),
        *(pl.lit(value).alias(name) for name, value in constants.items()),
    )
    absent = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in SCHEMA.items() if name not in framed.columns]
    framed = framed.with_columns(absent).select(*SCHEMA, *per_axis).cast(dict(SCHEMA))
    return with_bad_rows(framed, window.rows, window.bad, maker)


def predict_in_processes(
    judge: StudentJudge,
    shards: Sequence[Shard],
    plan: Plan,
    *,
    processes: int,
    count: Callable[[int, Counter[str]], None],
) -> None:
    """`predict_shard` for each shard, in worker processes that each open the judge once.

    `count` is called here about twice a second.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process in which polars has threads may hang
    done = context.Value("q", 0)
    with ProcessPoolExecutor(
        min(processes, len(shards)),
        mp_context=context,
        initializer=_open_in_worker,
        initargs=(judge.name, judge.kind, judge.taxonomy, done),
    ) as pool:
        pending = {pool.submit(_predict_in_worker, shard, plan) for shard in shards}
        reported = 0
        try:
            while pending:
                time.sleep(_POLL_S)
                finished = {future for future in pending if future.done()}
                pending -= finished
                rows = done.value
                failures: Counter[str] = sum((future.result() for future in finished), Counter())
                count(rows - reported, failures)
                reported = rows
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker: dict[str, Any] = {}


def _open_in_worker(spec: str, kind: Any, taxonomy: Any, done: Any) -> None:
    _worker["judge"] = open_judge(spec, kind=kind, taxonomy=taxonomy)
    _worker["done"] = done


def _predict_in_worker(shard: Shard, plan: Plan) -> Counter[str]:
    failed: Counter[str] = Counter()

    def count(rows: int, failures: Counter[str]) -> None:
        failed.update(failures)
        with _worker["done"].get_lock():
            _worker["done"].value += rows

    predict_shard(_worker["judge"], shard, plan, count=count, seen=None)
    return failed


def ids_of(parts: Sequence[Part]) -> SeenIds:
    """The ids in the tables of some finished parts, which this process or this run has not read itself.

    Raises:
        BadInput: an id stands in two of them.
    """
    seen = SeenIds()
    for part in parts:
        ids = pl.scan_parquet(part.table, glob=False).select("record_id").collect()["record_id"]
        seen.add(ids, pl.int_range(len(ids), dtype=pl.Int64, eager=True), part.shard)
    return seen
