"""Is any of many overlapping item sets really worse? Max-T tests, false discovery rates, shrinkage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

Floats = NDArray[np.float64]
Against = Literal["rest", "zero"]

# A set of a dozen items can have no spread by luck, and its t would be endless. The spread of a set is therefore
# averaged with that of all items as if the latter had been seen on ten items more (moderated t, Smyth 2004).
PRIOR_ITEMS = 10.0
_COLUMNS = 64  # permutations at a time: 100,000 items x 64 x 8 bytes = 51 MB


@dataclass(frozen=True, slots=True)
class MaxT:
    """One round of tests over all candidate sets.

    t: test statistic of each set; -inf where the set is too small or too large to be tested.
    mean: mean difference inside each set (NaN where empty).
    p: one-sided p-value of each set, adjusted for all of them (Westfall & Young 1993, single step).
    critical: the statistic that a set must reach at the level asked for.
    """

    t: Floats
    mean: Floats
    p: Floats
    critical: float


def max_t(
    members: sparse.csr_array,
    differences: Floats,
    *,
    seed: int,
    clusters: NDArray[np.integer] | None = None,
    alive: NDArray[np.bool_] | None = None,
    min_items: int = 10,
    permutations: int = 999,
    alpha: float = 0.05,
    against: Against = "rest",
) -> MaxT:
    """Test every set of items at once for a mean difference above that of the other items.

    p(S) = (1 + #{b: max over sets of T^b >= T_S}) / (B + 1), Westfall & Young 1993. Without clusters T is a Welch t
    with moderated variances and the null comes from permuting differences over items. With clusters T is the
    cluster-robust score statistic and the null comes from flipping the sign of whole clusters (restricted wild cluster
    bootstrap, Cameron, Gelbach & Miller 2008), since clusters of unequal size cannot be exchanged.

    Args:
        members: one row a set, one column an item.
        differences: how much worse each item is (positive = worse).
        clusters: number of each item's cluster, 0..; None when every item stands alone.
        alive: items still to be explained; the others take no part.
        against: "rest" compares with the other items, "zero" with no difference at all.

    The products are sparse and run in one thread in a fixed order, so that the same inputs give the same bits on any
    machine.
    """
    weights = np.ones(len(differences)) if alive is None else alive.astype(np.float64)
    generator = np.random.default_rng(seed)
    if clusters is None:
        return _permuted(members, differences, weights, generator, min_items, permutations, alpha, against)
    return _flipped(members, differences, weights, clusters, generator, min_items, permutations, alpha, against)


def _permuted(members, differences, weights, generator, min_items, permutations, alpha, against) -> MaxT:
    at = np.flatnonzero(weights)
    d = differences[at]
    inside = members @ weights
    testable = (inside >= min_items) & (inside <= len(at) - min_items)
    if not testable.any():
        return _nothing(members.shape[0])
    used = members[testable]
    n = inside[testable][:, None]
    sums = used @ np.column_stack([weights * differences, weights * differences**2])
    observed = t_statistics(n, sums[:, :1], sums[:, 1:], len(at), d.sum(), (d**2).sum(), against)[:, 0]
    null = d - d.mean() if against == "zero" else d
    totals = null.sum(), (null**2).sum()
    narrow, null = used.astype(np.float32), null.astype(np.float32)
    maxima = [np.empty(0)]
    for start in range(0, permutations, _COLUMNS):
        columns = min(_COLUMNS, permutations - start)
        shuffled = np.zeros((len(differences), columns), dtype=np.float32)
        for column in range(columns):
            shuffled[at, column] = generator.permutation(null)
        sums_b, squares_b = (narrow @ shuffled).astype(np.float64), (narrow @ shuffled**2).astype(np.float64)
        t = t_statistics(n, sums_b, squares_b, len(at), *totals, against)
        maxima.append(t.max(axis=0))
    mean = np.full(members.shape[0], math.nan)
    mean[testable] = sums[:, 0] / n[:, 0]
    return _adjusted(testable, observed, mean, np.concatenate(maxima), alpha)


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


def _flipped(members, differences, weights, clusters, generator, min_items, permutations, alpha, against) -> MaxT:
    count = int(clusters.max()) + 1
    by_cluster = sparse.csr_array(
        (weights, (np.arange(len(clusters)), clusters)), shape=(len(clusters), count)
    )  # item x cluster
    alive_items = weights.sum()
    inside = members @ weights
    spread_over = np.diff((members @ by_cluster).astype(bool).tocsr().indptr)
    testable = (inside >= min_items) & (inside <= alive_items - min_items) & (spread_over >= 2)
    if not testable.any():
        return _nothing(members.shape[0])
    used, n = members[testable], inside[testable]
    centre = 0.0 if against == "zero" else (weights * differences).sum() / alive_items
    centred = sparse.csr_array(
        (weights * (differences - centre), (np.arange(len(clusters)), clusters)), shape=(len(clusters), count)
    )
    in_set = used @ centred  # set x cluster: sum of centred differences
    per_cluster = np.asarray(centred.sum(axis=0)).ravel()
    out = alive_items - n if against == "rest" else np.full(len(n), math.inf)
    # The influence of cluster c on the difference of means is in_set/n - (per_cluster - in_set)/out: a sparse part
    # where the set has items, and the same -per_cluster/out everywhere.
    scale = sparse.diags_array(1 / n + 1 / out)
    sparse_part = (scale @ in_set).tocsr()
    everywhere = 1 / out
    crossed = sparse_part @ per_cluster
    squared = sparse_part.multiply(sparse_part).sum(axis=1)
    variance = squared - 2 * everywhere * crossed + everywhere**2 * np.sum(per_cluster**2)
    error = np.sqrt(np.maximum(variance, 1e-300))
    observed = (np.asarray(sparse_part.sum(axis=1)).ravel() - everywhere * per_cluster.sum()) / error
    maxima = [np.empty(0)]
    for start in range(0, permutations, _COLUMNS):
        columns = min(_COLUMNS, permutations - start)
        signs = generator.choice((-1.0, 1.0), size=(columns, count)).T
        flipped = sparse_part @ np.ascontiguousarray(signs)
        total = np.einsum("c,cb->b", per_cluster, signs)
        maxima.append(((flipped - everywhere[:, None] * total) / error[:, None]).max(axis=0))
    mean = np.full(members.shape[0], math.nan)
    mean[testable] = used @ (weights * differences) / n
    return _adjusted(testable, observed, mean, np.concatenate(maxima), alpha)


def _adjusted(testable, observed, mean, maxima, alpha) -> MaxT:
    maxima = np.sort(maxima)
    t, p = np.full(len(testable), -math.inf), np.ones(len(testable))
    t[testable] = observed
    # The null is computed in single precision (twice as fast), and a tie counts against the finding.
    above = len(maxima) - np.searchsorted(maxima, observed - 1e-5 * np.abs(observed), side="left")
    p[testable] = (1 + above) / (len(maxima) + 1)
    allowed = max(0, math.floor(alpha * (len(maxima) + 1) + 1e-9) - 1)  # maxima that may lie above an accepted set
    critical = float(maxima[len(maxima) - 1 - allowed]) if len(maxima) else math.inf
    return MaxT(t, mean, p, critical)


def _nothing(sets: int) -> MaxT:
    return MaxT(np.full(sets, -math.inf), np.full(sets, math.nan), np.ones(sets), math.inf)


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
