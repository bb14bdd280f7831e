"""Coefficients of agreement corrected for chance: Cohen's kappa, Krippendorff's alpha, MASI distance, overlap kappa.

Our own arithmetic, because no library does these at our sizes: the `krippendorff` package holds units x values x
values floats (20 GB for 20,000 documents with 350 distinct operation sets), and scikit-learn's kappa takes one resample
a call. Both, and the published worked examples, are what the tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]

MISSING = -1
_CELLS_AT_ONCE = 4_000_000


def kappa(first: Codes, second: Codes, weights: Floats) -> Floats:
    """Cohen's kappa of two annotators.

    Args:
        first, second: one value code a row; rows where either is MISSING do not count.
        weights: how often each row occurs, one line a resample: shape (resamples, rows).

    Returns:
        One kappa a resample; NaN where it is undefined (no rows, or both always say the same one value).

    Cohen (1960), Educational and Psychological Measurement 20:37-46.
    """
    both = (first != MISSING) & (second != MISSING)
    first, second, weights = first[both], second[both], weights[:, both]
    values = int(max(first.max(initial=0), second.max(initial=0))) + 1
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = weights[:, first == second].sum(axis=1) / total
        shares = [weights @ _one_hot(codes, values) / total[:, None] for codes in (first, second)]
        expected = (shares[0] * shares[1]).sum(axis=1)
        return _corrected(observed, expected)


def overlap_kappa(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], weights: Floats) -> Floats:
    """Kappa where two annotators agree if their (primary, secondary) values share at least one.

    Args:
        first, second: one or two distinct value codes a row.
        weights: as for `kappa`.

    Chance is what two annotators reach who each draw the size of the set from their own sizes and then the values,
    without replacement, from their own frequencies of use. This is the coefficient behind the published figures of
    Essential-Web (arXiv 2506.14111), without the add-one smoothing of its script, so that it equals `kappa` when every
    set has one value. It flatters beside strict kappa: never compare the one with the other.
    """
    values = 1 + max((code for row in (*first, *second) for code in row), default=0)
    used = [_membership(rows, values) for rows in (first, second)]
    double = [np.array([len(row) == 2 for row in rows]) for rows in (first, second)]
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = weights[:, (used[0] * used[1]).any(axis=1)].sum(axis=1) / total
        shares = [weights @ sets for sets in used]
        shares = [share / share.sum(axis=1, keepdims=True) for share in shares]
        doubles = [weights[:, pair].sum(axis=1) / total for pair in double]
        return _corrected(observed, _overlap_by_chance(shares, doubles))


def _overlap_by_chance(shares: list[Floats], doubles: list[Floats]) -> Floats:
    """The chance that two random annotators share a value, from value shares (resamples x values) and shares of pairs.

    Let w be the second annotator's shares and g = w / (1 - w). A second set avoids a set A of the first with
    probability 1 - w(A) if it has one value, and, summing w_x (1 - w(A) - w_x) / (1 - w_x) over x outside A,
    1 - w(A) (1 + sum of g outside A) if it has two. This is averaged over the first annotator's sets A.
    """
    mine, theirs = shares
    odds = np.where(theirs < 1, theirs / np.maximum(1 - theirs, 1e-300), 0.0)

    def meets(mass: Floats, odds_inside: Floats) -> Floats:
        outside = odds.sum(axis=1)[:, None] - odds_inside
        two = mass * (1 + outside)
        return (1 - doubles[1])[:, None] * mass + doubles[1][:, None] * np.minimum(two, 1.0)

    single = (mine * meets(theirs, odds)).sum(axis=1)
    left, right = np.triu_indices(mine.shape[1], k=1)
    drawn = mine[:, left] * mine[:, right]
    with np.errstate(invalid="ignore", divide="ignore"):
        chance = drawn / (1 - mine[:, left]) + drawn / (1 - mine[:, right])
    pairs = meets(theirs[:, left] + theirs[:, right], odds[:, left] + odds[:, right])
    both = np.nansum(np.where(np.isfinite(chance), chance, 0.0) * pairs, axis=1)
    return (1 - doubles[0]) * single + doubles[0] * both


def alpha(codes: Codes, distance: Floats | Callable[[Floats], Floats] | None = None) -> float:
    """Krippendorff's alpha of any number of annotators with missing values.

    Args:
        codes: one row a unit, one column an annotator; MISSING where there is no value.
        distance: squared differences of values, shape (values, values); or a function that gives them from how often
            each value occurs (`ordinal`); None for nominal values.

    Returns:
        1 for perfect agreement, 0 for what chance gives, below 0 for less; NaN if no unit has two values, or if all
        values are one.

    Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section C and D.
    """
    values = int(codes.max(initial=0)) + 1
    here = codes != MISSING
    raters = here.sum(axis=1)
    coincidences = np.zeros((values, values))
    for one in range(codes.shape[1]):
        for other in range(codes.shape[1]):
            if one != other:
                rows = here[:, one] & here[:, other]
                np.add.at(coincidences, (codes[rows, one], codes[rows, other]), 1 / (raters[rows] - 1))
    uses = coincidences.sum(axis=1)
    pairable = uses.sum()
    if distance is None:
        distance = 1.0 - np.eye(values)
    elif callable(distance):
        distance = distance(uses)
    expected = (np.outer(uses, uses) * distance).sum()
    if pairable < 2 or not expected > 0:
        return float("nan")
    return float(1 - (pairable - 1) * (coincidences * distance).sum() / expected)


def ordinal(uses: Floats) -> Floats:
    """Krippendorff's squared ordinal differences of values in order: how many uses lie between two of them."""
    before = np.cumsum(uses) - uses / 2
    return (before[:, None] - before[None, :]) ** 2


