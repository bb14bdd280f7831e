"""What was found, as the rows of the slices table and the summary beside it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from annotator.scores import clustered_se, paired_change, score_interval
from annotator.slicing.explain_away import Explained
from annotator.slicing.lattice import Lattice
from annotator.slicing.outcomes import QUESTIONS, Outcomes, rounded
from annotator.slicing.significance import PRIOR_ITEMS, Floats, benjamini_hochberg, detectable, one_sided_p, shrink
from annotator.tables import SLICES

EXPLORATORY_Q = 0.10
LEAST_STABILITY = 0.6
MOST_FRAGILITY = 0.4
_LISTED = 200
_SIZES = (50, 100, 250, 500)  # items, for the detectable deficits


@dataclass(frozen=True, slots=True)
class Trust:
    """What speaks for and against each accepted slice, in the order of `Explained.accepted`; NaN or None: not asked.

    stability: share of resamples that find it again. confirmed: found in one half and holding in the other.
    fragility: share of redrawn label tables under which its verdict falls.
    """

    stability: Floats
    confirmed: list[bool | None]
    fragility: Floats


@dataclass(frozen=True)
class Described:
    """Rows of the lattice as rows of the slices table.

    share: the part of alpha that this question was asked at; adjusted p-values are divided by it (weighted Bonferroni),
    so that each can be held against alpha itself. floors: what luck gives on each item (`guess_floors`), with pass@k.
    """

    joined: Outcomes
    lattice: Lattice
    found: Explained
    share: float
    floors: Floats | None = None

    @cached_property
    def d(self) -> Floats:
        return self.joined.frame["difference"].to_numpy()

    @cached_property
    def q(self) -> Floats:
        """False discovery rates over all candidates."""
        return benjamini_hochberg(one_sided_p(self.found.first.t, self.lattice.sizes.astype(np.float64)))

    @cached_property
    def shrunken(self) -> tuple[Floats, Floats]:
        """Empirical-Bayes deficits of all candidates and their posterior s.d., by number of predicates."""
        n = self.lattice.sizes.astype(np.float64)
        members, d = self.lattice.members, self.d
        mean = (members @ d) / n
        squares = np.maximum(members @ d**2 - n * mean**2, 0.0)
        error = np.sqrt((squares + PRIOR_ITEMS * float(d.var(ddof=1))) / (n - 1 + PRIOR_ITEMS) / n)
        shrunk, posterior = mean.copy(), error.copy()
        level = np.array([len(conjunction.predicates) for conjunction in self.lattice.conjunctions])
        for size in np.unique(level):
            these = level == size
            shrunk[these], posterior[these] = shrink(mean[these], error[these])
        return shrunk, posterior

    def accepted(self, trust: Trust) -> pl.DataFrame:
        """SLICES columns, most recoverable points first."""
        rows = []
        for at, slice_ in enumerate(self.found.accepted):
            row = self._row(slice_.row, evidence=len(slice_.evidence), p=slice_.p)
            row |= {"stability": rounded(float(trust.stability[at])), "confirmed": trust.confirmed[at]}
            rows.append(row | {"label_fragility": rounded(float(trust.fragility[at]))})
        rows.sort(key=lambda row: (-row["recoverable_points"], row["slice_id"]))
        return pl.DataFrame(rows, schema=SLICES, orient="row")

    def exploratory(self) -> pl.DataFrame:
        """SLICES columns: every candidate with q <= .10, overlapping, at most 200, lowest q first."""
        tested = self.found.first
        good = np.flatnonzero((self.q <= EXPLORATORY_Q) & (tested.mean > 0) & np.isfinite(tested.t))
        first = sorted(good.tolist(), key=lambda row: (self.q[row], -tested.t[row], row))[:_LISTED]
        rows = [self._row(row, evidence=int(self.lattice.sizes[row]), p=float(tested.p[row])) for row in first]
        untold = {"stability": None, "confirmed": None, "label_fragility": None}
        return pl.DataFrame([row | untold for row in rows], schema=SLICES, orient="row")

    def _row(self, row: int, *, evidence: int, p: float) -> dict[str, Any]:
        conjunction, at = self.lattice.conjunctions[row], self.lattice.items_of(row)
        frame = self.joined.frame[at]
        score, clusters = frame["score"].to_numpy(), self.joined.clusters
        samples = int(frame["samples"].sum())
        low, high = score_interval(score, None if clusters is None else clusters[at], samples=samples)
        shrunk, posterior = (float(values[row]) for values in self.shrunken)
        compared = self.joined.question == "worse_than_reference"
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
            "guess_floor": rounded(_mean_floor(None if self.floors is None else self.floors[at])),
            "reference_score": rounded(float(frame["reference_score"].to_numpy().mean())) if compared else None,
            "deficit": rounded(float(self.d[at].mean())),
            "deficit_shrunk": rounded(shrunk),
            "p_adjusted": rounded(min(1.0, p / self.share)),
            "q_value": rounded(float(self.q[row])),
            "recoverable_points": rounded(100 * evidence / len(self.d) * max(0.0, shrunk - posterior)),
            "item_ids": frame["item_id"].to_list(),
        }

    def summary(self, table: pl.DataFrame, *, question: str, alpha: float) -> dict[str, Any]:
        """Counts, the question that was answered, the global change, and what could have been found."""
        frame, found = self.joined.frame, self.found
        change = paired_change(-self.d, self.joined.clusters)
        compared = self.joined.question == "worse_than_reference"
        left = -self.d[found.left]
        tests, spread = max(len(self.lattice.sizes), 1), float(self.d.std(ddof=1))
        smallest = detectable(_SIZES, spread=spread, tests=tests, alpha=alpha * self.share)
        return {
            "question": question,
            "question_text": QUESTIONS[question],
            **self.joined.counts,
            "clusters": int(self.joined.clusters.max()) + 1 if self.joined.clusters is not None else frame.height,
            "score": rounded(float(frame["score"].to_numpy().mean())),
            "score_se": rounded(clustered_se(frame["score"].to_numpy(), self.joined.clusters)),
            "guess_floor": rounded(_mean_floor(self.floors)),
            "reference_score": rounded(float(frame["reference_score"].to_numpy().mean())) if compared else None,
            "change": rounded(change["estimate"]) if compared else None,
            "change_low": rounded(change["low"]) if compared else None,
            "change_high": rounded(change["high"]) if compared else None,
            "change_p": rounded(change["p"]) if compared else None,
            "candidates": len(self.lattice.sizes),
            "detectable_deficit": {str(size): rounded(deficit) for size, deficit in zip(_SIZES, smallest)},
            "slices": table.height,
            "items_in_slices": int((~found.left).sum()),
            "residual_change": rounded(float(left.mean())) if compared and len(left) else None,
            "explained_change": rounded(float(np.sum(-self.d[~found.left])) / len(self.d)) if compared else None,
            "alpha": alpha,
            "seed": self.joined.digest[:16],
            "note": self._note(table, alpha),
        }

    def _note(self, table: pl.DataFrame, alpha: float) -> str:
        tested = len(self.lattice.sizes)
        if not tested:
            return "No combination of labels has enough items to be tested; give more items, or a smaller min_items."
        if table.is_empty():
            best = min(1.0, float(self.found.first.p.min()) / self.share)
            return (
                f"No slice passed: none of {tested} candidates differs beyond chance at {alpha:g} after adjusting for "
                f"all of them (lowest adjusted p = {best:.3g}). The exploratory candidates are hints only."
            )
        share = 1 - self.found.left.mean()
        text = f"{table.height} of {tested} candidates passed; they cover {share:.0%} of {len(self.found.left)} items."
        unsure = table.filter(pl.col("stability") < LEAST_STABILITY).height
        if unsure:
            text += f" {unsure} of them came back in fewer than 60 % of the resamples: read those with care."
        fragile = table.filter(pl.col("label_fragility") > MOST_FRAGILITY).height
        if fragile:
            text += f" {fragile} would not pass in more than 40 % of the tables with as many label errors as assumed."
        return text


def _mean_floor(floors: Floats | None) -> float | None:
    return None if floors is None or np.isnan(floors).all() else float(np.nanmean(floors))
