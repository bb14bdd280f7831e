"""The multiple tests hold their level, agree with other libraries, and do not depend on order."""

import numpy as np
import pytest
from scipy import sparse, stats

from annotator.slicing import significance


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
