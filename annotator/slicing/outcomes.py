"""Join items, labels and outputs into one row an item: what it is about, and how much worse it went than it should."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import optimize, special

from annotator.errors import BadInput
from annotator.fingerprint import fingerprint
from annotator.scores import Floats, item_scores, one_run, sorted_groups
from annotator.taxonomy import AXES

QUESTIONS = {
    "worse_than_reference": "Where does the run lose more against the reference run than elsewhere?",
    "worse_all_over": "No slice stands out from the rest, but the run is worse all over. Where does the loss lie?",
    "worse_than_expected": "Where is the run worse than the other runs make us expect?",
    "below_threshold": "Where is the run below the target score?",
    "lower_than_rest": "Where is the run lower than on the other items? (Without a reference, slices that are hard for "
    "every model are found too.)",
}


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One row an item, in item_id order.

    frame: item_id, the four axes (null where unlabelled), cluster str, score f64, reference_score f64?, samples i64,
        difference f64 (positive = worse than it should be).
    clusters: number of each row's cluster, or None when every item stands alone.
    question: a key of QUESTIONS. counts: what was read, used and left out.
    digest: a hash of ids and differences, from which seeds are made.
    """

    frame: pl.DataFrame
    clusters: NDArray[np.int64] | None
    question: str
    counts: dict[str, Any]
    digest: str


def outcomes(
    items: pl.DataFrame,
    samples: pl.DataFrame,
    *,
    labels: pl.DataFrame | None = None,
    reference: pl.DataFrame | None = None,
    other_runs: pl.DataFrame | None = None,
    metric: str = "mean",
    threshold: float | None = None,
) -> Outcomes:
    """Score every item and say how much worse it went than the reference, than expected, or than the rest.

    The difference of an item is reference score - score; without a reference, expected score - score, where the
    expectation is the item's mean over `other_runs` moved by the run's ability; without those, `threshold` - score;
    else mean score - score. Items without a score in every run asked for, or (when labels are given) without a label,
    are left out and counted.

    Raises:
        BadInput: ids of samples, reference or labels match no item; several runs in one frame; repeated label ids.
    """
    known = items.select("item_id", _cluster(items)).unique("item_id", keep="first").sort("item_id")
    frame, counts = known, {"items": known.height}
    if labels is not None:
        frame = frame.join(_labelled(labels, known), on="item_id", how="left")
        counts["items_without_label"] = int(frame["labelled"].is_null().sum())
        frame = frame.filter(pl.col("labelled")).drop("labelled")
    scores = _scored(samples, known, metric, "samples")
    counts["items_without_samples"] = known.join(scores, on="item_id", how="anti").height
    counts["samples_of_unknown_items"] = samples.join(known, on="item_id", how="anti").height
    frame = frame.join(scores.select("item_id", "score", "samples"), on="item_id", how="inner")
    if reference is not None:
        theirs = _scored(reference, known, metric, "reference samples")
        frame = frame.join(theirs.select("item_id", reference_score="score"), on="item_id", how="inner")
        counts["items_without_reference"] = known.join(theirs, on="item_id", how="anti").height
    elif other_runs is not None:
        frame = frame.join(_mean_of_runs(other_runs, known, metric), on="item_id", how="inner")
    if frame.is_empty():
        remedy = "Check that all come from the same benchmark, and that k is not above the samples of an item."
        raise BadInput("no item has a score in every run and a label", where="samples", remedy=remedy)
    frame = frame.sort("item_id")
    question, frame = _difference(frame, reference is not None, other_runs is not None, threshold)
    counts |= {"items_used": frame.height, "samples_used": int(frame["samples"].sum())}
    content = [frame["item_id"].to_list(), frame["difference"].round(9).to_list()]
    return Outcomes(frame, _numbered(frame["cluster"]), question, counts, fingerprint(content))


def _cluster(items: pl.DataFrame) -> pl.Expr:
    own = pl.lit("item ") + pl.col("item_id")
    if "cluster_id" not in items.columns:
        return own.alias("cluster")
    return (pl.lit("cluster ") + pl.col("cluster_id").cast(pl.String)).fill_null(own).alias("cluster")


def _numbered(cluster: pl.Series) -> NDArray[np.int64] | None:
    if cluster.n_unique() == len(cluster):
        return None
    return np.unique(cluster.to_numpy(), return_inverse=True)[1].astype(np.int64)


