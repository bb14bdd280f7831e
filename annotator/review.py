"""`review`: labels that a person has looked at, and corrected where they were wrong, become gold."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from annotator.errors import BadInput, UnknownValue
from annotator.tables import LABELS, check_output, read_table, same_taxonomy, write_table
from annotator.taxonomy import AXES, GRADES, MAX_OPERATIONS, Kind, Taxonomy

OPERATION = "solving_operation"
GOLD = LABELS | {"annotator": pl.String, "reviewed_at": pl.String, "corrected": pl.List(pl.String)}
"""LABELS, then who answered, when (ISO 8601, UTC, seconds) and the axes and grades in which the judge was wrong."""

_REQUIRED = {name: LABELS[name] for name in ("record_id", "kind", *AXES)}
_FROM_JUDGE = ("evidence", "truncated", "prompt_version")  # what a gold row keeps of the label that was reviewed


@dataclass(frozen=True, slots=True)
class Queue:
    """Labels for a person to look at, and what became of the others: rows = failed + not_drawn + reviewed + height.

    labels: LABELS columns, least confidence first; where the judge gave none, last and in a fair order.
    failed: rows without a label. not_drawn: not in the sample. reviewed: in the gold already.
    """

    labels: pl.DataFrame
    failed: int
    not_drawn: int
    reviewed: int


def read_reviewable(path: Path, taxonomy: Taxonomy) -> pl.DataFrame:
    """A label table with the columns of LABELS, null where it lacks one (hand-made labels need the axes only).

    Raises:
        BadInput: as `read_table`; a record twice, an unknown kind, another taxonomy version. UnknownValue.
    """
    frame = read_table(path, _REQUIRED, made_by="annotator label")
    own = {name: dtype for name, dtype in LABELS.items() if name in frame.columns}
    lacking = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in LABELS.items() if name not in own]
    frame = frame.with_columns(pl.col(name).cast(dtype) for name, dtype in own.items()).with_columns(lacking)
    frame = frame.select(list(LABELS)).with_columns(pl.col("status").fill_null("ok"))
    twice = frame.filter(pl.col("record_id").is_duplicated())
    if twice.height:
        what = f"two labels for {twice['record_id'].min()!r}"
        raise BadInput(what, where=str(path), remedy="Keep one row a record.")
    check_version(same_taxonomy({str(path): frame}), taxonomy, where=str(path))
    for row in frame.filter(pl.col("status") == "ok").iter_rows(named=True):
        where = f"{path} ({row['record_id']})"
        check_kind(row["kind"], where=where)
        checked_label(label_of(row), row["kind"], taxonomy, where=where)
    return frame


def check_kind(kind: Any, *, where: str) -> None:
    """Raise BadInput unless `kind` is one of the two sides."""
    if kind not in ("item", "document"):
        raise BadInput(f"kind is {kind!r}", where=where, remedy="It is item or document.")


def check_version(version: Any, taxonomy: Taxonomy, *, where: str) -> None:
    """Raise BadInput if labels say that they were made with another version of the taxonomy; "" says nothing."""
    if version and version != taxonomy.version:
        what = f"made with taxonomy version {version!r}, but the one in use is {taxonomy.version!r}"
        raise BadInput(what, where=where, remedy="Give the other with --taxonomy, or migrate the labels.")


def review_queue(labels: pl.DataFrame, *, reviewed: Collection[str] = (), draw: int | None = None) -> Queue:
    """The labels still to be looked at, those first that the judge was least sure of.

    Args:
        labels: from `read_reviewable`.
        reviewed: ids that are gold already.
        draw: so many records only, by a hash of the id: a fair sample, so that agreement measured on it holds for the
            table. Drawn before `reviewed` is left out: the same command goes on with the same records.
    """
    good = labels.filter(pl.col("status") == "ok")
    keyed = good.with_columns(pl.Series("key", [_hash(record_id) for record_id in good["record_id"]], dtype=pl.UInt64))
    drawn = keyed.sort("key", "record_id").head(keyed.height if draw is None else draw)
    fresh = drawn.filter(~pl.col("record_id").is_in(sorted(reviewed)))
    ordered = fresh.sort("confidence", "key", "record_id", nulls_last=True).drop("key")
    return Queue(
        labels=ordered,
        failed=labels.height - good.height,
        not_drawn=good.height - drawn.height,
        reviewed=drawn.height - fresh.height,
    )


def _hash(record_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest())


def with_texts(labels: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """The labels with the text of each record, in their order.

    Args:
        texts: record_id, text.

    Raises:
        BadInput: a label without a text.
    """
    joined = labels.join(texts.select("record_id", "text"), on="record_id", how="left", maintain_order="left")
    lost = joined.filter(pl.col("text").is_null())
    if lost.height:
        what = f"no text for record {lost['record_id'].min()!r} ({lost.height:,} in all)"
        raise BadInput(what, where="--text", remedy="Give the files that the labels were made from.")
    return joined


def fields_of(kind: Kind) -> tuple[str, ...]:
    """What a label of one side consists of: the four axes, and the grades of documents."""
    return (*AXES, *GRADES) if kind == "document" else AXES


def label_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The label in a row of a table: its axes and, of documents, those grades that it has."""
    told = {name: row[name] for name in fields_of(row["kind"])}
    return {name: value for name, value in told.items() if value is not None or name in AXES}


