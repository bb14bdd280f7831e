"""From outcomes of single records to rows of the label table, and of the dead-letter file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from annotator.excerpt import excerpt
from annotator.fingerprint import without_surrogates
from annotator.judges.answers import is_verbatim
from annotator.judges.cache import Answer
from annotator.readers import BadRow, Batch, Shard
from annotator.tables import LABELS
from annotator.taxonomy import Kind

# Beyond the contract's columns: how a label came about.
EXTRAS = {
    "evidence_dropped": pl.Boolean,
    "strategy": pl.String,
    "attempts": pl.Int64,
    "cached_input_tokens": pl.Int64,
}
SCHEMA = LABELS | EXTRAS
LABEL_FIELDS = (
    "background_condition",
    "task_type",
    "solving_operation",
    "output_constraint",
    "exercise",
    "quality",
)


@dataclass(frozen=True, slots=True)
class Maker:
    """What made the rows of one run; the same in each of them."""

    kind: Kind
    judge: str
    taxonomy_version: str
    prompt_version: str | None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A record with its answer; cached: it cost nothing in this run; judge: who gave it, if not the run's judge."""

    answer: Answer
    cached: bool
    judge: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A record without a label. reason: a code of `faults.REASONS`. usage: as in `Answer`, of all tries."""

    reason: str
    detail: str
    http_status: int | None = None
    usage: Sequence[int] = (0, 0, 0, 0)


@dataclass(slots=True)
class Window:
    """Some consecutive records of one shard on their way to a piece of its label table; `index` is its place.

    Per record: ids, rows (0-based in the shard), texts (as judged), truncated, keys (fingerprints of the requests) and
    outcomes (None until known). missing: how many are not known. bad: rows of the shard that are no records.
    records: when records are asked about in chunks, one place stands for one chunk; then this is the window of the
    records, and owners says of each chunk whose it is.
    """

    index: int
    shard: Shard
    ids: list[str]
    rows: list[int]
    texts: list[str]
    truncated: list[bool]
    keys: list[str]
    bad: list[BadRow]
    outcomes: list[Labelled | Failure | None]
    missing: int
    records: Window | None = None
    owners: list[int] = field(default_factory=list)


def make_window(
    shard: Shard,
    index: int,
    batch: Batch,
    identity: str,
    *,
    message: Callable[[str], str] | None = None,
    max_input_tokens: int | None = None,
) -> Window:
    """The window of a batch of records, nothing known about them yet.

    Args:
        identity: fingerprint of the judge.
        message: what the judge is sent for a text (default: the text itself).
        max_input_tokens: longer texts are cut (see `excerpt`); the cut text is what keys and evidence are about.
    """
    texts = batch.frame["text"].to_list()
    truncated = [False] * len(texts)
    if max_input_tokens is not None:
        cut = [excerpt(text, max_input_tokens) for text in texts]
        texts, truncated = [text for text, _ in cut], [was_cut for _, was_cut in cut]
    return Window(
        index=index,
        shard=shard,
        ids=batch.frame["record_id"].to_list(),
        rows=batch.frame["row"].to_list(),
        texts=texts,
        truncated=truncated,
        keys=keys_of(texts if message is None else [message(text) for text in texts], identity),
        bad=batch.bad,
        outcomes=[None] * len(texts),
        missing=len(texts),
    )


def keys_of(sent: Sequence[str], identity: str) -> list[str]:
    """The fingerprints of some requests: SHA-256 of the judge's own fingerprint and of what it is sent."""
    judged = hashlib.sha256(identity.encode())
    keys = []
    for text in sent:
        digest = judged.copy()
        digest.update(without_surrogates(text).encode())
        keys.append(digest.hexdigest())
    return keys


def only_records(batch: Batch, ids: frozenset[str] | None) -> Batch:
    """The batch without the records that are not asked for; None asks for all."""
    if ids is None:
        return batch
    return Batch(batch.frame.filter([record_id in ids for record_id in batch.frame["record_id"]]), batch.bad)


def content_digest(window: Window) -> int:
    """A number that stands for the records of a window, in any order: the sum of the hashes of id and request.

    Sums modulo 2**256 of windows and shards name the whole input, however it is split (see `fingerprint.unordered`).
    """
    total = 0
    for record_id, key in zip(window.ids, window.keys, strict=True):
        total += int.from_bytes(hashlib.sha256(f"{record_id}\0{key}".encode("utf-8", "replace")).digest())
    return total % (1 << 256)


