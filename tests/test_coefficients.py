"""Coefficients of agreement: published worked examples, other libraries, and laws."""

import itertools
import math

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from annotator.coefficients import MISSING, alpha, kappa, masi, ordinal, overlap_kappa, resampled


def ones(rows):
    return np.ones((1, rows))


def codes(*annotators):
    """Units x annotators from strings, one letter a value; * is missing."""
    return np.array([[MISSING if value == "*" else ord(value) for value in unit] for unit in zip(*annotators)])


def test_cohens_own_example():
    """200 patients, two psychiatrists, three disorders: agreement .70, .41 by chance, kappa .492 (Cohen 1960)."""
    table = np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    first, second = np.divmod(np.arange(9), 3)

    assert kappa(first, second, table.reshape(1, -1).astype(float))[0] == pytest.approx(0.492, abs=5e-4)


def test_krippendorffs_example_of_binary_data():
    """Meg and Owen, ten articles: alpha .095 (Krippendorff 2011, section A)."""
    assert alpha(codes("0100000010", "1110010000")) == pytest.approx(0.095, abs=5e-4)


def test_krippendorffs_example_of_nominal_data():
    """Ben and Gerry, twelve units, five values: alpha .692 (Krippendorff 2011, section B)."""
    assert alpha(codes("aabbdcccedda", "babbbccceddd")) == pytest.approx(0.692, abs=5e-4)


def test_krippendorffs_example_with_four_observers_and_missing_values():
    """Twelve units, four observers: nominal alpha .743, ordinal .815 (Krippendorff 2011, section C and D)."""
    told = codes("123321412***", "1233224125*3", "*3332342251*", "12332441251*") - ord("1")
    told[told < 0] = MISSING

    assert alpha(told) == pytest.approx(0.743, abs=5e-4)
    assert alpha(told, ordinal) == pytest.approx(0.815, abs=5e-4)


def test_masi_distances_of_passonneau():
    """Equal 0; one within the other 1 - J x 2/3; overlap 1 - J x 1/3; nothing shared 1 (Passonneau 2006)."""
    a, ab, abc, bc, d = map(frozenset, ([0], [0, 1], [0, 1, 2], [1, 2], [3]))
    distance = masi([a, ab, abc, bc, d])

    assert distance[0, 0] == 0
    assert distance[0, 1] == pytest.approx(1 - 1 / 2 * 2 / 3)
    assert distance[0, 2] == pytest.approx(1 - 1 / 3 * 2 / 3)
    assert distance[1, 3] == pytest.approx(1 - 1 / 3 * 1 / 3)
    assert distance[2, 3] == pytest.approx(1 - 2 / 3 * 2 / 3)
    assert set(distance[4, :4]) == {1.0}


values = st.integers(0, 3)


@given(st.lists(st.tuples(values, values), min_size=2, max_size=40))
def test_kappa_equals_scikit_learns(pairs):
    """On any two label lists; both are undefined together."""
    first, second = np.array(pairs).T
    ours = kappa(first, second, ones(len(pairs)))[0]

    if len(set(first) | set(second)) == 1:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(cohen_kappa_score(first, second), abs=1e-9)


@given(st.lists(st.tuples(*[st.integers(MISSING, 3)] * 3), min_size=2, max_size=30), st.booleans())
def test_alpha_equals_the_krippendorff_package(units, in_order):
    """Nominal and ordinal, three annotators, any missing values."""
    told = np.array(units)
    ours = alpha(told, ordinal if in_order else None)
    kept = told[(told != MISSING).sum(axis=1) >= 2]
    if len(np.unique(kept[kept != MISSING])) < 2:
        assert math.isnan(ours)
        return
    theirs = krippendorff.alpha(
        np.where(kept == MISSING, np.nan, kept).T, level_of_measurement="ordinal" if in_order else "nominal"
    )

    assert ours == pytest.approx(theirs, abs=1e-9)


sets = st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True).map(frozenset)