def checked_label(answer: Any, kind: Kind, taxonomy: Taxonomy, *, where: str, complete: bool = False) -> dict[str, Any]:
    """The label that an answer tells, nothing else in it and every value in the taxonomy.

    Args:
        answer: the four axes (solving_operation as a list, most important first), of documents exercise and quality.
        complete: the grades of a document must be there too.

    Raises:
        UnknownValue: a value that the axis does not have on this side.
        BadInput: any other form.
    """
    names = fields_of(kind)
    if not isinstance(answer, Mapping):
        raise BadInput("the label is not an object", where=where)
    for name in answer:
        if name not in names:
            raise BadInput(f"{name!r} is nothing that a label of {kind}s has", where=where)
    for name in names if complete else AXES:
        if answer.get(name) is None:
            raise BadInput(f"no {name}", where=where, remedy="Choose a value.")
    for name in names:
        if name in answer and name != OPERATION:
            _check_value(name, answer[name], kind, taxonomy, where)
    operations = answer[OPERATION]
    if not isinstance(operations, list) or not 1 <= len(operations) <= MAX_OPERATIONS:
        raise BadInput(f"{OPERATION} needs one to {MAX_OPERATIONS} values", where=where)
    for operation in operations:
        _check_value(OPERATION, operation, kind, taxonomy, where)
    if len(set(operations)) < len(operations):
        raise BadInput(f"{OPERATION} names one value twice", where=where)
    return {name: answer[name] for name in names if name in answer}


def _check_value(name: str, value: Any, kind: Kind, taxonomy: Taxonomy, where: str) -> None:
    dtype = int if name == "quality" else str
    allowed = taxonomy.values(name, kind) if name in AXES else taxonomy.grade_values(name)
    if type(value) is not dtype or str(value) not in allowed:
        raise UnknownValue(name, str(value)[:60], allowed, where)


def check_annotator(name: str) -> str:
    """The name of a person as it stands in the gold.

    Raises:
        BadInput: empty, longer than 100 characters, or with characters that are not printed.
    """
    name = name.strip()
    if not name or len(name) > 100 or not name.isprintable():
        remedy = "Give a name of up to 100 printed characters: it stands in every row."
        raise BadInput(f"{name[:40]!r} is no name", where="--annotator", remedy=remedy)
    return name


def gold_row(
    label: Mapping[str, Any], answer: Mapping[str, Any], *, annotator: str, reviewed_at: str
) -> dict[str, Any]:
    """A row of GOLD: a person's answer to a label.

    Args:
        label: the row that was reviewed, with the columns of LABELS.
        answer: from `checked_label`.
        reviewed_at: ISO 8601.
    """
    row: dict[str, Any] = dict.fromkeys(GOLD)
    row |= {name: label[name] for name in ("record_id", "kind", "taxonomy_version", *_FROM_JUDGE)}
    row |= {"status": "ok", "judge": f"person:{annotator}", "cached": False, "annotator": annotator} | dict(answer)
    corrected = [name for name in answer if label[name] is not None and label[name] != answer[name]]
    return row | {"reviewed_at": reviewed_at, "corrected": corrected}


class GoldFile:
    """A table of gold on disk, written whole after every change: a crash loses nothing that was answered.

    Args:
        path: a table; it is read if it exists, and goes on. It need not exist.

    Attributes:
        rows: record_id -> row of GOLD, in the order in which they were first answered.

    Raises:
        BadInput: a table that `review` did not write, which is never overwritten.
    """

    def __init__(self, path: Path) -> None:
        check_output(path)
        self.path, self.rows = path, {}
        self._taken: list[tuple[str, dict[str, Any] | None]] = []
        if path.exists():
            frame = read_table(path, GOLD, made_by="annotator review")
            self.rows = {row["record_id"]: row for row in frame.select(list(GOLD)).iter_rows(named=True)}
        self._seen = self._state()

    def frame(self) -> pl.DataFrame:
        """The rows as a table."""
        return pl.DataFrame(list(self.rows.values()), schema=GOLD)

    def put(self, row: dict[str, Any]) -> None:
        """Add an answer, or replace an earlier one to the same record.

        Raises:
            BadInput: the file cannot be written, or somebody else has changed it; then nothing was added.
        """
        record_id, before = row["record_id"], self.rows.get(row["record_id"])
        self._write(self.rows | {record_id: row})
        self._taken.append((record_id, before))

    def take_back(self) -> str | None:
        """Undo the latest `put` of this object that still stands; gives the id of its record, None if there is none."""
        if not self._taken:
            return None
        record_id, before = self._taken[-1]
        kept = {key: row for key, row in self.rows.items() if key != record_id or before}
        self._write(kept | {record_id: before} if before else kept)
        self._taken.pop()
        return record_id

    def _write(self, rows: dict[str, dict[str, Any]]) -> None:
        if self._state() != self._seen:
            remedy = "Start again: what the other one wrote is kept."
            raise BadInput("was changed by somebody else meanwhile", where=str(self.path), remedy=remedy)
        versions = sorted({row["taxonomy_version"] or "" for row in rows.values()})
        table = pl.DataFrame(list(rows.values()), schema=GOLD)
        write_table(table, self.path, made_from={"step": "review", "taxonomy_version": ", ".join(versions)})
        self.rows, self._seen = rows, self._state()

    def _state(self) -> tuple[int, int, int] | None:
        """Changes with every change of the file: two people with one file would lose each other's answers."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
