"""Scores by the values of any column a user names: prompt template, shot count, language, level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from annotator.errors import BadInput, did_you_mean
from annotator.fingerprint import fingerprint
from annotator.scores import item_scores, score_interval
from annotator.slicing.outcomes import Outcomes, rounded
from annotator.slicing.significance import benjamini_hochberg, max_t, one_sided_p

BY_COLUMN = {
    "column": pl.String,
    "value": pl.String,
    "items": pl.Int64,
    "samples": pl.Int64,
    "score": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "reference_score": pl.Float64,
    "deficit": pl.Float64,
    "p_adjusted": pl.Float64,
    "q_value": pl.Float64,
}
_MOST_VALUES = 1000


def column_table(
    items: pl.DataFrame,
    samples: pl.DataFrame,
    columns: Sequence[str],
    joined: Outcomes,
    *,
    metric: str = "mean",
    alpha: float = 0.05,
    reference: pl.DataFrame | None = None,
    permutations: int = 999,
) -> pl.DataFrame:
    """One row a value of each column, by column and value, each value tested against the rest of its column.

    A column of `samples` splits the outputs of an item, so its units are (item, value) pairs and items count as
    clusters. `p_adjusted` is max-T over the values of one column (1.0 where fewer than five units); `deficit` as in
    `find_slices`.

    Raises:
        BadInput: no such column in items or samples, or one with more than 1,000 values.
    """
    parts = [
        _one_column(_units(items, samples, column, joined, metric, reference), column, joined, alpha, permutations)
        for column in columns
    ]
    return pl.concat(parts) if parts else pl.DataFrame(schema=BY_COLUMN)


def _units(
    items: pl.DataFrame,
    samples: pl.DataFrame,
    column: str,
    joined: Outcomes,
    metric: str,
    reference: pl.DataFrame | None,
) -> pl.DataFrame:
    """item_id, value, cluster, score, samples, expected (the score without the difference); null values left out."""
    expected = (pl.col("score") + pl.col("difference")).alias("expected")
    base = joined.frame.select("item_id", "cluster", "score", "samples", expected)
    value = pl.col(column).cast(pl.String, strict=False).alias("value")
    if column in items.columns:
        units = base.join(items.select("item_id", value).unique("item_id"), on="item_id")
    elif column in samples.columns:
        scored = _by_value(samples.select("item_id", "score", value), metric)
        units = base.drop("score", "samples").join(scored, on="item_id")
        if reference is not None and column in reference.columns:
            theirs = _by_value(reference.select("item_id", "score", value), metric)
            theirs = theirs.select("item_id", "value", pl.col("score").alias("own"))
            units = units.join(theirs, on=["item_id", "value"], how="left")
            units = units.with_columns(expected=pl.coalesce("own", "expected")).drop("own")
    else:
        there = [*items.columns, *samples.columns]
        what = f"no column {column!r} in items or samples"
        raise BadInput(what, where="--by", remedy=did_you_mean(column, there))
    units = units.drop_nulls("value").sort("item_id", "value")
    if units["value"].n_unique() > _MOST_VALUES:
        what = f"column {column!r} has more than {_MOST_VALUES:,} values: it separates the items"
        raise BadInput(what, where="--by", remedy="Choose one that groups them.")
    return units


def _by_value(samples: pl.DataFrame, metric: str) -> pl.DataFrame:
    parts = [
        item_scores(part, metric=metric).select("item_id", "score", "samples", value=pl.lit(value))
        for (value,), part in samples.drop_nulls("value").group_by(["value"])
    ]
    schema = {"item_id": pl.String, "score": pl.Float64, "samples": pl.Int64, "value": pl.String}
    return pl.concat(parts).filter(pl.col("score").is_not_nan()) if parts else pl.DataFrame(schema=schema)


def _one_column(units: pl.DataFrame, column: str, joined: Outcomes, alpha: float, permutations: int) -> pl.DataFrame:
    values = sorted(units["value"].unique().to_list())
    if not values:
        return pl.DataFrame(schema=BY_COLUMN)
    d = (units["expected"] - units["score"]).to_numpy()
    code = np.searchsorted(values, units["value"].to_numpy())
    members = sparse.csr_array((np.ones(len(d)), (code, np.arange(len(d)))), shape=(len(values), len(d)))
    alone = units["cluster"].n_unique() == units.height
    clusters = None if alone else np.unique(units["cluster"].to_numpy(), return_inverse=True)[1]
    against = "zero" if joined.question == "below_threshold" else "rest"
    seed = int(fingerprint([joined.digest, "column", column])[:16], 16)
    tests = max_t(
        members, d, seed=seed, clusters=clusters, min_items=5, permutations=permutations, alpha=alpha, against=against
    )
    sizes = np.bincount(code, minlength=len(values))
    q = benjamini_hochberg(one_sided_p(tests.t, sizes.astype(np.float64)))
    rows: list[dict[str, Any]] = []
    for at, value in enumerate(values):
        part = units.filter(pl.Series(code == at))
        score, samples = part["score"].to_numpy(), int(part["samples"].sum())
        low, high = score_interval(score, None if clusters is None else clusters[code == at], samples=samples)
        theirs = float(part["expected"].to_numpy().mean()) if joined.question == "worse_than_reference" else None
        rows.append(
            {
                "column": column,
                "value": value,
                "items": part["item_id"].n_unique(),
                "samples": samples,
                "score": rounded(float(score.mean())),
                "low": rounded(low),
                "high": rounded(high),
                "reference_score": rounded(theirs),
                "deficit": rounded(float(d[code == at].mean())),
                "p_adjusted": rounded(float(tests.p[at])),
                "q_value": rounded(float(q[at])),
            }
        )
    return pl.DataFrame(rows, schema=BY_COLUMN, orient="row")
