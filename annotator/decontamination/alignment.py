"""Whether a stretch of text quotes a part of an item: matched runs on diagonals, weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LONG_RUN = 13  # Brown et al. (2020), appendix C: a shared run of 13 words is a collision
FIRM_RUN = 8  # a part is held to the lower coverage only where a run of so many words is shared
SHORT_PART = 20  # parts of fewer words must be there nearly as a whole
SHORT_COVERAGE = 0.65  # asked of short parts, and where no firm run is shared
SHORTEST_RUN = 3  # matched runs of fewer words are chance, unless one replaced word parts them from a longer one
LEAST_QUOTED_NEWS = 3.5  # of a part that says little as a whole
COMPLETE_SPAN = 1.25  # all words of a part within so many times its length are the part, with something put in
LEAST_NEWS = 6.0  # below, a run is a counting sequence, a matrix of zeros or the like, which quotes nobody


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an item.

    name: question, choices, answer or solution. words: hashes. weight: how rare each word is among the items.
    news: how much each word adds to those just before it (see `quoted.news_of`).
    """

    item_id: str
    name: str
    words: np.ndarray
    weight: np.ndarray
    news: np.ndarray


@dataclass(frozen=True, slots=True)
class Quote:
    """A part found in a text: words first..last of the batch, the share of its weight that is there, and the rule."""

    part: Part
    rule: str
    coverage: float
    first: int
    last: int


def best_quote(
    part: Part, hashes: np.ndarray, starts: Sequence[int], low: int, high: int, threshold: float
) -> Quote | None:
    """The best alignment of a part with words low..high, or None if it is not quoted there.

    Args:
        hashes: the words of the batch.
        starts: diagonals that hold a seed, ascending: where the part's first word would stand. Those that lie close
            together count as one place, so that inserted and lost words do no harm.
        threshold: share of the part's weight that makes a quotation of a part of SHORT_PART words or more.
    """
    best: Quote | None = None
    reach = max(len(part.words) // 2, FIRM_RUN)
    place: list[int] = []
    for k, start in enumerate(starts):
        place.append(start)
        if k + 1 < len(starts) and starts[k + 1] - start <= reach:
            continue
        quote = _aligned(part, hashes, place, low, high, threshold)
        if quote is not None and (best is None or quote.coverage > best.coverage):
            best = quote
        place = []
    return best


def _aligned(part: Part, hashes: np.ndarray, place: list[int], low: int, high: int, threshold: float) -> Quote | None:
    size = len(part.words)
    covered = np.zeros(size, dtype=bool)
    whole, firm, collision, first, last = False, False, False, high, low
    for start in place:
        begin, end = max(start, low), min(start + size, high)
        same = np.zeros(size, dtype=bool)
        same[begin - start : end - start] = hashes[begin:end] == part.words[begin - start : end - start]
        for run_first, run_end in _counted_runs(same):
            length = run_end - run_first
            covered[run_first:run_end] = True
            whole |= length == size
            firm |= length >= FIRM_RUN
            collision |= length >= LONG_RUN and part.news[run_first:run_end].sum() >= LEAST_NEWS
            first, last = min(first, start + run_first), max(last, start + run_end - 1)
    coverage = float(part.weight[covered].sum() / part.weight.sum())
    complete = bool(covered.all()) and last - first < size * COMPLETE_SPAN
    if whole:
        rule = "exact"
    elif complete:
        rule = "coverage"
    elif size < FIRM_RUN or part.news[covered].sum() < _needed_news(part):
        return None
    elif collision:
        rule = "13_gram"
    elif coverage >= (threshold if size >= SHORT_PART and firm else SHORT_COVERAGE):
        rule = "coverage"
    else:
        return None
    return Quote(part, rule, round(coverage, 6), int(first), int(last))


def _needed_news(part: Part) -> float:
    """LEAST_NEWS, or three quarters of what there is in a part that says less than that."""
    return min(LEAST_NEWS, max(LEAST_QUOTED_NEWS, 0.75 * float(part.news.sum())))


def _counted_runs(same: np.ndarray) -> list[tuple[int, int]]:
    """Runs (first, end) of matched words that count: the longer ones, and those one replaced word away."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], same.view(np.int8), [0])))).tolist()
    runs = list(zip(edges[::2], edges[1::2], strict=True))
    counted = [end - first >= SHORTEST_RUN for first, end in runs]
    for k in range(1, len(runs)):
        counted[k] |= counted[k - 1] and runs[k][0] - runs[k - 1][1] == 1
    for k in range(len(runs) - 2, -1, -1):
        counted[k] |= counted[k + 1] and runs[k + 1][0] - runs[k][1] == 1
    return [run for run, counts in zip(runs, counted, strict=True) if counts]
