"""Choose the few slices that explain a loss, each significant given the others."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from annotator.fingerprint import fingerprint
from annotator.slicing.lattice import Lattice
from annotator.slicing.partial import Partial, Rows
from annotator.slicing.search import Search
from annotator.slicing.significance import Against, Floats, MaxT, cluster_scale, max_t

SAME_SET = 0.9  # Jaccard similarity from which two descriptions are taken for one slice
SAME_BY_OPERATION = 0.8  # the same, for one that names an operation where the other does not, and passes by itself


@dataclass(frozen=True, slots=True)
class Accepted:
    """A slice that passed.

    row: its row in the lattice. evidence: columns of its items that no clearer slice had claimed.
    p: max-T adjusted p-value, given the other slices, of the set by which it passed. tested: that set's row: the slice
    itself, or a wider candidate in which it is the place of the loss.
    """

    row: int
    evidence: NDArray[np.int64]
    p: float
    tested: int


@dataclass(frozen=True, slots=True)
class Explained:
    """The accepted slices, clearest first, and what is left.

    first: the tests over all candidates before anything was explained. bars: the statistic that each candidate had to
    reach given the accepted slices. left: True for the items that no accepted slice covers.
    """

    accepted: list[Accepted]
    first: MaxT
    bars: Floats
    left: NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a slice must be, whichever way the items are drawn.

    min_items: fewest items. min_deficit: smallest mean difference worth reporting. alpha: family-wise error.
    against: "rest" compares with the other items, "zero" with no difference at all. max_slices: the most to accept.
    """

    min_items: int = 10
    min_deficit: float = 0.02
    alpha: float = 0.05
    against: Against = "rest"
    max_slices: int = 50


def explain_away(
    lattice: Lattice,
    differences: Floats,
    terms: Terms,
    *,
    seed_from: str,
    clusters: NDArray[np.integer] | None = None,
    permutations: int = 999,
) -> Explained:
    """Accept the slices that explain a loss together. Without this a single weak operation returns dozens of them.

    1. A max-T test over all candidates: if none passes, nothing is accepted, so that the family-wise error is that of
       this test. It also gives the bars of the search.
    2. The search (`Search`): forward, then refined, lifted and exchanged.
    3. The same test on what the accepted slices leave (residuals permuted: Freedman & Lane 1983) gives the bars
       and p-values that hold given those slices; the search goes on from there until it agrees.

    Args:
        differences: how much worse each item is, in the lattice's column order.
        seed_from: a content hash, from which the permutations are derived.
    """

    def tests_of(values: Floats, part: str) -> MaxT:
        return max_t(
            lattice.members,
            values,
            seed=int(fingerprint([seed_from, part])[:16], 16),
            levels=np.array([len(conjunction.predicates) for conjunction in lattice.conjunctions]),
            clusters=clusters,
            min_items=terms.min_items,
            permutations=permutations,
            alpha=terms.alpha,
            against=terms.against,
        )

    first = tests_of(differences, "all")
    everything = np.ones(len(differences), dtype=bool)
    if not ((first.p <= terms.alpha) & (first.mean >= terms.min_deficit)).any():
        return Explained([], first, first.needed, everything)
    partial = partial_tests(lattice, differences, terms, scale=cluster_scale(lattice.members, differences, clusters))
    search = Search(partial, first.needed, terms.max_slices)
    rows = search.improved(search.forward())
    tests = tests_of(partial.residuals(rows), "residuals")
    again = Search(partial, tests.needed, terms.max_slices)
    final = again.improved(again.forward(again.kept(rows)))
    # What passed the first test stays found, should the second have a slightly higher bar for a lone slice.
    return _claimed(lattice, again, final, first, tests) if final else _claimed(lattice, search, rows, first, first)


def partial_tests(
    lattice: Lattice, differences: Floats, terms: Terms, *, scale: Floats, weights: Floats | None = None
) -> Partial:
    """The partial tests of all candidates on these terms."""
    return Partial(
        lattice,
        differences,
        scale=scale,
        min_items=terms.min_items,
        min_deficit=terms.min_deficit,
        against=terms.against,
        weights=weights,
    )


def _claimed(lattice: Lattice, search: Search, rows: Rows, first: MaxT, tests: MaxT) -> Explained:
    """The slices found, described and with their evidence: every item counts for the clearest slice that holds it."""
    found = []
    for row in rows:
        tested = search.passes(row, rows)
        if tested is not None:
            t = search.partial.look(tuple(other for other in rows if other != row)).t
            named = _described(lattice, row, t >= tests.needed)
            found.append((float(tests.adjusted(t)[tested]), -float(t[tested]), named, tested))
    left, accepted = np.ones(lattice.members.shape[1], dtype=bool), []
    for p, _, named, tested in sorted(found):
        evidence = lattice.items_of(named)
        evidence = evidence[left[evidence]]
        if len(evidence):
            accepted.append(Accepted(named, evidence, p, tested))
            left[evidence] = False
    return Explained(accepted, first, tests.needed, left)


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
