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
    LABEL_FIELDS,
    SCHEMA,
    Failure,
    Maker,
    Window,
    content_digest,
    dead_letters,
    make_window,
    only_records,
    with_bad_rows,
)
from annotator.labelling.tally import ShardCounts, Tally
from annotator.readers import SeenIds, Shard, read_records
from annotator.taxonomy import AXES

_ROWS = 2048
_POLL_S = 0.5
_OF_LABELS = (*LABEL_FIELDS, "evidence", "status", "model", "evidence_dropped", "strategy")  # a failed row has none


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
        predicted = judge.student.predict(window.texts, judge.kind)
        if judge.below is not None:
            abstain(window, predicted, judge.below)
        part.add_piece(index, predicted_frame(window, predicted, plan.maker), dead_letters(window, plan.maker))
        abstained = sum(outcome is not None for outcome in window.outcomes)
        failures = Counter(bad.reason for bad in window.bad) + Counter(unsure=abstained)
        counts.labelled += len(window.ids) - abstained
        counts.failed += failures.total()
        counts.failures += failures
        counts.digest += content_digest(window)
        count(len(window.ids) - abstained, failures)
    counts.models[judge.name] = counts.labelled
    part.finish(pl.DataFrame(schema=SCHEMA), plan.made_from, counts.as_json())


def abstain(window: Window, predicted: pl.DataFrame, below: float) -> None:
    """Fail the records of a window of whose label the student is not sure; the reason names the axis it doubts most."""
    doubted = predicted.with_row_index("place").filter(pl.col("confidence") < below)
    for row in doubted.iter_rows(named=True):
        axis = min(AXES, key=lambda name: row[f"confidence_{name}"])
        detail = f"confidence {row['confidence']:g} in {axis}, below {below:g}"
        window.outcomes[row["place"]] = Failure("unsure", detail, usage=(1, 0, 0, 0))


def predicted_frame(window: Window, predicted: pl.DataFrame, maker: Maker) -> pl.DataFrame:
    """The rows of a window as a student labels them: the columns of SCHEMA, and its confidence in each axis.

    Where it abstains a row has no label, but still says how sure the student was.
    """
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
    errors = [outcome.reason if isinstance(outcome, Failure) else None for outcome in window.outcomes]
    framed = predicted.with_columns(
        pl.Series("record_id", window.ids, dtype=pl.String),
        pl.Series("fingerprint", window.keys, dtype=pl.String),
        pl.Series("truncated", window.truncated, dtype=pl.Boolean),
        pl.Series("error", errors, dtype=pl.String),
        *(pl.lit(value).alias(name) for name, value in constants.items()),
    )
    if any(errors):
        unlabelled = [pl.when(pl.col("error").is_null()).then(name).alias(name) for name in _OF_LABELS]
        framed = framed.with_columns(unlabelled).with_columns(status=pl.col("status").fill_null("failed"))
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
        initargs=(judge.name, judge.kind, judge.taxonomy, judge.below, done),
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


def abstention_note(tally: Tally, judge: StudentJudge, *, is_folder: bool) -> str:
    """How often the student abstained, and who may label these records, in a sentence or two."""
    said = f"{tally.failures['unsure']:,} records without a label: {judge.name} is less than {judge.below:g} sure."
    return said if is_folder else f"{said} An LLM as --judge, with --retry-failed, labels them."


_worker: dict[str, Any] = {}


def _open_in_worker(spec: str, kind: Any, taxonomy: Any, below: float | None, done: Any) -> None:
    _worker["judge"] = open_judge(spec, kind=kind, taxonomy=taxonomy, below=below)
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
