"""`sample`: which records are worth a label next, so that money goes where a student learns from it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import polars as pl

from annotator.errors import BadInput, did_you_mean
from annotator.fingerprint import without_surrogates
from annotator.judges import StudentJudge, design, features
from annotator.readers import SeenIds, read_items, read_records
from annotator.readers.tables import filled_shards
from annotator.taxonomy import AXES, Kind

STRATEGIES = ("uncertainty", "diverse", "stratified")
STRATA = ("source", "host", "length")

_POOL = 20_000  # candidates that a student looks at: their texts are held in memory
_POOL_FOR_EACH = 10
_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Sample:
    """Records to label next, and what became of the others.

    records: most wanted first; documents as doc_id, text, source, items as `read_items` gives them; then sampled_by
    (the strategy), confidence (the student's, null where it was not asked) and stratum (null but for "stratified").
    read = labelled + repeated + candidates; labelled: had a label already; repeated: another record has the very same
    text; unusable rows are not counted.
    """

    records: pl.DataFrame
    read: int
    labelled: int
    repeated: int
    candidates: int

    def as_dict(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {
            "sampled": self.records.height,
            "read": self.read,
            "labelled": self.labelled,
            "repeated": self.repeated,
            "candidates": self.candidates,
        }


def sample(
    inputs: Sequence[str | Path],
    *,
    kind: Kind,
    count: int,
    strategy: str,
    judge: StudentJudge | None = None,
    labelled: Collection[str] = (),
    by: Sequence[str] = ("source", "length"),
    columns: Mapping[str, str] = {},
) -> Sample:
    """Choose records that an LLM should label next.

    Args:
        count: how many, at least 1; fewer come back where there are no more.
        strategy: "uncertainty": of the `2 * count` of which the student's confidence, its least calibrated probability
            over the four axes, is lowest, those that "diverse" takes; without that, it buys near repetitions and junk.
            "diverse": spread over the student's features by k-means++ seeding (Arthur &
            Vassilvitskii 2007): each next one is drawn with a chance that grows with the square of its distance from
            those before it. "stratified": as evenly as possible over the strata of `by`.
        judge: a student, for the first strategy; the features of the second are the same for all students.
        labelled: ids that are not wanted again.
        by: of "stratified": source (a document's own, the first part of an item's id), host (of the url), length (in
            powers of two of characters).
        columns: canonical name -> the input's own name.

    Returns:
        The same records whatever the order of rows and the split into shards. The first two strategies look at 20,000
        records, or ten times `count`, chosen by a hash of the id.

    Raises:
        BadInput: an unknown strategy or stratum, no student, nothing left to choose from, or as `read_records`.
    """
    _check(strategy, by, judge)
    judge = judge if strategy == "uncertainty" else None
    known = _known(inputs, kind, columns, by if strategy == "stratified" else ())
    done = pl.Series("record_id", sorted(labelled), dtype=pl.String)
    fresh = known.join(done.to_frame(), on="record_id", how="anti")
    # Sorted by a hash of the id: a fair order that no file order and no shard split can change.
    candidates = fresh.sort("key", "record_id").unique("text_key", keep="first", maintain_order=True)
    candidates = candidates.with_columns(confidence=pl.lit(None, dtype=pl.Float64))
    if candidates.is_empty():
        raise BadInput("no record is left to label", where=", ".join(map(str, inputs)), remedy="Give further records.")
    if strategy == "stratified":
        chosen = _evenly(candidates, count)
    else:
        pool = candidates.head(max(_POOL, _POOL_FOR_EACH * count))
        pool = pool.join(
            _texts(inputs, kind, columns, pool["record_id"]), on="record_id", how="left", maintain_order="left"
        )
        if judge is not None:
            pool = _least_sure(pool, judge, 2 * count)
        chosen = _spread(pool, kind, count)
    chosen = chosen.select("record_id", pl.lit(strategy).alias("sampled_by"), "confidence", "stratum")
    return Sample(
        records=_whole_records(inputs, kind, columns, chosen),
        read=known.height,
        labelled=known.height - fresh.height,
        repeated=fresh.height - candidates.height,
        candidates=candidates.height,
    )


def _check(strategy: str, by: Sequence[str], judge: StudentJudge | None) -> None:
    if strategy not in STRATEGIES:
        raise BadInput(f"{strategy!r} is not a strategy", where="--strategy", remedy=did_you_mean(strategy, STRATEGIES))
    for name in by:
        if name not in STRATA:
            raise BadInput(f"{name!r} is no stratum", where="--by", remedy=did_you_mean(name, STRATA))
    if strategy == "stratified" and not by:
        raise BadInput("nothing to stratify by", where="--by", remedy=f"Give some of {', '.join(STRATA)}.")
    if strategy == "uncertainty" and judge is None:
        raise BadInput("uncertainty needs a student", where="--judge", remedy="Give embedded or student:PATH.")


def _frames(inputs: Sequence[str | Path], kind: Kind, columns: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    seen = SeenIds()
    for shard in filled_shards(inputs):
        for batch in read_records(shard, kind=kind, columns=columns, batch_rows=_ROWS, seen=seen):
            yield batch.frame


def _known(inputs: Sequence[str | Path], kind: Kind, columns: Mapping[str, str], by: Sequence[str]) -> pl.DataFrame:
    """record_id, key and text_key (hashes of id and text, u64), stratum str? of all records."""
    found = []
    for frame in _frames(inputs, kind, columns):
        hashes = {
            "key": [_hash(record_id) for record_id in frame["record_id"]],
            "text_key": [_hash(text) for text in frame["text"]],
        }
        strata = [_stratum(row, kind, by) for row in frame.iter_rows(named=True)] if by else [None] * frame.height
        found.append(
            frame.select("record_id").with_columns(
                *(pl.Series(name, values, dtype=pl.UInt64) for name, values in hashes.items()),
                pl.Series("stratum", strata, dtype=pl.String),
            )
        )
    schema = {"record_id": pl.String, "key": pl.UInt64, "text_key": pl.UInt64, "stratum": pl.String}
    return pl.concat(found) if found else pl.DataFrame(schema=schema)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(without_surrogates(text).encode(), digest_size=8).digest())


def _stratum(row: Mapping[str, Any], kind: Kind, by: Sequence[str]) -> str:
    """The stratum of a record as text: "source=wiki length=2^11"."""
    parts = {
        "source": row.get("source") if kind == "document" else row["record_id"].partition("/")[0],
        "host": urlsplit(row.get("url") or "").netloc.lower(),
        "length": f"2^{max(len(row['text']), 1).bit_length() - 1}",
    }
    return " ".join(f"{name}={parts[name] or ''}" for name in by)


def _evenly(candidates: pl.DataFrame, count: int) -> pl.DataFrame:
    """The first of every stratum, then the second of every one, and so on; candidates come in their fair order."""
    turn = pl.int_range(pl.len()).over("stratum").alias("turn")
    return candidates.with_columns(turn).sort("turn", "key", "record_id").head(count)


def _texts(inputs: Sequence[str | Path], kind: Kind, columns: Mapping[str, str], wanted: pl.Series) -> pl.DataFrame:
    frames = (frame.select("record_id", "text") for frame in _frames(inputs, kind, columns))
    return pl.concat(frame.filter(pl.col("record_id").is_in(wanted.implode())) for frame in frames)


def _least_sure(pool: pl.DataFrame, judge: StudentJudge, count: int) -> pl.DataFrame:
    labels = judge.student.predict(pool["text"].to_list(), judge.kind)
    # Equal confidence (it has four decimals) is settled by the mean over the axes, then by the hash.
    mean = labels.select(pl.mean_horizontal(f"confidence_{axis}" for axis in AXES).round(6).alias("mean"))
    judged = pool.with_columns(labels["confidence"], mean["mean"])
    return judged.sort("confidence", "mean", "key", "record_id").head(count).sort("key", "record_id")


def _spread(pool: pl.DataFrame, kind: Kind, count: int) -> pl.DataFrame:
    """k-means++ seeding over unit vectors of meaning; the draw is seeded by a hash of an id."""
    texts = pool["text"].to_list()
    blocks = [
        design.unit(design.meaning(features.extract(texts[at : at + _ROWS], kind)))
        for at in range(0, len(texts), _ROWS)
    ]
    points = np.vstack(blocks)
    generator = np.random.default_rng(int(pool["key"][0]))
    order = [0]
    nearest = np.full(len(points), np.inf)
    while len(order) < min(count, len(points)):
        distance = np.round(2.0 - 2.0 * (points @ points[order[-1]]), 6)
        nearest = np.minimum(nearest, np.maximum(distance, 0.0))
        nearest[order[-1]] = 0.0
        mass = np.cumsum(nearest, dtype=np.float64)
        if mass[-1] > 0:
            order.append(int(np.searchsorted(mass, generator.random() * mass[-1], side="right")))
        else:  # all that is left means the same: in the fair order
            order += np.setdiff1d(np.arange(len(points)), order)[: count - len(order)].tolist()
    return pool[order]


def _whole_records(
    inputs: Sequence[str | Path], kind: Kind, columns: Mapping[str, str], chosen: pl.DataFrame
) -> pl.DataFrame:
    """The chosen records in the form that `label` reads, in the order of `chosen`."""
    wanted = chosen["record_id"]
    if kind == "item":
        items = read_items(inputs, columns=columns)
        names = ["item_id", "benchmark", "task", "prompt", "target", "choices", "cluster_id"]
        records = items.select(names).rename({"item_id": "record_id"})
    else:
        frames = (frame.select("record_id", "text", "source") for frame in _frames(inputs, kind, columns))
        records = pl.concat(frame.filter(pl.col("record_id").is_in(wanted.implode())) for frame in frames)
    whole = chosen.join(records, on="record_id", how="left", maintain_order="left")
    own = "item_id" if kind == "item" else "doc_id"
    about = ["sampled_by", "confidence", "stratum"]
    return whole.rename({"record_id": own}).select(own, pl.exclude(own, *about), *about)
