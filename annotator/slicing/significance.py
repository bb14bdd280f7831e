"""Is any of many overlapping item sets really worse? Max-T tests, false discovery rates, shrinkage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

Floats = NDArray[np.float64]
Against = Literal["rest", "zero"]

# A set of a dozen items can have no spread by luck, and its t would be endless. The spread of a set is therefore
# averaged with that of all items as if the latter had been seen on twenty items more (moderated t, Smyth 2004).
PRIOR_ITEMS = 20.0
_COLUMNS = 64  # permutations at a time: 100,000 items x 64 x 8 bytes = 51 MB


@dataclass(frozen=True, slots=True)
class MaxT:
    """One round of tests over all candidate sets.

    t: test statistic of each set; -inf where the set is too small or too large to be tested.
    mean: mean difference inside each set (NaN where empty).
    p: one-sided p-value of each set, adjusted for all of them (Westfall & Young 1993, single step).
    needed: the statistic that each set must reach at the level asked for; inf where it cannot be tested.
    bar: what is taken off each statistic before it is compared with the others (0 with one level).
    highest: the maximum of statistic - bar in each permutation, ascending.
    """

    t: Floats
    mean: Floats
    p: Floats
    needed: Floats
    bar: Floats
    highest: Floats

    def adjusted(self, t: Floats) -> Floats:
        """Adjusted p-values of other statistics of the same sets, such as those given the slices already accepted."""
        # The null is computed in single precision (twice as fast), and a tie counts against the finding.
        heights = t - self.bar - 1e-5 * np.abs(np.where(np.isfinite(t), t, 0.0))
        above = len(self.highest) - np.searchsorted(self.highest, heights, side="left")
        return np.where(np.isfinite(self.needed) & np.isfinite(t), (1 + above) / (len(self.highest) + 1), 1.0)


def max_t(
    members: sparse.csr_array,
    differences: Floats,
    *,
    seed: int,
    levels: NDArray[np.integer] | None = None,
    clusters: NDArray[np.integer] | None = None,
    alive: NDArray[np.bool_] | None = None,
    min_items: int = 10,
    permutations: int = 999,
    alpha: float = 0.05,
    against: Against = "rest",
) -> MaxT:
    """Test every set of items at once for a mean difference above that of the other items.

    p(S) = (1 + #{b: max over sets of T^b >= T_S}) / (B + 1), Westfall & Young 1993. T is a Welch t with moderated
    variances, and the null comes from permuting differences over items. With clusters, T is divided by the square root
    of the set's design effect 1 + (sum_c n_c^2 / n - 1) * rho (Kish 1965), and what is permuted is the standardised
    means of the clusters and, apart from them, the residuals within clusters, since clusters of unequal size cannot be
    exchanged as they are.

    Sets of many predicates are many, and would set the bar for the few simple ones. With `levels`, each level has a bar
    of its own, at an equal share of alpha, and what is compared with its maximum is the height of each T above the bar
    (weighted min-P; Westfall & Young 1993, ch. 6; Genovese et al. 2006 for the weights).

    Args:
        members: one row a set, one column an item.
        differences: how much worse each item is (positive = worse).
        levels: number of predicates of each set, 1..; None for one bar for all.
        clusters: number of each item's cluster, 0..; None when every item stands alone.
        alive: items still to be explained; the others take no part.
        against: "rest" compares with the other items, "zero" with no difference at all.

    The products are sparse and run in one thread in a fixed order, so that the same inputs give the same bits on any
    machine.
    """
    weights = np.ones(len(differences)) if alive is None else alive.astype(np.float64)
    at = np.flatnonzero(weights)
    d = differences[at]
    inside = members @ weights
    testable = (inside >= min_items) & (inside <= len(at) - min_items)
    if not testable.any():
        return MaxT(*(np.full(members.shape[0], value) for value in (-math.inf, math.nan, 1.0, math.inf, 0.0)), d[:0])
    used, n = members[testable], inside[testable][:, None]
    null = _Null(d if against == "rest" else d - d.mean(), None if clusters is None else clusters[at])
    scale = 1 / np.sqrt(design_effects(used, weights, clusters, null.correlation))[:, None]
    sums = used @ np.column_stack([weights * differences, weights * differences**2])
    observed = t_statistics(n, sums[:, :1], sums[:, 1:], len(at), d.sum(), (d**2).sum(), against) * scale
    generator = np.random.default_rng(seed)
    level = np.zeros(len(n), dtype=np.int64) if levels is None else levels[testable]
    rows_of_level = [np.flatnonzero(level == value) for value in np.unique(level)]
    narrow, maxima = used.astype(np.float32), [np.empty((len(rows_of_level), 0))]
    for start in range(0, permutations, _COLUMNS):
        shuffled = np.zeros((len(differences), min(_COLUMNS, permutations - start)), dtype=np.float32)
        shuffled[at] = null.draw(generator, shuffled.shape[1])
        totals = (shuffled[at].sum(axis=0, dtype=np.float64), (shuffled[at] ** 2).sum(axis=0, dtype=np.float64))
        sums_b, squares_b = (narrow @ shuffled).astype(np.float64), (narrow @ shuffled**2).astype(np.float64)
        t = t_statistics(n, sums_b, squares_b, len(at), *totals, against) * scale
        maxima.append(np.stack([t[rows].max(axis=0) for rows in rows_of_level]))
    mean = np.full(members.shape[0], math.nan)
    mean[testable] = sums[:, 0] / n[:, 0]
    return _tests(testable, observed[:, 0], mean, np.hstack(maxima), rows_of_level, alpha)


class _Null:
    """Draws of the differences as they would be if no set were worse: permuted, with clusters kept together."""

    def __init__(self, differences: Floats, clusters: NDArray[np.integer] | None) -> None:
        self.differences, self.clusters, self.correlation = differences, clusters, 0.0
        if clusters is None:
            return
        _, self.code, self.sizes = np.unique(clusters, return_inverse=True, return_counts=True)
        means = np.bincount(self.code, weights=differences) / self.sizes
        self.centre = float(differences.mean())
        residuals = differences - means[self.code]
        between, within = variance_components(differences, self.code, self.sizes)
        self.correlation = between / (between + within) if between + within > 0 else 0.0
        self.spread = np.sqrt(between + within / self.sizes)
        self.standard = np.divide(means - self.centre, self.spread, out=np.zeros_like(means), where=self.spread > 0)
        self.several = self.sizes[self.code] > 1
        size = self.sizes[self.code][self.several]
        self.residuals = residuals[self.several] * np.sqrt(size / (size - 1))

    def draw(self, generator: np.random.Generator, columns: int) -> NDArray[np.floating]:
        """One null world a column."""
        drawn = np.empty((len(self.differences), columns), dtype=np.float32)
        for column in range(columns):
            if self.clusters is None:
                drawn[:, column] = generator.permutation(self.differences)
                continue
            around = np.zeros(len(self.differences))
            around[self.several] = generator.permutation(self.residuals)
            around -= (np.bincount(self.code, weights=around) / self.sizes)[self.code]
            means = self.centre + self.spread * generator.permutation(self.standard)
            drawn[:, column] = means[self.code] + around
        return drawn


def variance_components(values: Floats, code: NDArray[np.integer], sizes: NDArray[np.integer]) -> tuple[float, float]:
    """Variance of values between and within clusters: analysis of variance with unequal sizes (Searle 1971).

    The first is 0 where clusters differ no more than by chance; the second is 0 where every cluster is one item.
    """
    count, total = len(sizes), len(values)
    means = np.bincount(code, weights=values) / sizes
    if count < 2:
        return 0.0, float(values.var())
    if count == total:
        return float(values.var(ddof=1)), 0.0
    within = float(np.sum((values - means[code]) ** 2)) / (total - count)
    around = float(np.sum(sizes * (means - values.mean()) ** 2)) / (count - 1)
    typical = (total - float(np.sum(sizes.astype(np.float64) ** 2)) / total) / (count - 1)
    return max(0.0, (around - within) / typical), within


def design_effects(
    members: sparse.csr_array, weights: Floats, clusters: NDArray[np.integer] | None, correlation: float
) -> Floats:
    """By how much clustering inflates the variance of each set's mean: 1 + (sum_c n_c^2 / n - 1) * correlation."""
    if clusters is None:
        return np.ones(members.shape[0])
    shape = (len(clusters), int(clusters.max()) + 1)
    by_cluster = sparse.csr_array((weights, (np.arange(len(clusters)), clusters)), shape=shape)
    counts = members @ by_cluster
    squares = np.asarray(counts.multiply(counts).sum(axis=1)).ravel()
    n = np.maximum(members @ weights, 1.0)
    return 1.0 + np.maximum(squares / n - 1.0, 0.0) * correlation


def cluster_scale(members: sparse.csr_array, values: Floats, clusters: NDArray[np.integer] | None) -> Floats:
    """What clustering leaves of each set's t: 1 / sqrt(design effect), at the correlation of `values` in clusters."""
    if clusters is None:
        return np.ones(members.shape[0])
    _, code, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    between, within = variance_components(values, code, sizes)
    correlation = between / (between + within) if between + within > 0 else 0.0
    return 1 / np.sqrt(design_effects(members, np.ones(len(values)), clusters, correlation))


def t_statistics(n, total, squares, n_all, total_all, squares_all, against: Against) -> Floats:
    """Moderated Welch t of each set (row) under each weighting or permutation (column).

    Args:
        n, total, squares: items, sum and sum of squares of the differences inside each set.
        n_all, total_all, squares_all: the same over all items, one number or one a column.
    """
    prior = (squares_all - total_all**2 / n_all) / (n_all - 1)
    mean = total / n
    spread = _moderated(squares - n * mean**2, n, prior) / n
    if against == "rest":
        outside = n_all - n
        mean_outside = (total_all - total) / outside
        spread = spread + _moderated(squares_all - squares - outside * mean_outside**2, outside, prior) / outside
        mean = mean - mean_outside
    return np.divide(mean, np.sqrt(spread), out=np.zeros_like(mean), where=spread > 1e-300)


def _moderated(sum_of_squares, n, prior) -> Floats:
    return (np.maximum(sum_of_squares, 0.0) + PRIOR_ITEMS * prior) / (n - 1 + PRIOR_ITEMS)


def _tests(testable, observed, mean, maxima, rows_of_level, alpha) -> MaxT:
    """p-values and bars from the maxima of each level (row) in each permutation (column)."""
    bar = np.zeros(len(observed))
    if len(rows_of_level) > 1 and maxima.shape[1] > 1:
        for rows, own in zip(rows_of_level, maxima):
            bar[rows] = _gumbel_quantile(own, 1 - alpha / len(rows_of_level))
        maxima = maxima - np.array([bar[rows[0]] for rows in rows_of_level])[:, None]
    highest = np.sort(maxima.max(axis=0))
    allowed = max(0, math.floor(alpha * (len(highest) + 1) + 1e-9) - 1)  # maxima that may lie above an accepted set
    t, p, needed, bars = (np.full(len(testable), value) for value in (-math.inf, 1.0, math.inf, 0.0))
    t[testable], bars[testable] = observed, bar
    needed[testable] = bar + (float(highest[len(highest) - 1 - allowed]) if len(highest) else 0.0)
    tests = MaxT(t, mean, p, needed, bars, highest)
    return replace(tests, p=tests.adjusted(t))


def _gumbel_quantile(maxima: Floats, at: float) -> float:
    """Quantile of maxima by the Gumbel law with their mean and standard deviation: smooth where draws are few."""
    scale = float(maxima.std(ddof=1)) * math.sqrt(6) / math.pi
    return float(maxima.mean()) - scale * (np.euler_gamma + math.log(-math.log(at)))


def one_sided_p(t: Floats, n: Floats) -> Floats:
    """Upper-tail p-value of each moderated t (n - 1 + PRIOR_ITEMS degrees of freedom), before any adjustment."""
    return stats.t.sf(t, n - 1 + PRIOR_ITEMS)


def benjamini_hochberg(p: Floats) -> Floats:
    """q-values: the false discovery rate at which each test would just be accepted.

    Benjamini & Hochberg (1995), J. R. Stat. Soc. B 57:289-300.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03, 0.9])).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.9]
    """
    m = len(p)
    order = np.argsort(p, kind="stable")
    raised = p[order] * m / np.arange(1, m + 1)
    q = np.empty(m)
    q[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return q


def shrink(means: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Empirical-Bayes means of many sets, and their posterior standard deviations.

    Normal-normal with moment estimates: tau^2 = max(0, Var(means) - mean(errors^2)), weight of the own mean
    tau^2 / (tau^2 + error^2) (Efron & Morris 1975). With fewer than three sets nothing is shrunk.

    >>> shrink(np.array([0.0, 0.1, 0.5]), np.array([0.1, 0.1, 0.1]))[0].round(3).tolist()
    [0.029, 0.114, 0.457]
    """
    if len(means) < 3:
        return means.copy(), errors.copy()
    centre = float(means.mean())
    between = max(0.0, float(means.var(ddof=1)) - float(np.mean(errors**2)))
    own = np.divide(between, between + errors**2, out=np.ones_like(errors), where=between + errors**2 > 0)
    return centre + own * (means - centre), np.sqrt(own) * errors


def items_for_power(deficit: float, *, spread: float, tests: int, alpha: float = 0.05, power: float = 0.8) -> int:
    """How many items a set needs for a true mean difference of `deficit` to be found among `tests` sets.

    n >= ((z_{1-alpha/tests} + z_power) * spread / deficit)^2, spread the standard deviation of the differences.

    >>> items_for_power(0.27, spread=0.5, tests=20)
    46
    """
    z = stats.norm.ppf(1 - alpha / max(tests, 1)) + stats.norm.ppf(power)
    return max(2, math.ceil((z * spread / deficit) ** 2 - 1e-9))


def detectable(items: Sequence[int], *, spread: float, tests: int, alpha: float = 0.05, power: float = 0.8) -> list:
    """The smallest mean difference that sets of these sizes would show with the given power."""
    z = float(stats.norm.ppf(1 - alpha / max(tests, 1)) + stats.norm.ppf(power))
    return [z * spread / math.sqrt(n) for n in items]
