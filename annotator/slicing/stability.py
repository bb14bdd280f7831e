"""Would the same slices be found again? Resampling of items, and two halves that check each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annotator.fingerprint import fingerprint
from annotator.slicing.explain_away import Explained
from annotator.slicing.lattice import Lattice
from annotator.slicing.significance import (
    Against,
    Floats,
    design_effects,
    max_t,
    one_sided_p,
    t_statistics,
    variance_components,
)

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
    To keep the price at one sparse product a round, resamples reuse the bars of the original rounds instead
    of permuting anew, and skip the check of parents and children.
    """
    rows = [slice_.row for slice_ in found.accepted]
    if not rows or not bootstraps:
        return np.full(len(rows), math.nan)
    search = _search(lattice, differences, found, clusters, min_items, min_deficit, against)
    same = np.column_stack([lattice.overlap(lattice.items_of(row)) >= SAME_SLICE for row in rows])
    generator = np.random.default_rng(int(fingerprint([seed_from, "bootstrap"])[:16], 16))
    hits = np.zeros(len(rows))
    for start in range(0, bootstraps, _COLUMNS):
        drawn = [_resampled(len(differences), clusters, generator) for _ in range(min(_COLUMNS, bootstraps - start))]
        for again in search.chosen(np.column_stack(drawn), most=2 * len(rows) + 2):
            hits += same[again].any(axis=0)
    return hits / bootstraps


def _search(lattice, differences, found, clusters, min_items, min_deficit, against) -> _Search:
    scale = None
    if clusters is not None:
        _, code, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
        between, within = variance_components(differences, code, sizes)
        correlation = between / (between + within) if between + within > 0 else 0.0
        scale = 1 / np.sqrt(design_effects(lattice.members, np.ones(len(differences)), clusters, correlation))[:, None]
    return _Search(lattice, differences, found.needed, scale, min_items, min_deficit, against)


def _resampled(items: int, clusters: NDArray[np.integer] | None, generator: np.random.Generator) -> Floats:
    """How often each item is drawn."""
    count = items if clusters is None else int(clusters.max()) + 1
    drawn = np.bincount(generator.integers(0, count, size=count), minlength=count).astype(np.float64)
    return drawn if clusters is None else drawn[clusters]


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


@dataclass(frozen=True, slots=True)
class _Search:
    """The explain-away rounds with known bars, for many weightings of the items at once."""

    lattice: Lattice
    differences: Floats
    needed: list[Floats]
    scale: Floats | None
    min_items: int
    min_deficit: float
    against: Against

    def _bar(self, step: int) -> Floats:
        """What each set must reach in a round; those that the original could not test, as much as the hardest."""
        needed = self.needed[min(step, len(self.needed) - 1)]
        known = needed[np.isfinite(needed)]
        return np.where(np.isfinite(needed), needed, known.max() if len(known) else math.inf)

    def chosen(self, weights: Floats, *, most: int) -> list[list[int]]:
        """The rows that each weighting (column) accepts, at most `most`."""
        weights, accepted = weights.copy(), [[] for _ in range(weights.shape[1])]
        active = np.arange(weights.shape[1])
        for step in range(most):
            t, mean = _weighted_t(self.lattice, self.differences, weights[:, active], self.min_items, self.against)
            t = t if self.scale is None else t * self.scale
            height = t - self._bar(step)[:, None]
            height[~(mean >= self.min_deficit)] = -math.inf
            best = np.argmax(height, axis=0)
            passed = height[best, np.arange(len(active))] >= 0
            active, best = active[passed], best[passed]
            for column, row in zip(active.tolist(), best.tolist()):
                accepted[column].append(row)
                weights[self.lattice.items_of(row), column] = 0.0
            if not len(active):
                break
        return accepted


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
    clusters: NDArray[np.integer] | None = None,
    min_items: int = 10,
    min_deficit: float = 0.02,
    alpha: float = 0.05,
    against: Against = "rest",
) -> list[bool | None]:
    """For each accepted slice: was it found in one half alone, and did it hold in the other half?

    Slices are searched for in one half of the families, with the bars of the whole, and tested in the other,
    both ways; that test is free of selection. True if a set with half the items in common was found in one half and is
    worse in the other (one-sided p <= alpha); False if it was found but is no worse at all in the other; None if the
    halves are too small to find it, or to be sure.
    """
    results: list[list[bool | None]] = [[] for _ in found.accepted]
    search = _search(lattice, differences, found, clusters, min_items, min_deficit, against)
    halves_as_weights = np.column_stack([half_a, ~half_a]).astype(np.float64)
    again = search.chosen(halves_as_weights, most=2 * len(results) + 2) if results else []
    for here, rows in zip((half_a, ~half_a), again):
        for at, slice_ in enumerate(found.accepted):
            overlap = lattice.overlap(lattice.items_of(slice_.row))
            for row in (row for row in rows if overlap[row] >= SAME_SLICE):
                inside = np.zeros(len(differences), dtype=bool)
                inside[lattice.items_of(row)] = True
                elsewhere = None if clusters is None else clusters[~here]
                results[at].append(_holds(differences[~here], inside[~here], elsewhere, alpha, against))
    return [True if True in holds else False if False in holds else None for holds in results]


def _holds(
    d: Floats, inside: NDArray[np.bool_], clusters: NDArray[np.integer] | None, alpha: float, against: Against
) -> bool | None:
    """True if the items inside surely lose more than the others, False if they lose no more, None in between."""
    if min(inside.sum(), (~inside).sum()) < 2:
        return None
    base = d[~inside].mean() if against == "rest" else 0.0
    if d[inside].mean() <= base:
        return False
    only = sparse.csr_array(inside[None, :].astype(np.float64))
    if clusters is not None:
        clusters = np.unique(clusters, return_inverse=True)[1]
        p = float(max_t(only, d, seed=0, clusters=clusters, min_items=2, permutations=199, against=against).p[0])
    else:
        t = max_t(only, d, seed=0, min_items=2, permutations=0, against=against).t
        p = float(one_sided_p(t, np.array([inside.sum()]))[0])
    return True if p <= alpha else None
