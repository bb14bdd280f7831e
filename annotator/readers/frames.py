"""Rows as frames: extra columns get the narrowest type that holds them all, the same from jsonl, csv and parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from annotator.readers.values import as_json

_INTEGER = r"^-?(0|[1-9][0-9]{0,17})$"
_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$"


def extra_columns(rows: Sequence[Mapping[str, Any]], taken: set[str], *, from_text: bool) -> list[pl.Series]:
    """The columns of some rows that have no canonical name, in order of first appearance.

    Args:
        rows: flattened rows; a missing key is null.
        taken: names that are not extra.
        from_text: all values came as text (csv): columns of numbers or booleans are then recognised.

    Returns:
        Series of Int64, Float64, Boolean or String; lists, objects and mixed columns as String (JSON text).
    """
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    return [_series(name, [row.get(name) for row in rows], from_text) for name in names if name not in taken]


def _series(name: str, values: list[Any], from_text: bool) -> pl.Series:
    kinds = {type(value) for value in values} - {type(None)}
    if from_text and kinds <= {str}:
        return _guess(pl.Series(name, values, dtype=pl.String))
    if kinds == {bool}:
        return pl.Series(name, values, dtype=pl.Boolean)
    if kinds == {int} and all(value is None or abs(value) < 2**63 for value in values):
        return pl.Series(name, values, dtype=pl.Int64)
    if kinds and kinds <= {int, float}:
        return pl.Series(name, [None if value is None else float(value) for value in values], dtype=pl.Float64)
    texts = [value if value is None or type(value) is str else _as_cell(value) for value in values]
    return pl.Series(name, texts, dtype=pl.String)


def _as_cell(value: Any) -> str:
    if isinstance(value, bytes):  # an image, say: its size will do
        return f"{len(value)} bytes"
    return as_json(value) if isinstance(value, list | dict) else str(value)


def _guess(texts: pl.Series) -> pl.Series:
    present = texts.drop_nulls()
    if present.is_empty():
        return texts
    if present.str.contains(_INTEGER).all():
        return texts.cast(pl.Int64)
    if present.str.contains(_NUMBER).all():
        return texts.cast(pl.Float64)
    if present.is_in(["true", "false", "True", "False"]).all():
        return texts.str.to_lowercase() == "true"
    return texts


def stack(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Frames one under the other; a column that one lacks is null there, and types that differ are widened.

    Int64 with Float64 gives Float64; any other pair gives String. Columns stand in order of first appearance.
    """
    dtypes: dict[str, pl.DataType] = {}
    for frame in frames:
        for name, dtype in frame.schema.items():
            known = dtypes.get(name, dtype)
            if frame[name].null_count() == frame.height:
                dtypes.setdefault(name, dtype)
            elif name not in dtypes or known == dtype or _all_null(frames, name, before=frame):
                dtypes[name] = dtype
            else:
                dtypes[name] = pl.Float64() if {known, dtype} == {pl.Int64(), pl.Float64()} else pl.String()
    aligned = [
        frame.select(
            _cast(frame, name, dtype) if name in frame.columns else pl.lit(None, dtype=dtype).alias(name)
            for name, dtype in dtypes.items()
        )
        for frame in frames
    ]
    return pl.concat(aligned)


def _all_null(frames: Sequence[pl.DataFrame], name: str, *, before: pl.DataFrame) -> bool:
    for frame in frames:
        if frame is before:
            return True
        if name in frame.columns and frame[name].null_count() < frame.height:
            return False
    return True


def _cast(frame: pl.DataFrame, name: str, dtype: pl.DataType) -> pl.Expr:
    own = frame.schema[name]
    if own == dtype:
        return pl.col(name)
    if dtype == pl.String() and isinstance(own, pl.List):
        return pl.Series(
            name, [None if value is None else as_json(value) for value in frame[name].to_list()], dtype=pl.String
        )
    return pl.col(name).cast(dtype)
