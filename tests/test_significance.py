"""The multiple tests hold their level, agree with other libraries, and do not depend on order."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from annotator.slicing import partial, significance
from annotator.slicing.explain_away import Terms, partial_tests
from annotator.slicing.lattice import Conjunction, Lattice


def random_sets(generator, sets, items, size):
    rows = np.repeat(np.arange(sets), size)
    columns = np.concatenate([generator.choice(items, size, replace=False) for _ in range(sets)])
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(sets, items))


def test_adjusted_p_values_are_uniform_under_the_null():
    """The smallest adjusted p of 40 overlapping sets is below .05 in about 5 of 100 worlds without any difference."""
    smallest = []
    for world in range(300):
        generator = np.random.default_rng(world)
        d = generator.choice([-0.5, 0.0, 0.0, 0.5], 200)
        tests = significance.max_t(random_sets(generator, 40, 200, 25), d, seed=world, permutations=99)
        smallest.append(tests.p.min())

    assert stats.kstest(smallest, "uniform").pvalue > 0.001
    assert np.mean(np.array(smallest) <= 0.05) < 0.10


@pytest.mark.parametrize("against", ["rest", "zero"])
def test_whole_families_that_fail_together_do_not_make_a_finding(against):
    """Thirty families of ten items share their luck; cluster-wise sign flips keep the level where items would not."""
    false_findings = 0
    for world in range(150):
        generator = np.random.default_rng(world)
        clusters = np.repeat(np.arange(30), 10)
        d = generator.normal(size=30)[clusters] + 0.3 * generator.normal(size=300)
        families = random_sets(generator, 20, 30, 8).toarray()[:, clusters]
        tests = significance.max_t(
            sparse.csr_array(families), d, seed=world, clusters=clusters, permutations=99, against=against
        )
        false_findings += tests.p.min() <= 0.05

    assert false_findings / 150 < 0.11


def test_a_set_that_is_really_worse_is_found():
    """Thirty items that lose .5 among 300 that lose nothing."""
    generator = np.random.default_rng(1)
    d = generator.choice([-0.25, 0.0, 0.25], 300)
    d[:30] += 0.5
    members = sparse.vstack([random_sets(generator, 50, 300, 30), np.arange(300)[None, :] < 30]).tocsr()

    tests = significance.max_t(sparse.csr_array(members.astype(float)), d, seed=0)

    assert int(np.argmax(tests.t)) == 50
    assert tests.p[50] == 0.001
    assert tests.t[50] > tests.needed[50]


def test_the_unmoderated_statistic_is_welch(monkeypatch):
    """Without the prior items the statistic is scipy's Welch t."""
    monkeypatch.setattr(significance, "PRIOR_ITEMS", 0.0)
    generator = np.random.default_rng(5)
    inside, outside = generator.normal(0.3, 1, 20), generator.normal(0, 2, 50)
    both = np.concatenate([inside, outside])
    column = (np.array([[value]]) for value in (20.0, inside.sum(), (inside**2).sum()))

    t = significance.t_statistics(*column, 70, both.sum(), (both**2).sum(), "rest")[0, 0]

    assert t == pytest.approx(stats.ttest_ind(inside, outside, equal_var=False).statistic)


def test_benjamini_hochberg_agrees_with_scipy():
    """scipy.stats.false_discovery_control computes the same q-values."""
    p = np.random.default_rng(0).random(50) ** 3

    assert significance.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


def test_shrinkage_moves_uncertain_means_most():
    """A mean with a large error goes nearly to the centre, a sure one stays."""
    means, errors = np.array([0.0, 0.1, 0.9, 0.9]), np.array([0.01, 0.01, 0.01, 0.5])

    shrunk, posterior = significance.shrink(means, errors)

    assert abs(shrunk[2] - 0.9) < 0.01
    assert shrunk[3] < 0.8
    assert posterior[3] < 0.5


def test_power_gives_the_published_detectable_drops():
    """Spread .5, 20 one-sided tests, power .8: .26, .18, .12, .08 at 50, 100, 250, 500 items."""
    found = significance.detectable([50, 100, 250, 500], spread=0.5, tests=20)

    assert [round(drop, 2) for drop in found] == [0.26, 0.18, 0.12, 0.08]
    assert significance.items_for_power(found[0], spread=0.5, tests=20) == 50


