"""Failing slices: which combinations of background, task, operations and constraint a run really loses on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from annotator.errors import BadInput
from annotator.scores import clustered_se, paired_change, score_interval
from annotator.slicing.all_over import ALL_OVER_SHARE, losing_operations, worse_all_over
from annotator.slicing.by_column import column_table
from annotator.slicing.explain_away import Explained, explain_away
from annotator.slicing.lattice import Lattice, build_lattice
from annotator.slicing.outcomes import QUESTIONS, Outcomes, outcomes, rounded
from annotator.slicing.significance import (
    PRIOR_ITEMS,
    Against,
    Floats,
    benjamini_hochberg,
    detectable,
    items_for_power,
    one_sided_p,
    shrink,
)
from annotator.slicing.stability import confirmed, halves, reappearance
from annotator.tables import SLICES

LARGEST_DEFICIT = 0.5  # a set too small to be found even if it had lost this much is no candidate
FEWEST_ITEMS, ENOUGH_ITEMS = 10, 20  # the fewest items of a slice, in small benchmarks and from 1,000 items on
EXPLORATORY_Q = 0.10
LEAST_STABILITY = 0.6
_LISTED = 200
_MANY_MEMBERSHIPS = 1_000_000  # above this, 199 permutations instead of 999: 5 million take 5 s instead of 25 s
_BOOTSTRAP_WORK = 2e9  # multiplications; 200 resamples of 3,000 items, 20 of 100,000


@dataclass(frozen=True, slots=True)
class Slices:
    """What was found.

    table: SLICES columns, one row an accepted slice, most recoverable points first; empty when nothing passed.
    candidates: SLICES columns, the exploratory list: overlapping sets with q <= 0.10, at most 200, lowest q first.
    by_column: column, value, items, samples, score, low, high, reference_score, deficit, p_adjusted, q_value.
    summary: counts, the question that was answered, and the global change; ready for JSON.
    """

    table: pl.DataFrame
    candidates: pl.DataFrame
    by_column: pl.DataFrame
    summary: dict[str, Any]


def find_slices(
    items: pl.DataFrame,
    labels: pl.DataFrame,
    samples: pl.DataFrame,
    *,
    reference: pl.DataFrame | None = None,
    other_runs: pl.DataFrame | None = None,
    metric: str = "mean",
    threshold: float | None = None,
    alpha: float = 0.05,
    min_items: int | None = None,
    min_deficit: float = 0.02,
    max_slices: int = 50,
    permutations: int | None = None,
    bootstraps: int | None = None,
    extra_columns: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Slices:
    """Find the slices where a run loses more than elsewhere, and say how sure that is.

    Candidates are all conjunctions of the four axes with enough items (`build_lattice`); they are accepted one by one
    by a max-T test over all of them, each on the items that earlier ones left unexplained (`explain_away`), so the
    chance of any false slice in the table is at most `alpha` when nothing is wrong. If none stands out, but the run is
    worse than its reference all over, the primary operations that lose are given instead (question "worse_all_over",
    tested at a fifth of `alpha`): they say where most of the loss lies. Slices are ranked by recoverable points:
    items / all items x (shrunken deficit - one posterior standard deviation) x 100.

    Args:
        items: item_id, and cluster_id where items of one passage or template hang together.
        labels: LABELS table of items.
        samples: outputs of the run; several per item are averaged first.
        reference: outputs of an earlier or another run, to find what got worse. Without it see `outcomes`.
        other_runs: outputs of at least three other runs, to tell "weak" from "hard for all" without a reference.
        metric: "mean", "pass@k" or "pass^k".
        threshold: target score in 0..1, if the question is absolute.
        min_items: fewest items in and outside a slice. None: what a loss of 50 points needs to be found with power .8.
        min_deficit: smallest mean deficit to report.
        permutations: None means 999, or 199 where a million memberships would make that slow.
        bootstraps: resamples for `stability`; None means up to 200, fewer on large inputs.
        extra_columns: columns of items or samples (prompt template, language, level) to be tabled value by value.
        progress: called with the number of accepted slices as they are assessed.

    Returns:
        Slices. `low` and `high` bound `score` at 95 %. `deficit` is the mean of reference - run (or expected - run) in
        0..1. `confirmed` is null where neither half of the items was large enough to find the slice again.

    Raises:
        BadInput: ids that match nothing, several runs in one frame, k above the samples of every item.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise BadInput(f"threshold {threshold} is not within 0..1", remedy="Give a rate such as 0.7.")
    joined = outcomes(
        items, samples, labels=labels, reference=reference, other_runs=other_runs, metric=metric, threshold=threshold
    )
    if joined.frame.height < 2 * FEWEST_ITEMS:
        raise BadInput(
            f"only {joined.frame.height} items have a label and a score", remedy=f"Give at least {2 * FEWEST_ITEMS}."
        )
    d = joined.frame["difference"].to_numpy()
    against: Against = "zero" if joined.question == "below_threshold" else "rest"
    lattice = _candidates(joined, d, min_items, alpha)
    smallest = int(lattice.sizes.min()) if min_items is None and len(lattice.sizes) else min_items or FEWEST_ITEMS
    permutations = permutations or (999 if lattice.members.nnz <= _MANY_MEMBERSHIPS else 199)
    options = {"min_deficit": min_deficit, "against": against, "clusters": joined.clusters}
    found = explain_away(
        lattice,
        d,
        seed_from=joined.digest,
        min_items=smallest,
        max_slices=max_slices,
        permutations=permutations,
        alpha=alpha,
        **options,
    )
    half_a = halves(joined.frame["cluster"].to_list())
    spread_out = not found.accepted and worse_all_over(joined, d, min_deficit=min_deficit, alpha=alpha * ALL_OVER_SHARE)
    if spread_out:
        alpha *= ALL_OVER_SHARE
        lost = losing_operations(joined, d, half_a, min_items=smallest, min_deficit=min_deficit, alpha=alpha)
        lattice, found, stable, held = lost.lattice, lost.found, lost.stability, lost.held
    else:
        if bootstraps is None:
            work = 3 * lattice.members.nnz * (len(found.accepted) + 1)
            bootstraps = int(min(200, max(20, _BOOTSTRAP_WORK // max(work, 1))))
        stable = reappearance(
            lattice, d, found, seed_from=joined.digest, min_items=smallest, bootstraps=bootstraps, **options
        )
        fewest = max(FEWEST_ITEMS // 2, smallest // 2)
        held = confirmed(lattice, d, found, half_a, min_items=fewest, alpha=alpha, **options)
    described = _Description(joined, lattice, found, d)
    table = described.accepted(stable, held)
    if progress:
        progress(table.height)
    summary = _summary(joined, lattice, found, table, alpha, smallest, permutations, bootstraps)
    if spread_out:
        summary |= {"question": "worse_all_over", "question_text": QUESTIONS["worse_all_over"]}
    by_column = column_table(items, samples, extra_columns, joined, metric=metric, alpha=alpha, reference=reference)
    return Slices(table, described.exploratory(), by_column, summary)


def _candidates(joined: Outcomes, d: Floats, min_items: int | None, alpha: float) -> Lattice:
    """The lattice at the support asked for, or at what power asks for given how many candidates that leaves."""
    axes = joined.frame.select("background_condition", "task_type", "solving_operation", "output_constraint")
    fewest = min(ENOUGH_ITEMS, max(FEWEST_ITEMS, joined.frame.height // 50))
    lattice = build_lattice(axes, min_items=min_items or fewest)
    if min_items is not None or not len(lattice.sizes):
        return lattice
    needed = items_for_power(LARGEST_DEFICIT, spread=float(d.std(ddof=1)), tests=len(lattice.sizes), alpha=alpha)
    needed = min(max(needed, fewest), joined.frame.height // 4)
    return build_lattice(axes, min_items=needed) if needed > fewest else lattice


class _Description:
    """Turns rows of the lattice into rows of the slices table."""

    def __init__(self, joined: Outcomes, lattice: Lattice, found: Explained, d: Floats) -> None:
        self.joined, self.lattice, self.found, self.d = joined, lattice, found, d
        self.q = benjamini_hochberg(one_sided_p(found.first.t, lattice.sizes.astype(np.float64)))
        self.shrunk, self.posterior = self._shrunken()

    def accepted(self, stable: Floats, held: list[bool | None]) -> pl.DataFrame:
        rows = []
        for at, slice_ in enumerate(self.found.accepted):
            row = self._row(slice_.row, evidence=len(slice_.evidence), p=slice_.p)
            rows.append(row | {"stability": rounded(float(stable[at])), "confirmed": held[at]})
        return self._frame(sorted(rows, key=lambda row: (-row["recoverable_points"], row["slice_id"])))

    def exploratory(self) -> pl.DataFrame:
        tested = self.found.first
        good = np.flatnonzero((self.q <= EXPLORATORY_Q) & (tested.mean > 0) & np.isfinite(tested.t))
        first = sorted(good.tolist(), key=lambda row: (self.q[row], -tested.t[row], row))[:_LISTED]
        rows = [self._row(row, evidence=int(self.lattice.sizes[row]), p=float(tested.p[row])) for row in first]
        return self._frame([row | {"stability": None, "confirmed": None} for row in rows])

    def _shrunken(self) -> tuple[Floats, Floats]:
        """Empirical-Bayes deficits of all candidates, shrunk towards those with as many predicates."""
        n = self.lattice.sizes.astype(np.float64)
        members, d = self.lattice.members, self.d
        mean = (members @ d) / n
        overall = float(d.var(ddof=1))
        squares = np.maximum(members @ d**2 - n * mean**2, 0.0)
        error = np.sqrt((squares + PRIOR_ITEMS * overall) / (n - 1 + PRIOR_ITEMS) / n)
        shrunk, posterior = mean.copy(), error.copy()
        level = np.array([len(conjunction.predicates) for conjunction in self.lattice.conjunctions])
        for size in np.unique(level):
            these = level == size
            shrunk[these], posterior[these] = shrink(mean[these], error[these])
        return shrunk, posterior

    def _row(self, row: int, *, evidence: int, p: float) -> dict[str, Any]:
        conjunction, at = self.lattice.conjunctions[row], self.lattice.items_of(row)
        frame = self.joined.frame[at]
        score, clusters = frame["score"].to_numpy(), self.joined.clusters
        samples = int(frame["samples"].sum())
        low, high = score_interval(score, None if clusters is None else clusters[at], samples=samples)
        certain = max(0.0, float(self.shrunk[row] - self.posterior[row]))
        theirs = frame["reference_score"].to_numpy() if self.joined.question == "worse_than_reference" else None
        return {
            "slice_id": conjunction.slice_id,
            "background_condition": conjunction.background_condition,
            "task_type": conjunction.task_type,
            "solving_operation": sorted(conjunction.solving_operation) or None,
            "output_constraint": conjunction.output_constraint,
            "items": len(at),
            "samples": samples,
            "score": rounded(float(score.mean())),
            "low": rounded(low),
            "high": rounded(high),
            "reference_score": None if theirs is None else rounded(float(theirs.mean())),
            "deficit": rounded(float(self.d[at].mean())),
            "deficit_shrunk": rounded(float(self.shrunk[row])),
            "p_adjusted": rounded(p),
            "q_value": rounded(float(self.q[row])),
            "recoverable_points": rounded(100 * evidence / len(self.d) * certain),
            "item_ids": frame["item_id"].to_list(),
        }

    def _frame(self, rows: list[dict[str, Any]]) -> pl.DataFrame:
        return pl.DataFrame(rows, schema=SLICES, orient="row")


def _summary(joined, lattice, found, table, alpha, min_items, permutations, bootstraps) -> Mapping[str, Any]:
    frame, d = joined.frame, joined.frame["difference"].to_numpy()
    change = paired_change(-d, joined.clusters)
    compared = joined.question == "worse_than_reference"
    left = -d[found.left]
    se = clustered_se(frame["score"].to_numpy(), joined.clusters)
    spread, tests = float(d.std(ddof=1)), max(len(lattice.sizes), 1)
    sizes = (50, 100, 250, 500)
    return {
        "question": joined.question,
        "question_text": QUESTIONS[joined.question],
        **joined.counts,
        "clusters": int(joined.clusters.max()) + 1 if joined.clusters is not None else frame.height,
        "score": rounded(float(frame["score"].to_numpy().mean())),
        "score_se": rounded(se),
        "reference_score": rounded(float(frame["reference_score"].to_numpy().mean())) if compared else None,
        "change": rounded(change["estimate"]) if compared else None,
        "change_low": rounded(change["low"]) if compared else None,
        "change_high": rounded(change["high"]) if compared else None,
        "change_p": rounded(change["p"]) if compared else None,
        "candidates": len(lattice.sizes),
        "min_items": min_items,
        "detectable_deficit": dict(
            zip(map(str, sizes), map(rounded, detectable(sizes, spread=spread, tests=tests, alpha=alpha)))
        ),
        "slices": table.height,
        "items_in_slices": int((~found.left).sum()),
        "residual_change": rounded(float(left.mean())) if compared and len(left) else None,
        "explained_change": rounded(float(np.sum(-d[~found.left])) / len(d)) if compared else None,
        "alpha": alpha,
        "permutations": permutations,
        "bootstraps": bootstraps,
        "seed": joined.digest[:16],
        "note": _note(joined, lattice, found, table, alpha),
    }


def _note(joined: Outcomes, lattice: Lattice, found: Explained, table: pl.DataFrame, alpha: float) -> str:
    if not len(lattice.sizes):
        return "No combination of labels has enough items to be tested; give more items, or a smaller min_items."
    if table.is_empty():
        best = float(found.first.p.min())
        return (
            f"No slice passed: none of {len(lattice.sizes)} candidates differs beyond chance at {alpha:g} after "
            f"adjusting for all of them (lowest adjusted p = {best:.3g}). The exploratory candidates are hints only."
        )
    share, tested = 1 - found.left.mean(), len(lattice.sizes)
    text = f"{table.height} of {tested} candidates passed; they cover {share:.0%} of {len(found.left)} items."
    unsure = table.filter(pl.col("stability") < LEAST_STABILITY).height
    if unsure:
        text += f" {unsure} of them came back in fewer than 60 % of the resamples: read those with care."
    return text
