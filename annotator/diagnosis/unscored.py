"""Outputs that have no score: told apart from wrong ones, counted, and left out."""

from __future__ import annotations

import polars as pl

from annotator.errors import BadInput


def without_unscored(samples: pl.DataFrame, *, where: str) -> tuple[pl.DataFrame, int]:
    """The outputs that have a score, and how many have none (null or NaN: an error, or a judge that gave up).

    Raises:
        BadInput: there are outputs, but not one has a score.
    """
    score = pl.col("score").cast(pl.Float64).fill_nan(None)
    scored = samples.filter(score.is_not_null())
    if samples.height and scored.is_empty():
        raise BadInput("no output has a score", where=where, remedy="Score the run first, or name its score column.")
    return scored, samples.height - scored.height