def _labelled(labels: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    good = labels.filter(pl.col("status") == "ok") if "status" in labels.columns else labels
    if good.is_empty() and len(labels):
        remedy = "Label the items first: the column `error` says why each failed."
        raise BadInput("no row has a label", where="labels", remedy=remedy)
    good = good.select(pl.col("record_id").alias("item_id"), *AXES, labelled=pl.lit(value=True))
    if good["item_id"].is_duplicated().any():
        twice = good.filter(pl.col("item_id").is_duplicated())["item_id"].min()
        raise BadInput(f"two labels for {twice!r}", where="labels", remedy="Keep one row a record.")
    if good.join(known, on="item_id", how="semi").is_empty():
        raise _no_match("labels", "record_id", good["item_id"], known)
    return good


def _scored(samples: pl.DataFrame, known: pl.DataFrame, metric: str, where: str) -> pl.DataFrame:
    mine = one_run(samples, where=where).join(known, on="item_id", how="semi")
    if mine.is_empty():
        raise _no_match(where, "item_id", samples["item_id"], known)
    return item_scores(mine, metric=metric).filter(pl.col("score").is_not_nan())


def _no_match(where: str, column: str, theirs: pl.Series, known: pl.DataFrame) -> BadInput:
    ours, other = known["item_id"].min(), theirs.min()
    remedy = f"Items look like {ours!r}, {where} like {other!r}. Map the id column or choose the right file."
    return BadInput(f"no {column} matches an item", where=where, remedy=remedy)


def _mean_of_runs(other_runs: pl.DataFrame, known: pl.DataFrame, metric: str) -> pl.DataFrame:
    runs = sorted(other_runs["run"].unique().to_list())
    if len(runs) < 3:
        remedy = "Give outputs of at least three other models, or one of them as the reference."
        raise BadInput(f"only {len(runs)} other runs for the difficulty model", where="other runs", remedy=remedy)
    scored = [_scored(other_runs.filter(pl.col("run") == run), known, metric, f"run {run}") for run in runs]
    ids, score, starts, counts = sorted_groups(pl.concat(frame.select("item_id", "score") for frame in scored))
    return pl.DataFrame({"item_id": ids, "ease": np.add.reduceat(score, starts) / counts})


def _difference(
    frame: pl.DataFrame, has_reference: bool, has_others: bool, threshold: float | None
) -> tuple[str, pl.DataFrame]:
    if has_reference:
        return "worse_than_reference", frame.with_columns(difference=pl.col("reference_score") - pl.col("score"))
    frame = frame.with_columns(reference_score=pl.lit(None, dtype=pl.Float64))
    if has_others:
        fitted = _expected(frame["ease"].to_numpy(), frame["score"].to_numpy())
        return "worse_than_expected", frame.with_columns(difference=pl.Series(fitted) - pl.col("score")).drop("ease")
    if threshold is not None:
        return "below_threshold", frame.with_columns(difference=threshold - pl.col("score"))
    mean = float(np.mean(frame["score"].to_numpy()))
    return "lower_than_rest", frame.with_columns(difference=mean - pl.col("score"))


def _expected(ease: Floats, score: Floats) -> Floats:
    """What the run should score on each item: the ease of the item, moved by one common step of ability.

    ease + expit(logit(m) - step) - m with m the ease kept off 0 and 1, and the step such that the means agree (the
    Rasch model). Not a regression on ease: that would pull noisy eases to the middle and blame items hard for all.
    """
    m = np.clip(ease, 0.05, 0.95)

    def moved(step: float) -> Floats:
        return ease + special.expit(special.logit(m) - step) - m

    low, high = float(np.mean(moved(12.0))), float(np.mean(moved(-12.0)))
    target = min(max(float(np.mean(score)), low + 1e-9), high - 1e-9)
    return moved(optimize.brentq(lambda step: float(np.mean(moved(step))) - target, -12.0, 12.0, xtol=1e-10))


def rounded(value: float | None, digits: int = 10) -> float | None:
    """A float as it is reported: `digits` significant digits, None for NaN, so that last bits never show."""
    if value is None or math.isnan(value):
        return None
    return float(f"{value:.{digits}g}")