def lattice_of(members):
    """Sets as candidates, named by their number."""
    names = [Conjunction(solving_operation=(f"o{row:03d}",)) for row in range(members.shape[0])]
    return Lattice(names, members, np.diff(members.indptr).astype(np.int64))


def partly(members, d, **options):
    terms = Terms(min_items=2, min_deficit=-9.0)
    return partial_tests(lattice_of(members), d, terms, scale=np.ones(members.shape[0]), **options)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_a_slice_adds_to_others_agrees_with_regression(seed):
    """The sum of squares that a third set takes from two overlapping ones is that of statsmodels' least squares."""
    generator = np.random.default_rng(seed)
    members = random_sets(generator, 3, 80, 25)
    d = generator.normal(size=80)
    x = members.toarray().T

    looked = partly(members, d).look((0, 1))

    two, three = (sm.OLS(d, sm.add_constant(x[:, :count])).fit() for count in (2, 3))
    assert looked.left == pytest.approx(two.ssr, rel=1e-6)
    assert looked.gain[2] * d.var(ddof=1) == pytest.approx(two.ssr - three.ssr, rel=1e-4, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_with_nothing_accepted_the_partial_test_is_the_first_test(seed):
    """The same moderated Welch t as max-T computes, set by set, where the mean is large enough to be asked."""
    generator = np.random.default_rng(seed)
    members, d = random_sets(generator, 12, 100, 20), generator.normal(size=100)

    given_nothing = partly(members, d).look(()).t
    first = significance.max_t(members, d, seed=0, permutations=9, min_items=2).t

    assert given_nothing == pytest.approx(first, rel=1e-6, abs=1e-7)


def test_weights_count_items_as_often_as_they_say():
    """An item of weight two is the same as that item twice."""
    generator = np.random.default_rng(2)
    members, d = random_sets(generator, 5, 60, 20), generator.normal(size=60)
    weights = generator.integers(0, 3, 60)
    copied = sparse.csr_array(np.repeat(members.toarray(), weights, axis=1))

    weighted = partly(members, d, weights=weights.astype(float)).look((1,))
    plain = partly(copied, np.repeat(d, weights)).look((1,))

    assert weighted.t == pytest.approx(plain.t)
    assert weighted.left == pytest.approx(plain.left)


def test_the_union_of_accepted_slices_adds_nothing_to_them():
    """Two halves and their union: once the halves are in, the union has no items of its own left."""
    halves = np.zeros((3, 40))
    halves[0, :10] = halves[1, 10:20] = halves[2, :20] = 1.0
    d = np.r_[np.full(20, 1.0), np.zeros(20)] + np.random.default_rng(0).normal(scale=0.1, size=40)

    looked = partly(sparse.csr_array(halves), d).look((0, 1))

    assert looked.t[2] == -np.inf
    assert np.isfinite(partial.Partial.residuals(partly(sparse.csr_array(halves), d), (0, 1, 2))).all()


def test_adjusted_p_values_fall_as_the_statistic_rises():
    """`adjusted` of the statistics seen gives the p-values of the test itself, and larger ones no larger p."""
    generator = np.random.default_rng(8)
    members, d = random_sets(generator, 30, 200, 25), generator.normal(size=200)
    levels = np.repeat([1, 2], 15)
    tests = significance.max_t(members, d, seed=1, levels=levels, permutations=199)

    assert tests.adjusted(tests.t).tolist() == tests.p.tolist()
    assert (tests.adjusted(tests.t + 1.0) <= tests.p).all()
    assert (tests.adjusted(tests.needed + 1e-3) <= 0.05).all()
    assert (tests.adjusted(tests.needed - 1e-3) > 0.049).all()


def test_one_sided_p_values_are_uniform_without_a_difference():
    """The unadjusted p of one set of 40 among 400 items, over 400 worlds: Kolmogorov-Smirnov."""
    members = sparse.csr_array((np.arange(400) < 40).astype(float)[None, :])
    p = []
    for world in range(400):
        d = np.random.default_rng([9, world]).normal(size=400)
        t = significance.max_t(members, d, seed=0, permutations=0).t
        p.append(float(significance.one_sided_p(t, np.array([40.0]))[0]))

    assert stats.kstest(p, "uniform").pvalue > 0.01
