"""Small tables of labels, slices and documents, written out in tests."""

from __future__ import annotations

from typing import Any

import polars as pl

from annotator.tables import LABELS, SLICES


def label(record_id: str, operations: str, background: str, task: str, **more: Any) -> dict[str, Any]:
    """One row of LABELS of a document; operations as "arithmetic+recall"."""
    row: dict[str, Any] = dict.fromkeys(LABELS)
    row |= {"record_id": record_id, "kind": "document", "status": "ok", "background_condition": background}
    row |= {"task_type": task, "solving_operation": operations.split("+"), "output_constraint": "prose"}
    return row | {"exercise": "central", "quality": 5, "taxonomy_version": "1"} | more


def labels(*rows: dict[str, Any]) -> pl.DataFrame:
    """A LABELS frame."""
    return pl.DataFrame(rows, schema=LABELS)


def slice_row(
    slice_id: str, operations: str | None = None, background: str | None = None, **more: Any
) -> dict[str, Any]:
    """One row of SLICES."""
    row: dict[str, Any] = dict.fromkeys(SLICES)
    row |= {"slice_id": slice_id, "solving_operation": operations.split("+") if operations else None}
    return row | {"background_condition": background, "recoverable_points": 1.0, "item_ids": []} | more


def slices(*rows: dict[str, Any]) -> pl.DataFrame:
    """A SLICES frame."""
    return pl.DataFrame(rows, schema=SLICES)


def documents(texts: dict[str, str], **columns: list[Any]) -> pl.DataFrame:
    """doc_id and text, with more columns in the same order."""
    return pl.DataFrame({"doc_id": list(texts), "text": list(texts.values()), **columns})


def items(*rows: tuple[str, str], benchmark: str = "quiz", **columns: list[Any]) -> pl.DataFrame:
    """Items as `read_items` gives them, of (item_id, prompt)."""
    frame = pl.DataFrame(
        {
            "item_id": [item_id for item_id, _ in rows],
            "benchmark": [benchmark] * len(rows),
            "prompt": [prompt for _, prompt in rows],
            "target": [None] * len(rows),
            "choices": [None] * len(rows),
        },
        schema={"item_id": pl.String, "benchmark": pl.String, "prompt": pl.String, "target": pl.String,
                "choices": pl.List(pl.String)},
    )  # fmt: skip
    return frame.with_columns(pl.Series(name, values) for name, values in columns.items())
