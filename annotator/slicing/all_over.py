"""Where the loss lies when a run is worse all over: the primary operations, each with its share of the loss.

"Worse than elsewhere" cannot see a loss that is spread evenly. Primary operations divide the items, so their deficits
add up to the whole, and the operation is what corpus categories are matched by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from annotator.scores import clustered_se, paired_change
from annotator.slicing.explain_away import Accepted, Explained
from annotator.slicing.lattice import Conjunction, Lattice
from annotator.slicing.outcomes import Outcomes
from annotator.slicing.significance import Floats, MaxT

ALL_OVER_SHARE = 0.1  # of alpha, for this second question; the first gets the rest, so both together keep alpha


@dataclass(frozen=True, slots=True)
class AllOver:
    """The operations that lose, as slices: what `find_slices` needs to describe them.

    stability: chance that a resample of the clusters passes again (normal approximation).
    held: whether each half of the families shows the loss by itself.
    """

    lattice: Lattice
    found: Explained
    stability: Floats
    held: list[bool | None]


def worse_all_over(joined: Outcomes, d: Floats, *, min_deficit: float, alpha: float) -> bool:
    """Whether the run as a whole is worse than its reference (paired, two-sided p below `alpha`)."""
    if joined.question != "worse_than_reference" or float(d.mean()) < min_deficit:
        return False
    return paired_change(-d, joined.clusters)["p"] < alpha


def losing_operations(
    joined: Outcomes, d: Floats, half_a: NDArray[np.bool_], *, min_items: int, min_deficit: float, alpha: float
) -> AllOver:
    """The primary operations whose items lose, most lossy first by the order of their names.

    Args:
        d: difference of each row of `joined.frame` (positive = worse).
        half_a: rows of half A, whole clusters.
        min_items: the fewest items with that primary operation.
        alpha: level of the tests against no loss at all, after Holm (1979) over the operations tested.
    """
    listed = [tuple(operations or ()) for operations in joined.frame["solving_operation"].to_list()]
    primary = np.array([operations[0] if operations else "" for operations in listed])
    names = [name for name in sorted(set(primary) - {""}) if (primary == name).sum() >= min_items]
    own = [np.flatnonzero(primary == name) for name in names]
    t = np.array([_t(d[rows], _of(joined.clusters, rows)) for rows in own])
    mean = np.array([d[rows].mean() for rows in own])
    p = holm(stats.norm.sf(t))
    bar = stats.norm.isf(alpha / max(len(names), 1))
    passed = [at for at in range(len(names)) if p[at] <= alpha and mean[at] >= min_deficit]
    lattice = _lattice(names, listed)
    left = np.ones(len(d), dtype=bool)
    for at in passed:
        left[own[at]] = False
    accepted = [Accepted(at, own[at], float(p[at]), at) for at in passed]
    held = [_held(d, joined.clusters, own[at], half_a) for at in passed]
    bars = np.full(len(names), bar)
    tests = MaxT(t=t, mean=mean, p=p, needed=bars, bar=np.zeros(len(names)), highest=np.zeros(0))
    return AllOver(lattice, Explained(accepted, tests, bars, left), stats.norm.cdf(t[passed] - bar), held)


def holm(p: Floats) -> Floats:
    """Step-down adjusted p-values: Holm (1979), Scand. J. Statist. 6:65-70.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _t(d: Floats, clusters: NDArray[np.integer] | None) -> float:
    error = clustered_se(d, clusters)
    if error > 0:
        return float(d.mean() / error)
    return float(np.inf) if d.mean() > 0 else 0.0  # every item lost as much as every other


def _of(clusters: NDArray[np.integer] | None, rows: NDArray[np.integer]) -> NDArray[np.integer] | None:
    return None if clusters is None else clusters[rows]


def _held(d: Floats, clusters, rows: NDArray[np.integer], half_a: NDArray[np.bool_]) -> bool | None:
    halves = [rows[half_a[rows]], rows[~half_a[rows]]]
    if min(len(half) for half in halves) < 2:
        return None
    return all(stats.norm.sf(_t(d[half], _of(clusters, half))) <= 0.05 for half in halves)


def _lattice(names: list[str], listed: list[tuple[str, ...]]) -> Lattice:
    """One row an operation, with all items that name it, at whatever place."""
    members = np.array([[name in operations for operations in listed] for name in names], dtype=np.float64)
    matrix = sparse.csr_array(members.reshape(len(names), len(listed)))
    conjunctions = [Conjunction(solving_operation=(name,)) for name in names]
    return Lattice(conjunctions, matrix, np.asarray(matrix.sum(axis=1)).astype(np.int64).ravel())