def masi(sets: Sequence[frozenset[int]]) -> Floats:
    """MASI distance of every two sets: 1 - Jaccard x monotonicity, shape (sets, sets).

    Monotonicity is 1 for equal sets, 2/3 where one holds the other, 1/3 where they only overlap, 0 where they do not.
    Passonneau (2006), Measuring Agreement on Set-valued Items (MASI), LREC 2006.
    """
    members = _membership([tuple(each) for each in sets], 1 + max((code for each in sets for code in each), default=0))
    size = members.sum(axis=1)
    shared = members @ members.T
    union = size[:, None] + size[None, :] - shared
    smaller, larger = np.minimum.outer(size, size), np.maximum.outer(size, size)
    monotonic = np.select([shared == larger, shared == smaller, shared > 0], [1.0, 2 / 3, 1 / 3], 0.0)
    return 1 - shared / np.maximum(union, 1) * monotonic


def resampled(
    coefficient: Callable[[Floats], Floats], counts: Codes, *, bootstraps: int, seed: int
) -> dict[str, float | None]:
    """A coefficient with its 95 % percentile bootstrap interval over records.

    Args:
        coefficient: from weights (resamples, rows) to one value a resample.
        counts: how many records each distinct row stands for.

    Returns:
        {estimate, low, high}; None where undefined. Resamples in which it is undefined are left out.
    """
    estimate = float(coefficient(counts[None, :].astype(np.float64))[0])
    generator = np.random.default_rng(seed)
    records, step = int(counts.sum()), max(1, _CELLS_AT_ONCE // max(1, len(counts)))
    drawn = []
    for start in range(0, bootstraps if records else 0, step):
        times = generator.multinomial(records, counts / records, size=min(step, bootstraps - start))
        drawn.append(coefficient(times.astype(np.float64)))
    values = np.concatenate(drawn) if drawn else np.array([])
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
    return {name: rounded(value) for name, value in (("estimate", estimate), ("low", low), ("high", high))}


def rounded(value: float) -> float | None:
    """Six decimals, None for NaN: what is reported must not show the last bits."""
    return None if not np.isfinite(value) else round(float(value), 6) + 0.0


def _corrected(observed: Floats, expected: Floats) -> Floats:
    room = 1 - expected
    return np.where(room > 1e-12, (observed - expected) / np.maximum(room, 1e-12), np.nan)


def _one_hot(codes: Codes, values: int) -> Floats:
    return np.eye(values)[codes]


def _membership(rows: Sequence[Sequence[int]], values: int) -> Floats:
    members = np.zeros((len(rows), values))
    for number, row in enumerate(rows):
        members[number, list(row)] = 1.0
    return members
