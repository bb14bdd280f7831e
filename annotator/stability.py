"""Would the same slices be found again? Resampling of items, and two halves that check each other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from annotator.explain_away import Explained, explain_away
from annotator.fingerprint import fingerprint
from annotator.lattice import Lattice
from annotator.significance import PRIOR_ITEMS, Against, Floats, t_statistics

SAME_SLICE = 0.5  # Jaccard similarity from which a resample is said to have found the slice again
_COLUMNS = 32


def reappearance(
    lattice: Lattice,
    differences: Floats,
    found: Explained,
    *,
    seed_from: str,
    clusters: NDArray[np.integer] | None = None,
    min_items: int = 10,
    min_deficit: float = 0.02,
    bootstraps: int = 200,
    against: Against = "rest",
) -> Floats:
    """For each accepted slice, the share of resamples that accept one with at least half its items in common.

    Items (whole clusters, where there are any) are drawn with replacement and the explain-away rounds are run again.
    To keep the price at one sparse product a round, resamples reuse the critical values of the original rounds instead
    of permuting anew, and skip the check of parents and children. With clusters a set's t is scaled by the ratio of its
    cluster-robust to its plain statistic.
    """
    rows = [slice_.row for slice_ in found.accepted]
    if not rows or not bootstraps:
        return np.full(len(rows), math.nan)
    same = np.column_stack([lattice.overlap(lattice.items_of(row)) >= SAME_SLICE for row in rows])
    scale = _robust_ratio(lattice, differences, found, min_items, against) if clusters is not None else None
    generator = np.random.default_rng(int(fingerprint([seed_from, "bootstrap"])[:16], 16))
    hits = np.zeros(len(rows))
    for start in range(0, bootstraps, _COLUMNS):
        weights = np.column_stack(
            [_resampled(len(differences), clusters, generator) for _ in range(min(_COLUMNS, bootstraps - start))]
        )
        hits += _greedy(lattice, differences, weights, same, found.critical, scale, min_items, min_deficit, against)
    return hits / bootstraps


def _resampled(items: int, clusters: NDArray[np.integer] | None, generator: np.random.Generator) -> Floats:
    """How often each item is drawn."""
    count = items if clusters is None else int(clusters.max()) + 1
    drawn = np.bincount(generator.integers(0, count, size=count), minlength=count).astype(np.float64)
    return drawn if clusters is None else drawn[clusters]


def _robust_ratio(lattice: Lattice, differences: Floats, found: Explained, min_items: int, against: Against) -> Floats:
    plain = _weighted_t(lattice, differences, np.ones((len(differences), 1)), min_items, against)[0][:, 0]
    usable = np.isfinite(plain) & np.isfinite(found.first.t) & (np.abs(plain) > 1e-9)
    ratio = np.divide(found.first.t, plain, out=np.ones_like(plain), where=usable)
    return np.clip(ratio, 0.0, 1.0)[:, None]


def _weighted_t(
    lattice: Lattice, differences: Floats, weights: Floats, min_items: int, against: Against
) -> tuple[Floats, Floats]:
    """t and mean of every set (row) under every weighting (column)."""
    d = differences[:, None]
    n_all = weights.sum(axis=0)
    n = lattice.members @ weights
    total, squares = lattice.members @ (weights * d), lattice.members @ (weights * d**2)
    testable = (n >= min_items) & (n <= n_all - min_items)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = t_statistics(n, total, squares, n_all, (weights * d).sum(axis=0), (weights * d**2).sum(axis=0), against)
        mean = total / n
    return np.where(testable, t, -math.inf), mean


def _greedy(lattice, differences, weights, same, critical, scale, min_items, min_deficit, against) -> Floats:
    """How many of the weightings accept a set that is the same as each original slice."""
    weights = weights.copy()
    active = np.ones(weights.shape[1], dtype=bool)
    hit = np.zeros((weights.shape[1], same.shape[1]), dtype=bool)
    for step in range(2 * same.shape[1] + 2):  # a resample may need a few slices more than the original
        columns = np.flatnonzero(active)
        t, mean = _weighted_t(lattice, differences, weights[:, columns], min_items, against)
        t = np.where(mean >= min_deficit, t if scale is None else t * scale, -math.inf)
        best = np.argmax(t, axis=0)
        passed = t[best, np.arange(len(columns))] >= critical[min(step, len(critical) - 1)]
        for column, row in zip(columns[passed], best[passed]):
            hit[column] |= same[row]
            weights[lattice.items_of(row), column] = 0.0
        active[columns[~passed]] = False
        if not active.any():
            break
    return hit.sum(axis=0).astype(np.float64)


def halves(item_clusters: list[str]) -> NDArray[np.bool_]:
    """True for the items of half A: whole clusters, by a hash of their name, so no family is in both halves."""
    in_a = {name: int(fingerprint(["half", name])[:2], 16) % 2 == 0 for name in set(item_clusters)}
    return np.array([in_a[name] for name in item_clusters], dtype=bool)


def confirmed(
    lattice: Lattice,
    differences: Floats,
    found: Explained,
    half_a: NDArray[np.bool_],
    *,
    seed_from: str,
    clusters: NDArray[np.integer] | None = None,
    min_items: int = 10,
    min_deficit: float = 0.02,
    permutations: int = 199,
    alpha: float = 0.05,
    against: Against = "rest",
) -> list[bool | None]:
    """For each accepted slice: was it found in one half alone, and did it hold in the other half?

    Slices are searched for in one half of the families and estimated in the other, both ways; the estimate is free of
    selection. True if a set with half the items in common was found in one half and is worse in the other (one-sided
    p <= alpha); False if it was found but did not hold; None if neither half was large enough to find it.
    """
    results: list[list[bool]] = [[] for _ in found.accepted]
    if not found.accepted:
        return []
    for name, here in (("A", half_a), ("B", ~half_a)):
        if here.sum() < 2 * min_items or (~here).sum() < 2 * min_items:
            continue
        again = explain_away(
            lattice.restricted(np.flatnonzero(here)),
            differences[here],
            seed_from=fingerprint([seed_from, "half", name]),
            clusters=None if clusters is None else np.unique(clusters[here], return_inverse=True)[1],
            min_items=min_items,
            min_deficit=min_deficit,
            permutations=permutations,
            alpha=alpha,
            against=against,
        )
        for at, slice_ in enumerate(found.accepted):
            overlap = lattice.overlap(lattice.items_of(slice_.row))
            for other in (candidate.row for candidate in again.accepted if overlap[candidate.row] >= SAME_SLICE):
                inside = np.zeros(len(differences), dtype=bool)
                inside[lattice.items_of(other)] = True
                p = _holds(differences[inside & ~here], differences[~inside & ~here], against)
                results[at].append(p <= alpha)
    return [any(holds) if holds else None for holds in results]


def _holds(inside: Floats, outside: Floats, against: Against) -> float:
    if len(inside) < 2 or len(outside) < 2:
        return 1.0
    both = np.concatenate([inside, outside])
    t = t_statistics(
        *(np.array([[value]]) for value in (float(len(inside)), inside.sum(), np.sum(inside**2))),
        len(both),
        both.sum(),
        np.sum(both**2),
        against,
    )[0, 0]
    return float(stats.t.sf(t, len(inside) - 1 + PRIOR_ITEMS))