def labels_frame(window: Window, maker: Maker) -> pl.DataFrame:
    """The rows of a finished window in input order, with the columns of SCHEMA."""
    labels, evidence, dropped, answers = [], [], [], []
    for outcome, text in zip(window.outcomes, window.texts, strict=True):
        answer = outcome.answer if isinstance(outcome, Labelled) else None
        label = answer.label if answer else {}
        quote = label.get("evidence")
        # A quote that is not there was made up: it must not stand in the table as evidence.
        invented = bool(quote) and not is_verbatim(quote, text)
        labels.append(label)
        answers.append(answer)
        evidence.append("" if invented else quote)
        dropped.append(invented if answer else None)
    outcomes = window.outcomes
    others = [outcome.judge if isinstance(outcome, Labelled) else None for outcome in outcomes]
    usage = [answer.usage if answer else outcome.usage for answer, outcome in zip(answers, outcomes)]  # type: ignore[union-attr]
    columns: dict[str, Any] = {
        "record_id": window.ids,
        "kind": [maker.kind] * len(labels),
        "status": ["ok" if answer else "failed" for answer in answers],
        **{name: [label.get(name) for label in labels] for name in LABEL_FIELDS},
        "evidence": evidence,
        "confidence": [answer.confidence if answer else None for answer in answers],
        "judge": [other or maker.judge for other in others],
        "model": [answer.model if answer else None for answer in answers],
        "taxonomy_version": [maker.taxonomy_version] * len(labels),
        "prompt_version": [None if other else maker.prompt_version for other in others],
        "fingerprint": window.keys,
        "cached": [isinstance(outcome, Labelled) and outcome.cached for outcome in outcomes],
        "truncated": window.truncated,
        "input_tokens": [counts[1] for counts in usage],
        "output_tokens": [counts[3] for counts in usage],
        "error": [outcome.reason if isinstance(outcome, Failure) else None for outcome in outcomes],
        "evidence_dropped": dropped,
        "strategy": [answer.strategy if answer else None for answer in answers],
        "attempts": [counts[0] for counts in usage],
        "cached_input_tokens": [counts[2] for counts in usage],
    }
    frame = pl.DataFrame([pl.Series(name, columns[name], dtype=dtype) for name, dtype in SCHEMA.items()])
    return with_bad_rows(frame, window.rows, window.bad, maker)


def with_bad_rows(frame: pl.DataFrame, rows: Sequence[int], bad: Sequence[BadRow], maker: Maker) -> pl.DataFrame:
    """The frame with a failed row for each bad row that has an id, at its place; `rows` are the others' places."""
    named = [row for row in bad if row.record_id is not None]
    if not named:
        return frame
    failed = pl.DataFrame(
        {
            "record_id": [row.record_id for row in named],
            "kind": maker.kind,
            "status": "failed",
            "judge": maker.judge,
            "taxonomy_version": maker.taxonomy_version,
            "prompt_version": maker.prompt_version,
            "cached": False,
            "truncated": False,
            "error": [row.reason for row in named],
            "place": [row.row for row in named],
        }
    )
    placed = frame.with_columns(pl.Series("place", rows, dtype=pl.Int64))
    merged = pl.concat([placed, failed.cast({"place": pl.Int64})], how="diagonal_relaxed")
    return merged.sort("place").select(frame.columns).cast(dict(frame.schema))


def dead_letters(window: Window, maker: Maker) -> list[dict[str, Any]]:
    """The dead-letter rows of a finished window, in input order."""
    letters = [bad_letter(row, maker) for row in window.bad]
    for record_id, row, key, outcome in zip(window.ids, window.rows, window.keys, window.outcomes, strict=True):
        if isinstance(outcome, Failure):
            letters.append(
                {
                    "record_id": record_id,
                    "kind": maker.kind,
                    "shard": window.shard.name,
                    "row": row,
                    "reason": outcome.reason,
                    "detail": outcome.detail,
                    "http_status": outcome.http_status,
                    "attempts": outcome.usage[0],
                    "input_tokens": outcome.usage[1],
                    "output_tokens": outcome.usage[3],
                    "fingerprint": key,
                }
            )
    return sorted(letters, key=lambda letter: letter["row"])


def bad_letter(bad: BadRow, maker: Maker) -> dict[str, Any]:
    """The dead-letter row of an input row that is no record."""
    return {
        "record_id": bad.record_id,
        "kind": maker.kind,
        "shard": bad.shard,
        "row": bad.row,
        "reason": bad.reason,
        "detail": bad.detail,
        "http_status": None,
        "attempts": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "fingerprint": None,
    }
