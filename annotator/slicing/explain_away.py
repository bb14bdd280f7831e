"""Choose the few slices that explain a loss: take the clearest, remove its items, look again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from annotator.fingerprint import fingerprint
from annotator.scores import clustered_se
from annotator.slicing.lattice import Lattice
from annotator.slicing.significance import PRIOR_ITEMS, Against, Floats, MaxT, max_t

SAME_SET = 0.9  # Jaccard similarity from which two descriptions are taken for one slice
SAME_BY_OPERATION = 0.8  # the same, for one that names an operation where the other does not, and passes by itself
ALIKE = 0.4  # the items that a wider slice adds must lose at least this share of what the narrower one loses
SURE = 0.01  # level at which a slice is split: stricter than alpha, since every accepted slice is tried
_MAX_STEPS = 4


@dataclass(frozen=True, slots=True)
class Accepted:
    """A slice that passed.

    row: its row in the lattice. evidence: columns of its items that no earlier slice had explained.
    p: max-T adjusted p-value of the round in which it was found (of the set found before refining).
    """

    row: int
    evidence: NDArray[np.int64]
    p: float


@dataclass(frozen=True, slots=True)
class Explained:
    """The accepted slices in the order found, and what is left.

    first: the tests over all candidates before anything was explained. needed: the statistic that each candidate had to
    reach in each round. left: True for the items that no accepted slice covers.
    """

    accepted: list[Accepted]
    first: MaxT
    needed: list[Floats]
    left: NDArray[np.bool_] = field(repr=False)


def explain_away(
    lattice: Lattice,
    differences: Floats,
    *,
    seed_from: str,
    clusters: NDArray[np.integer] | None = None,
    min_items: int = 10,
    min_deficit: float = 0.02,
    max_slices: int = 50,
    permutations: int = 999,
    alpha: float = 0.05,
    against: Against = "rest",
) -> Explained:
    """Accept slices one by one, each tested on the items that earlier ones did not explain.

    Without this a single weak operation returns dozens of overlapping findings. Deficits of the slices add up, since
    no item counts twice.

    Args:
        differences: how much worse each item is, in the lattice's column order.
        seed_from: a content hash; every round derives its permutations from it.
        min_deficit: the smallest mean difference worth reporting.
    """
    alive = np.ones(len(differences), dtype=bool)
    accepted: list[Accepted] = []
    needed: list[Floats] = []
    levels = np.array([len(conjunction.predicates) for conjunction in lattice.conjunctions])
    first: MaxT | None = None
    while len(accepted) < max_slices:
        tests = max_t(
            lattice.members,
            differences,
            seed=int(fingerprint([seed_from, len(accepted)])[:16], 16),
            levels=levels,
            clusters=clusters,
            alive=alive,
            min_items=min_items,
            permutations=permutations,
            alpha=alpha,
            against=against,
        )
        first = first or tests
        needed.append(tests.needed)
        testable = np.isfinite(tests.t) & (tests.mean >= min_deficit)
        worth = np.full(len(tests.t), -math.inf)
        worth[testable] = (tests.t - tests.needed)[testable]
        best = int(np.argmax(worth)) if len(worth) else 0  # rows are in slice_id order, so ties go to the first name
        if not len(worth) or not math.isfinite(worth[best]) or tests.p[best] > alpha:
            break
        level = _Levels(lattice, differences, clusters, alive, tests.p, min_items, min_deficit, alpha, against)
        row = _described(lattice, level.right_level(best), tests.p <= alpha)
        evidence = lattice.items_of(row)
        evidence = evidence[alive[evidence]]
        accepted.append(Accepted(row, evidence, float(tests.p[best])))
        alive[evidence] = False
    return Explained(accepted, first, needed, alive)


def _described(lattice: Lattice, row: int, passed: NDArray[np.bool_]) -> int:
    """The shortest description of nearly the same items; then one with an operation; then the nearest.

    Operations are what corpus categories are matched by: "task=trace" for the items of "op=state_tracking" would find
    the wrong documents.
    """
    overlap = lattice.overlap(lattice.items_of(row))
    by_operation = np.array([bool(conjunction.solving_operation) for conjunction in lattice.conjunctions])
    alike = overlap >= SAME_SET
    if not by_operation[row]:
        alike |= (overlap >= SAME_BY_OPERATION) & by_operation & passed

    def first(other: int) -> tuple:
        conjunction = lattice.conjunctions[other]
        return len(conjunction.predicates), not by_operation[other], -overlap[other], conjunction.order

    return min(np.flatnonzero(alike).tolist(), key=first)


@dataclass(slots=True)
class _Levels:
    """Moves a slice up or down the lattice until it is neither too broad nor too narrow."""

    lattice: Lattice
    differences: Floats
    clusters: NDArray[np.integer] | None
    alive: NDArray[np.bool_]
    p: Floats
    min_items: int
    min_deficit: float
    alpha: float
    against: Against

    def right_level(self, row: int) -> int:
        """The slice itself, a child that alone carries its loss, or a parent that loses as much elsewhere."""
        seen = {row}
        for _ in range(_MAX_STEPS):
            moved = self._child(row)
            if moved is None:
                moved = self._parent(row)
            if moved is None or moved in seen:
                break
            seen.add(moved)
            row = moved
        return row

    def _child(self, row: int) -> int | None:
        """A child that carries the loss: it loses more than the rest of the slice, which loses little."""
        inside = self._mask(row)
        children = [child for child in self._related(row, +1) if self._testable(self._mask(child), inside)]
        best, best_p = None, SURE / max(len(children), 1)
        for child in children:
            core = self._mask(child)
            own, rest = (self._above(part, self.alive & ~inside) for part in (core, inside & ~core))
            p = self._worse(core, inside & ~core)
            if rest < ALIKE * own and p < best_p and self.differences[core].mean() >= self.min_deficit:
                best, best_p = child, p
        return best

    def _parent(self, row: int) -> int | None:
        """A parent that passes too, and whose other items lose about as much: chance may have picked this child."""
        inside = self._mask(row)
        best, best_p = None, self.alpha
        for parent in self._related(row, -1):
            wider = self._mask(parent)
            added, outside = wider & ~inside, self.alive & ~wider
            if self.p[parent] > self.alpha or added.sum() < 2 or outside.sum() < self.min_items:
                continue
            siblings = sum(self._testable(self._mask(child), wider) for child in self._related(parent, +1))
            own, new = (self._above(part, outside) for part in (inside, added))
            unlike = self._worse(inside, added) <= SURE / max(siblings, 1)
            p = self._worse(added, outside)
            if new >= ALIKE * own and not unlike and p < best_p:
                best, best_p = parent, p
        return best

    def _above(self, these: NDArray[np.bool_], outside: NDArray[np.bool_]) -> float:
        """How much more `these` items lose than those outside."""
        base = self.differences[outside].mean() if self.against == "rest" and outside.any() else 0.0
        return float(self.differences[these].mean() - base)

    def _related(self, row: int, step: int) -> list[int]:
        """Rows whose description has one predicate more (step 1) or less (-1) than this one's."""
        own = self.lattice.conjunctions[row].predicates
        related = []
        for other, conjunction in enumerate(self.lattice.conjunctions):
            theirs = conjunction.predicates
            if len(theirs) == len(own) + step and (own < theirs if step > 0 else theirs < own):
                related.append(other)
        return related

    def _testable(self, core: NDArray[np.bool_], inside: NDArray[np.bool_]) -> bool:
        return core.sum() >= self.min_items and (inside & ~core).sum() >= 2

    def _mask(self, row: int) -> NDArray[np.bool_]:
        mask = np.zeros(len(self.alive), dtype=bool)
        mask[self.lattice.items_of(row)] = True
        return mask & self.alive

    def _worse(self, these: NDArray[np.bool_], those: NDArray[np.bool_]) -> float:
        """One-sided p-value that `these` items lose more than `those` (than nothing, against zero)."""
        a, b = self.differences[these], self.differences[those]
        if len(a) < 2 or (len(b) < 2 and self.against == "rest"):
            return 1.0
        prior = float(self.differences[self.alive].var(ddof=1))
        difference, variance, freedom = a.mean(), self._error(these, prior) ** 2, len(a) - 1 + PRIOR_ITEMS
        if self.against == "rest":
            difference = difference - b.mean()
            variance += self._error(those, prior) ** 2
        return float(stats.t.sf(difference / math.sqrt(variance), freedom)) if variance > 0 else 1.0

    def _error(self, mask: NDArray[np.bool_], prior: float) -> float:
        d = self.differences[mask]
        moderated = (np.sum((d - d.mean()) ** 2) + PRIOR_ITEMS * prior) / (len(d) - 1 + PRIOR_ITEMS)
        plain = math.sqrt(moderated / len(d))
        if self.clusters is None:
            return plain
        clustered = clustered_se(d, self.clusters[mask])
        return max(plain, clustered) if math.isfinite(clustered) else plain