@given(st.lists(st.tuples(sets, sets), min_size=2, max_size=20))
def test_alpha_with_masi_equals_its_definition(pairs):
    """1 - mean distance within units / mean distance of all values used."""
    known = sorted({each for pair in pairs for each in pair}, key=sorted)
    told = np.array([[known.index(one), known.index(other)] for one, other in pairs])
    distance = masi(known)
    pooled = told.ravel()
    apart = [distance[a, b] for a, b in itertools.permutations(pooled, 2)]
    within = [distance[a, b] for a, b in told]

    ours = alpha(told, distance)
    if sum(apart) == 0:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(1 - np.mean(within) / np.mean(apart), abs=1e-9)


@given(st.lists(st.tuples(values, values), min_size=1, max_size=30))
def test_overlap_kappa_of_single_values_is_kappa(pairs):
    """The two coefficients differ only by second values."""
    first, second = np.array(pairs).T
    strict = kappa(first, second, ones(len(pairs)))
    overlap = overlap_kappa([[a] for a, _ in pairs], [[b] for _, b in pairs], ones(len(pairs)))

    assert overlap == pytest.approx(strict, abs=1e-9, nan_ok=True)


def draws(size, shares):
    """Every ordered draw of `size` values without replacement, with its chance."""
    for order in itertools.permutations(range(len(shares)), size):
        chance, left = 1.0, 1.0
        for value in order:
            chance *= shares[value] / left
            left -= shares[value]
        yield set(order), chance


def test_overlap_kappa_corrects_for_the_chance_of_random_draws():
    """Chance agreement equals the sum over all draws of both annotators, counted out one by one."""
    first = [(0, 1), (1,), (2, 0), (1, 2), (0,), (3, 1)]
    second = [(0,), (1, 3), (0, 2), (3,), (1, 0), (3, 2)]
    observed = 5 / 6
    expected = 0.0
    shares = [np.bincount([v for row in rows for v in row], minlength=4) for rows in (first, second)]
    shares = [share / share.sum() for share in shares]
    sizes = [{size: np.mean([len(row) == size for row in rows]) for size in (1, 2)} for rows in (first, second)]
    for size, other in itertools.product((1, 2), repeat=2):
        for (mine, p), (theirs, q) in itertools.product(draws(size, shares[0]), draws(other, shares[1])):
            expected += sizes[0][size] * sizes[1][other] * p * q * bool(mine & theirs)

    found = overlap_kappa(first, second, ones(6))[0]

    assert found == pytest.approx((observed - expected) / (1 - expected))


def test_the_bootstrap_interval_holds_the_estimate_and_narrows_with_more_records():
    """Same seed, same interval; sixteen times the records, about a quarter of the width."""
    first, second = np.divmod(np.arange(9), 3)
    table = np.array([22, 3, 4, 2, 10, 3, 1, 1, 4])

    def interval(times):
        return resampled(lambda weights: kappa(first, second, weights), table * times, bootstraps=1000, seed=7)

    few, many = interval(1), interval(16)

    assert interval(1) == few
    assert few["low"] < few["estimate"] < few["high"]
    assert many["estimate"] == few["estimate"]
    assert (many["high"] - many["low"]) / (few["high"] - few["low"]) == pytest.approx(0.25, abs=0.05)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """150 records, 200 draws from one table: the 95 % interval misses its kappa in 1 to 10 % of them."""
    generator = np.random.default_rng(0)
    first, second = np.divmod(np.arange(9), 3)
    shares = np.array([22, 3, 4, 2, 10, 3, 1, 1, 4]) / 50
    truth = kappa(first, second, shares[None, :])[0]
    missed = 0
    for seed in range(200):
        counts = generator.multinomial(150, shares)
        found = resampled(lambda weights: kappa(first, second, weights), counts, bootstraps=300, seed=seed)
        missed += not found["low"] <= truth <= found["high"]

    assert 2 <= missed <= 20
