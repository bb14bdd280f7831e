"""Would the same slices be found again? Resampling of items, and two halves that check each other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annotator.fingerprint import fingerprint
from annotator.slicing.explain_away import Explained, Terms, partial_tests
from annotator.slicing.lattice import Lattice
from annotator.slicing.search import Search
from annotator.slicing.significance import Against, Floats, cluster_scale, max_t, one_sided_p

SAME_SLICE = 0.5  # Jaccard similarity from which a resample is said to have found the slice again
_FEWEST_IN_HALF = 5
_LEAST_T = 1.0  # candidates below this on all items take no part in resamples, which saves three quarters of the price


def reappearance(
    lattice: Lattice,
    differences: Floats,
    terms: Terms,
    found: Explained,
    *,
    seed_from: str,
    clusters: NDArray[np.integer] | None = None,
    bootstraps: int = 200,
) -> Floats:
    """For each accepted slice, the share of resamples that accept one with at least half its items in common.

    Items (whole clusters, where there are any) are drawn with replacement and the search is run again. Resamples reuse
    the bars of the whole instead of permuting anew, and stop before the exchanges.
    """
    rows = [slice_.row for slice_ in found.accepted]
    if not rows or not bootstraps:
        return np.full(len(rows), math.nan)
    again = _Again(lattice, differences, terms, found, clusters)
    generator = np.random.default_rng(int(fingerprint([seed_from, "bootstrap"])[:16], 16))
    hits = np.zeros(len(rows))
    for _ in range(bootstraps):
        hits += again.same(again.rows_of(_resampled(len(differences), clusters, generator))).any(axis=1)
    return hits / bootstraps


class _Again:
    """The search on other weightings of the items, and which accepted slices it finds again."""

    def __init__(
        self,
        lattice: Lattice,
        differences: Floats,
        terms: Terms,
        found: Explained,
        clusters: NDArray[np.integer] | None,
    ) -> None:
        worth = (found.first.t >= _LEAST_T) & np.isfinite(found.bars)
        worth[[slice_.row for slice_ in found.accepted]] = True
        worth = np.flatnonzero(worth)
        self.lattice = Lattice(
            [lattice.conjunctions[row] for row in worth], lattice.members[worth], lattice.sizes[worth]
        )
        self.differences, self.terms, self.bars = differences, terms, found.bars[worth]
        self.scale = cluster_scale(lattice.members, differences, clusters)[worth]
        self.overlap = np.stack([self.lattice.overlap(lattice.items_of(slice_.row)) for slice_ in found.accepted])

    def rows_of(self, weights: Floats) -> tuple[int, ...]:
        """What the search accepts under one weighting: rows of `self.lattice`."""
        partial = partial_tests(self.lattice, self.differences, self.terms, scale=self.scale, weights=weights)
        return Search(partial, self.bars, 2 * len(self.overlap) + 2).forward()

    def same(self, rows: tuple[int, ...]) -> NDArray[np.bool_]:
        """Whether each of these rows (column) is the accepted slice (row)."""
        return self.overlap[:, list(rows)] >= SAME_SLICE


def _resampled(items: int, clusters: NDArray[np.integer] | None, generator: np.random.Generator) -> Floats:
    """How often each item is drawn."""
    count = items if clusters is None else int(clusters.max()) + 1
    drawn = np.bincount(generator.integers(0, count, size=count), minlength=count).astype(np.float64)
    return drawn if clusters is None else drawn[clusters]


def halves(item_clusters: list[str]) -> NDArray[np.bool_]:
    """True for the items of half A: whole clusters, by a hash of their name, so no family is in both halves."""
    in_a = {name: int(fingerprint(["half", name])[:2], 16) % 2 == 0 for name in set(item_clusters)}
    return np.array([in_a[name] for name in item_clusters], dtype=bool)


def split_half(
    lattice: Lattice, differences: Floats, found: Explained, half_a: NDArray[np.bool_]
) -> dict[str, float | None]:
    """How alike the two halves see the candidates.

    Returns:
        reliability: Spearman-Brown 2 r / (1 + r), r the correlation of the candidates' mean differences in the two
        halves (Spearman 1910; Brown 1910); None with fewer than three candidates in both. same_sign: the share of
        accepted slices that are worse in both halves, of those with items in both; None where there are none.
    """
    sizes = [lattice.members @ half.astype(np.float64) for half in (half_a, ~half_a)]
    sums = [lattice.members @ np.where(half, differences, 0.0) for half in (half_a, ~half_a)]
    both = (sizes[0] >= _FEWEST_IN_HALF) & (sizes[1] >= _FEWEST_IN_HALF)
    one, other = (total[both] / size[both] for total, size in zip(sums, sizes))
    reliability = None
    if both.sum() >= 3 and one.std() > 0 and other.std() > 0:
        r = float(np.mean((one - one.mean()) * (other - other.mean())) / (one.std() * other.std()))
        reliability = max(0.0, 2 * r / (1 + r)) if r > -1 else 0.0  # halves that disagree are not reliable at all
    rows = [slice_.row for slice_ in found.accepted if both[slice_.row]]
    worse = [sums[0][row] > 0 and sums[1][row] > 0 for row in rows]
    return {"reliability": reliability, "same_sign": float(np.mean(worse)) if worse else None}


def confirmed(
    lattice: Lattice,
    differences: Floats,
    terms: Terms,
    found: Explained,
    half_a: NDArray[np.bool_],
    *,
    clusters: NDArray[np.integer] | None = None,
) -> list[bool | None]:
    """For each accepted slice: was it found in one half alone, and did it hold in the other half?

    Slices are searched for in one half of the families, with the bars of the whole, and tested in the other,
    both ways; that test is free of selection. True if a set with half the items in common was found in one half and is
    worse in the other (one-sided p <= alpha); False if it was found but is no worse at all in the other; None if the
    halves are too small to find it, or to be sure.
    """
    results: list[list[bool | None]] = [[] for _ in found.accepted]
    if not results:
        return []
    again = _Again(lattice, differences, terms, found, clusters)
    for here in (half_a, ~half_a):
        rows = again.rows_of(here.astype(np.float64)) if here.any() else ()
        for at, same in enumerate(again.same(rows)):
            for row in (row for row, alike in zip(rows, same) if alike):
                inside = np.zeros(len(differences), dtype=bool)
                inside[again.lattice.items_of(row)] = True
                elsewhere = None if clusters is None else clusters[~here]
                results[at].append(_holds(differences[~here], inside[~here], elsewhere, terms.alpha, terms.against))
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
