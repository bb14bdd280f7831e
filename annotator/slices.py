"""Failing slices: which combinations of background, task, operations and constraint a run really loses on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from annotator.errors import BadInput
from annotator.guessing import guess_floors
from annotator.scores import pass_k
from annotator.slicing.all_over import ALL_OVER_SHARE, losing_operations, worse_all_over
from annotator.slicing.by_column import column_table
from annotator.slicing.described import Described, Trust
from annotator.slicing.explain_away import Explained, Terms, explain_away
from annotator.slicing.label_noise import label_fragility, rates
from annotator.slicing.lattice import Lattice, build_lattice
from annotator.slicing.outcomes import Outcomes, outcomes, rounded
from annotator.slicing.significance import Against, Floats, items_for_power
from annotator.slicing.stability import confirmed, halves, reappearance, split_half

LARGEST_DEFICIT = 0.5  # a set too small to be found even if it had lost this much is no candidate
FEWEST_ITEMS, ENOUGH_ITEMS = 10, 20  # the fewest items of a slice, in small benchmarks and from 1,000 items on
_MANY_MEMBERSHIPS = 1_000_000  # above this, 199 permutations instead of 999: 5 million take 5 s instead of 25 s
_BOOTSTRAP_WORK = 2e9  # multiplications; 200 resamples of 3,000 items, 20 of 100,000


@dataclass(frozen=True, slots=True)
class Slices:
    """What was found.

    table: SLICES columns, one row an accepted slice, most recoverable points first; empty when nothing passed.
    candidates: SLICES columns, the exploratory list: overlapping sets with q <= 0.10, at most 200, lowest q first.
    by_column: column, value, items, samples, score, low, high, reference_score, deficit, p_adjusted, q_value.
    summary: counts, the question that was answered, and the global change; ready for JSON.
    """

    table: pl.DataFrame
    candidates: pl.DataFrame
    by_column: pl.DataFrame
    summary: dict[str, Any]


def find_slices(
    items: pl.DataFrame,
    labels: pl.DataFrame,
    samples: pl.DataFrame,
    *,
    reference: pl.DataFrame | None = None,
    other_runs: pl.DataFrame | None = None,
    metric: str = "mean",
    threshold: float | None = None,
    alpha: float = 0.05,
    min_items: int | None = None,
    min_deficit: float = 0.02,
    max_slices: int = 50,
    permutations: int | None = None,
    bootstraps: int | None = None,
    extra_columns: Sequence[str] = (),
    agreement: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Slices:
    """Find the slices where a run loses more than elsewhere, and say how sure that is.

    Candidates are all conjunctions of the four axes with enough items (`build_lattice`); a max-T test over all of them
    says whether anything is wrong, and a search which few of them explain it together, each significant given the
    others (`explain_away`). If none stands out, but the run is worse than its reference all over, the primary
    operations that lose are given instead (question "worse_all_over"): they say where most of the loss lies. With a
    reference the two questions share `alpha`, nine tenths and one, so the chance of any slice in the table is at most
    `alpha` when nothing is wrong. Slices are ranked by recoverable points: items / all items x (shrunken deficit -
    one posterior standard deviation) x 100.

    Args:
        items: item_id, and cluster_id where items of one passage or template hang together.
        labels: LABELS table of items.
        samples: outputs of the run; several per item are averaged first.
        reference: outputs of an earlier or another run, to find what got worse. Without it see `outcomes`.
        other_runs: outputs of at least three other runs, to tell "weak" from "hard for all" without a reference.
        metric: "mean", "pass@k", "pass^k", "g-pass@k:t" or "maj@k" (`item_scores`). With pass@k, and texts and targets
            to score again, `guess_floor` says what luck alone would reach.
        threshold: target score in 0..1, if the question is absolute.
        min_items: fewest items in and outside a slice. None: what a loss of 50 points needs to be found with power .8.
        min_deficit: smallest mean deficit to report.
        permutations: None means 999, or 199 where a million memberships would make that slow.
        bootstraps: resamples for `stability`; None means up to 200, fewer on large inputs.
        extra_columns: columns of items or samples (prompt template, language, level) to be tabled value by value.
        agreement: what `annotator.agree` gives for labels of the same judge against gold: the error rates at which
            `label_fragility` redraws the labels. None: one label in ten is taken to be wrong.
        progress: called with the number of accepted slices as they are assessed.

    Returns:
        Slices. `low` and `high` bound `score` at 95 %. `deficit` is the mean of reference - run (or expected - run) in
        0..1. `confirmed` is null where neither half of the items was large enough to find the slice again;
        `label_fragility`, the share of redrawn label tables under which a slice falls, where the loss is all over.

    Raises:
        BadInput: ids that match nothing, several runs in one frame, k above the samples of every item.
    """
    joined = _joined(items, labels, samples, reference, other_runs, metric, threshold)
    d = joined.frame["difference"].to_numpy()
    share = 1 - ALL_OVER_SHARE if reference is not None else 1.0
    lattice, terms = _candidates(joined, d, min_items, Terms(alpha=alpha * share, min_deficit=min_deficit), max_slices)
    permutations = permutations or (999 if lattice.members.nnz <= _MANY_MEMBERSHIPS else 199)
    found = explain_away(
        lattice, d, terms, seed_from=joined.digest, clusters=joined.clusters, permutations=permutations
    )
    half_a = halves(joined.frame["cluster"].to_list())
    question = joined.question
    if not found.accepted and worse_all_over(joined, d, min_deficit=min_deficit, alpha=alpha * ALL_OVER_SHARE):
        question, share = "worse_all_over", ALL_OVER_SHARE
        lattice, found, trust = _all_over(joined, d, half_a, replace(terms, alpha=alpha * share))
    else:
        bootstraps = _bootstraps(lattice, found) if bootstraps is None else bootstraps
        trust = _trust(joined, d, half_a, lattice, terms, found, bootstraps, agreement)
    described = Described(joined, lattice, found, share, _floors(items, samples, joined, metric))
    table = described.accepted(trust)
    if progress:
        progress(table.height)
    summary = described.summary(table, question=question, alpha=alpha) | {
        "min_items": terms.min_items,
        "permutations": permutations,
        "bootstraps": bootstraps,
        "split_half": {name: rounded(value) for name, value in split_half(lattice, d, found, half_a).items()},
        "label_error": rates(agreement),
        "label_error_from": "agreement" if agreement else "assumed",
    }
    by_column = column_table(items, samples, extra_columns, joined, metric=metric, alpha=alpha, reference=reference)
    return Slices(table, described.exploratory(), by_column, summary)


def _joined(items, labels, samples, reference, other_runs, metric: str, threshold: float | None) -> Outcomes:
    """One row an item with its difference; enough of them to test anything."""
    if threshold is not None and not 0 < threshold <= 1:
        raise BadInput(f"threshold {threshold} is not within 0..1", remedy="Give a rate such as 0.7.")
    joined = outcomes(
        items, samples, labels=labels, reference=reference, other_runs=other_runs, metric=metric, threshold=threshold
    )
    if joined.frame.height < 2 * FEWEST_ITEMS:
        what = f"only {joined.frame.height} items have a label and a score"
        raise BadInput(what, remedy=f"Give at least {2 * FEWEST_ITEMS}.")
    return joined


def _candidates(
    joined: Outcomes, d: Floats, min_items: int | None, terms: Terms, max_slices: int
) -> tuple[Lattice, Terms]:
    """The lattice at the support asked for, or at what power asks for given how many candidates that leaves."""
    axes = joined.frame.select("background_condition", "task_type", "solving_operation", "output_constraint")
    fewest = min(ENOUGH_ITEMS, max(FEWEST_ITEMS, joined.frame.height // 50))
    lattice = build_lattice(axes, min_items=min_items or fewest)
    if min_items is None and len(lattice.sizes):
        spread = float(d.std(ddof=1))
        needed = items_for_power(LARGEST_DEFICIT, spread=spread, tests=len(lattice.sizes), alpha=terms.alpha)
        lattice = lattice.at_least(min(needed, joined.frame.height // 4))
        min_items = int(lattice.sizes.min()) if len(lattice.sizes) else FEWEST_ITEMS
    against: Against = "zero" if joined.question == "below_threshold" else "rest"
    terms = replace(terms, min_items=min_items or FEWEST_ITEMS, against=against, max_slices=max_slices)
    return lattice, terms


def _floors(items: pl.DataFrame, samples: pl.DataFrame, joined: Outcomes, metric: str) -> Floats | None:
    k = pass_k(metric)
    return None if k is None else guess_floors(items, samples, joined.frame["item_id"].to_list(), k)


def _bootstraps(lattice: Lattice, found: Explained) -> int:
    work = 3 * lattice.members.nnz * (len(found.accepted) + 1)
    return int(min(200, max(20, _BOOTSTRAP_WORK // max(work, 1))))


def _trust(
    joined: Outcomes,
    d: Floats,
    half_a: NDArray[np.bool_],
    lattice: Lattice,
    terms: Terms,
    found: Explained,
    bootstraps: int,
    agreement: Mapping[str, Any] | None,
) -> Trust:
    """Stability, the other half, and label noise, for slices that stand out from the rest."""
    clusters, digest = joined.clusters, joined.digest
    return Trust(
        reappearance(lattice, d, terms, found, seed_from=digest, clusters=clusters, bootstraps=bootstraps),
        confirmed(lattice, d, terms, found, half_a, clusters=clusters),
        label_fragility(
            joined.frame, lattice, d, terms, found, seed_from=digest, clusters=clusters, agreement=agreement
        ),
    )


def _all_over(joined: Outcomes, d: Floats, half_a: NDArray[np.bool_], terms: Terms) -> tuple[Lattice, Explained, Trust]:
    """The operations that lose, where the loss is spread over all of them."""
    lost = losing_operations(
        joined, d, half_a, min_items=terms.min_items, min_deficit=terms.min_deficit, alpha=terms.alpha
    )
    return lost.lattice, lost.found, Trust(lost.stability, lost.held, np.full(len(lost.held), math.nan))
