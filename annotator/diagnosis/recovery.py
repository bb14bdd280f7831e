"""How much of a drop between two runs goes away under another scoring rule, with a paired bootstrap interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from annotator.diagnosis.rescore import item_means, item_numbers
from annotator.scores import Floats, paired_change


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs on the same items: evidence of every output, item means, and resampling weights.

    here, reference: frames of `rescore.evidence`, of the same items in the same order.
    resamples: how often each item is drawn, one row a bootstrap; all causes share them.
    """

    here: pl.DataFrame
    reference: pl.DataFrame
    clusters: NDArray[np.integer] | None
    resamples: Floats

    def restricted(self, kept: NDArray[np.bool_]) -> Pair:
        """The same for some of the items."""
        frames = [seen.filter(pl.Series(kept[item_numbers(seen)])) for seen in (self.here, self.reference)]
        clusters = None if self.clusters is None else np.unique(self.clusters[kept], return_inverse=True)[1]
        return Pair(*frames, clusters, self.resamples[:, kept])

    def drop(self, rule: str = "as_logged") -> Floats:
        """Reference minus this run for each item, under a rule."""
        return self._mean(self.reference, rule) - self._mean(self.here, rule)

    def interval(self, rule: str = "as_logged") -> dict[str, float]:
        """Mean drop under a rule: estimate, low, high, p."""
        return paired_change(self.drop(rule), self.clusters)

    def recovered_by_rule(self, rule: str) -> dict[str, Any]:
        """Net recovery: ((A'_q - A_q) - (A'_r - A_r)) / (A_r - A_q), q this run, r the reference, ' re-scored."""
        left = self.drop(rule)
        return self._share(left, np.ones(len(left)))

    def recovered_without(self, here: NDArray[np.bool_], reference: NDArray[np.bool_]) -> dict[str, Any]:
        """Recovery when the marked outputs of both runs are left out: 1 - drop of the others / drop.

        An item stays as long as both runs keep an output of it; `kept` is the share of items that stay.
        """
        left, keep = self.drop_without(here, reference)
        return self._share(left, keep) | {"kept": float(keep.mean())}

    def drop_without(
        self, here: NDArray[np.bool_], reference: NDArray[np.bool_], rule: str = "as_logged"
    ) -> tuple[Floats, Floats]:
        """Per item: the drop over unmarked outputs under a rule (0 where none are left), and 1.0 where some are."""
        means, keep = [], np.ones(len(self.drop()))
        for seen, marked in ((self.here, here), (self.reference, reference)):
            open_share = item_means(seen, ~marked)
            value = item_means(seen, np.where(marked, 0.0, seen[rule].to_numpy()))
            means.append(np.divide(value, open_share, out=np.zeros_like(value), where=open_share > 0))
            keep *= open_share > 0
        return (means[1] - means[0]) * keep, keep

    def _mean(self, seen: pl.DataFrame, rule: str) -> Floats:
        return item_means(seen, seen[rule].to_numpy())

    def _share(self, left: Floats, keep: Floats) -> dict[str, Any]:
        """1 - (mean drop left over kept items) / (mean drop), with the middle 95 % of the resamples."""
        before = self.drop()
        columns = np.column_stack([left * keep, keep, before])
        if not keep.any() or abs(before.sum()) < 1e-9:
            return {"estimate": None, "low": None, "high": None}
        sums = np.vstack([columns.sum(axis=0), np.einsum("bn,nk->bk", self.resamples, columns)])
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = 1 - (sums[:, 0] / sums[:, 1]) / (sums[:, 2] / len(before))
        resampled = shares[1:][np.isfinite(shares[1:])]
        if not len(resampled):
            return {"estimate": float(shares[0]), "low": None, "high": None}
        low, high = np.quantile(resampled, [0.025, 0.975])
        return {"estimate": float(shares[0]), "low": float(low), "high": float(high)}


def resampling_weights(items: int, clusters: NDArray[np.integer] | None, *, seed: int, bootstraps: int) -> Floats:
    """How often each item is drawn in each bootstrap; whole clusters are drawn where there are any."""
    generator = np.random.default_rng(seed)
    count = items if clusters is None else int(clusters.max()) + 1
    drawn = np.stack(
        [np.bincount(generator.integers(0, count, count), minlength=count) for _ in range(bootstraps)]
    ).astype(np.float64)
    return drawn if clusters is None else drawn[:, clusters]


def axis_shape(
    differences: Floats, axes: Mapping[str, list[str | None]], *, seed: int, permutations: int = 999
) -> dict[str, dict[str, float]]:
    """For each axis, the share of the variance of item differences that lies between its values, and how sure that is.

    eta^2 = 1 - within-level / total sum of squares; p by permuting the differences over items. Faults of the harness
    load on the output constraint, missing skills on the operation or the background (primary operation only, since
    axes that hold several values correlate with each other).

    Returns:
        axis -> {eta2, p, levels}; axes with fewer than two values of at least two items are left out.
    """
    shape = {}
    for axis, values in axes.items():
        known = np.array([value is not None for value in values])
        names, code = np.unique([value for value in values if value is not None], return_inverse=True)
        sizes = np.bincount(code, minlength=len(names)) if len(code) else np.zeros(0)
        if (sizes >= 2).sum() < 2:
            continue
        d = differences[known]
        d = d - d.mean()
        total = float(np.sum(d**2))

        def between(shuffled: Floats, code: NDArray = code, sizes: NDArray = sizes) -> float:
            sums = np.bincount(code, weights=shuffled, minlength=len(sizes))
            return float(np.sum(sums**2 / np.maximum(sizes, 1)))

        observed = between(d)
        generator = np.random.default_rng(seed)
        above = sum(between(generator.permutation(d)) >= observed * (1 - 1e-9) for _ in range(permutations))
        p = (1 + above) / (permutations + 1) if total > 0 else 1.0
        shape[axis] = {"eta2": observed / total if total > 0 else 0.0, "p": p, "levels": len(names)}
    return shape
