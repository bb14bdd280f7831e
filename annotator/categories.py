"""The corpus as a table of categories: how much there is of each, how good it is, and how short of it the corpus is."""

from __future__ import annotations

import numpy as np
import polars as pl

from annotator.errors import BadInput, did_you_mean
from annotator.matching.profiles import Category, category_sizes, profile_sizes, profiles, summed
from annotator.rule_table import Rules


def categories(
    document_labels: pl.DataFrame | pl.LazyFrame | None,
    *,
    rules: Rules,
    documents: pl.DataFrame | pl.LazyFrame | None = None,
    matches: pl.DataFrame | None = None,
    by: tuple[str, ...] = (),
) -> pl.DataFrame:
    """The corpus as a table of categories, the largest first.

    Args:
        document_labels: LABELS of documents; None for rules that read a corpus's own columns.
        documents: doc_id and any of source, tokens and the columns that rules name.
        matches: MATCHES under the same rules, for the last two columns.
        by: further columns to tell categories by: source, lang, quality, or any other of either table.

    Returns:
        category_id, documents, tokens? (null where some are unknown), mean_quality?, exercised_share (substantial or
        central), supply_gap? (the largest of the slices that match, null without one), slices (how many match).
        A document stands in the category of each of its operations; guarded ones are left out.

    Raises:
        BadInput: neither table has a column of `by`, or as `profiles`.
    """
    _check_columns(by, document_labels, documents, rules)
    found = profiles(document_labels, rules=rules, documents=documents, by=by)
    counts, tokens = category_sizes(found)
    qualities = (
        found.documents.lazy()
        .filter(pl.col("quality").is_not_null() & pl.col("profile").is_not_null())
        .group_by("profile")
        .agg(pl.len(), pl.col("quality").sum())
        .collect()
    )
    graded, total = np.zeros(len(found.guards), dtype=np.int64), np.zeros(len(found.guards), dtype=np.int64)
    graded[qualities["profile"].to_numpy()] = qualities["len"].to_numpy()
    total[qualities["profile"].to_numpy()] = qualities["quality"].to_numpy()
    exercised = np.array([rules.exercise.get(grade or "", 0.0) >= 0.8 for grade in found.exercise], dtype=np.int64)
    table = pl.DataFrame(
        {
            "category_id": pl.Series([category.id for category in found.categories], dtype=pl.String),
            "matched_id": pl.Series([_without(category, by).id for category in found.categories], dtype=pl.String),
            "documents": counts,
            "tokens": pl.Series([None] * len(counts) if tokens is None else tokens, dtype=pl.Int64),
            "graded": summed(found, graded),
            "quality": summed(found, total),
            "exercised": summed(found, exercised * profile_sizes(found)[0]),
        }
    ).filter(pl.col("documents") > 0)
    table = table.select(
        "category_id",
        "matched_id",
        "documents",
        "tokens",
        pl.when(pl.col("graded") > 0).then(pl.col("quality") / pl.col("graded")).round(3).alias("mean_quality"),
        (pl.col("exercised") / pl.col("documents")).round(3).alias("exercised_share"),
    )
    empty = pl.DataFrame(schema={"category_id": pl.String, "supply_gap": pl.Float64, "slices": pl.Int64})
    gaps = empty if matches is None else matches.group_by("category_id").agg(
        pl.col("supply_gap").max(), pl.len().cast(pl.Int64).alias("slices")
    )  # fmt: skip
    table = table.join(gaps, left_on="matched_id", right_on="category_id", how="left").drop("matched_id")
    return table.with_columns(pl.col("slices").fill_null(0)).sort(
        ["documents", "category_id"], descending=[True, False]
    )


def _check_columns(
    by: tuple[str, ...],
    labels: pl.DataFrame | pl.LazyFrame | None,
    documents: pl.DataFrame | pl.LazyFrame | None,
    rules: Rules,
) -> None:
    tables = [table for table in (labels, documents) if table is not None]
    present = [name for table in tables for name in table.lazy().collect_schema().names()]
    for name in by:
        if name not in present and name not in rules.columns:
            what = f"no column {name!r} in the documents or their labels"
            near = did_you_mean(name, present)
            remedy = near if documents is not None else f"Give --documents, if it is a column of theirs. {near}"
            raise BadInput(what, where="--by", remedy=remedy)


def _without(category: Category, by: tuple[str, ...]) -> Category:
    """The category that matching knows: told by the columns of the rules alone."""
    return Category(tuple(pair for pair in category.shown if pair[0] not in by), category.extras)
