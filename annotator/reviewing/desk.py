"""What the page may ask for and do: one person, one queue of labels, one file of gold."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from annotator.errors import BadInput
from annotator.review import GoldFile, checked_label, fields_of, gold_row, label_of
from annotator.reviewing.display import display, visible
from annotator.taxonomy import AXES, GRADES, KINDS, MAX_OPERATIONS, Kind, Taxonomy


class Desk:
    """A person's place of work. All values that it gives back are JSON values.

    Args:
        labels: LABELS columns and text, in the order in which they are to be shown.
        gold: where answers go. annotator: whose answers they are.

    Attributes:
        answered, corrected: how many of the queue have an answer now, and how many of those differ from the label.
    """

    def __init__(self, labels: pl.DataFrame, gold: GoldFile, *, taxonomy: Taxonomy, annotator: str) -> None:
        self._rows = list(labels.iter_rows(named=True))
        self._place = {row["record_id"]: at for at, row in enumerate(self._rows)}
        self._gold, self._taxonomy, self._annotator = gold, taxonomy, annotator

    @property
    def answered(self) -> int:
        return sum(record_id in self._gold.rows for record_id in self._place)

    @property
    def corrected(self) -> int:
        rows = (self._gold.rows.get(record_id) for record_id in self._place)
        return sum(bool(row and row["corrected"]) for row in rows)

    def session(self) -> dict[str, Any]:
        """Who reviews, the forms of both sides with the definitions of the values, and how far it has come."""
        return {
            "annotator": self._annotator,
            "gold": visible(self._gold.path.name),
            "taxonomy_version": self._taxonomy.version,
            "most_operations": MAX_OPERATIONS,
            "forms": {kind: _form(kind, self._taxonomy) for kind in KINDS},
        } | self._progress(-1)

    def record(self, position: int) -> dict[str, Any]:
        """One record, its label, and the answer if it has one.

        Raises:
            BadInput: no such position.
        """
        if not 0 <= position < len(self._rows):
            raise BadInput(f"there is no record {position}")
        row = self._rows[position]
        shown = display(row["text"], row["evidence"])
        answer = self._gold.rows.get(row["record_id"])
        return {
            "position": position,
            "record_id": row["record_id"],
            "name": visible(row["record_id"]),
            "kind": row["kind"],
            "judge": visible(row["judge"] or ""),
            "confidence": row["confidence"],
            "pieces": shown.pieces,
            "omitted": shown.omitted,
            "evidence": visible(row["evidence"] or ""),
            "quoted": shown.quoted,
            "label": label_of(row),
            "answer": label_of(answer) if answer else None,
            "reviewed_at": answer["reviewed_at"] if answer else None,
        }

    def answer(self, body: Any) -> dict[str, Any]:
        """Take an answer {record_id, label} into the gold; gives the progress, with the next record to look at.

        Raises:
            BadInput: not a record of the queue, a label that the taxonomy does not allow, or a full disk.
        """
        record_id = body.get("record_id") if isinstance(body, Mapping) else None
        if not isinstance(record_id, str) or record_id not in self._place:
            raise BadInput("this is not a record of the queue")
        position = self._place[record_id]
        row = self._rows[position]
        label = checked_label(body.get("label"), row["kind"], self._taxonomy, where=record_id, complete=True)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        made_with = {"taxonomy_version": self._taxonomy.version}  # what the person was shown, if the label does not say
        self._gold.put(gold_row(row | made_with, label, annotator=self._annotator, reviewed_at=now))
        return self._progress(position)

    def undo(self) -> dict[str, Any]:
        """Take the latest answer back; `next` is its record, or null if there was none."""
        record_id = self._gold.take_back()
        place = None if record_id is None else self._place[record_id]
        return self._progress(-1) | {"next": place}

    def _progress(self, position: int) -> dict[str, Any]:
        """total, answered, and next: the first record after `position`, then from the start, without an answer."""
        order = [*range(position + 1, len(self._rows)), *range(position + 1)]
        open_ones = (at for at in order if self._rows[at]["record_id"] not in self._gold.rows)
        return {"total": len(self._rows), "answered": self.answered, "next": next(open_ones, None)}


def _form(kind: Kind, taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """The axes and grades of one side: name, question, rule, and values with their meanings."""
    form = []
    for name in fields_of(kind):
        if name in AXES:
            axis = taxonomy.axes[name]
            question, rule, meanings = axis.question, axis.rule[kind], axis.definitions[kind]
        else:
            question, rule, meanings = taxonomy.grade_questions[name], "", taxonomy.grades[name]
        values = [{"value": value, "meaning": meaning} for value, meaning in meanings.items()]
        form.append({"name": name, "question": question, "rule": rule, "is_grade": name in GRADES, "values": values})
    return form
