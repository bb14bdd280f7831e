"""Item scores and intervals agree with published values and with other libraries, and obey their laws."""

import math
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from annotator import scores
from annotator.errors import BadInput


def samples_of(rows):
    return pl.DataFrame(rows, schema=["item_id", "score"], orient="row")


def test_mean_and_pass_at_k_of_an_item():
    """Two of four right: mean .5, pass@2 = 1 - C(2,2)/C(4,2) = 5/6, pass^2 = 1/6."""
    samples = samples_of([("a", 1.0), ("a", 0.0), ("a", 1.0), ("a", 0.0)])

    assert scores.item_scores(samples).row(0) == ("a", 0.5, 4, 2)
    assert scores.item_scores(samples, metric="pass@2")["score"][0] == pytest.approx(5 / 6)
    assert scores.item_scores(samples, metric="pass^2")["score"][0] == pytest.approx(1 / 6)


def test_pass_at_k_is_not_a_number_with_fewer_than_k_samples():
    """OpenCompass returns 1.0 here; that would call an unsolved item solved."""
    assert math.isnan(scores.item_scores(samples_of([("a", 0.0)]), metric="pass@4")["score"][0])


def test_an_unknown_metric_is_refused():
    """A typo in the metric is the user's error, with the choices named."""
    with pytest.raises(BadInput, match=r"pass@K"):
        scores.item_scores(samples_of([("a", 0.0)]), metric="pas@4")


def test_a_score_outside_its_range_names_the_item():
    """A harness that logs percentages would otherwise give nonsense."""
    with pytest.raises(BadInput, match=r"samples, b: score 50.0 is not within 0..1"):
        scores.item_scores(samples_of([("a", 1.0), ("b", 50.0)]))


def test_outputs_of_two_runs_are_not_mixed():
    """One frame with two runs asks which one is meant."""
    samples = pl.DataFrame({"item_id": ["a", "a"], "run": ["x", "y"], "score": [0.0, 1.0]})

    with pytest.raises(BadInput, match=r"Choose one of: x, y"):
        scores.one_run(samples)
    assert scores.one_run(samples, run="y")["score"].to_list() == [1.0]


@given(st.integers(1, 12), st.data())
def test_pass_at_k_counts_subsets(n, data):
    """pass@k is the share of k-subsets with a correct answer, pass^k of those with only correct ones."""
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = [sum(pick) for pick in combinations([1] * c + [0] * (n - c), k)]

    assert scores.pass_at_k(n, c, k) == pytest.approx(np.mean([total > 0 for total in subsets]))
    assert scores.pass_all_k(n, c, k) == pytest.approx(np.mean([total == k for total in subsets]))
    assert scores.g_pass_at_k(n, c, k, 0.5) == pytest.approx(np.mean([total >= math.ceil(k / 2) for total in subsets]))


@given(st.integers(2, 200), st.data())
def test_pass_at_k_never_falls_as_k_grows(n, data):
    """More tries never make success less likely."""
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n - 1))

    assert scores.pass_at_k(n, c, k) <= scores.pass_at_k(n, c, k + 1)
    assert scores.pass_all_k(n, c, k) >= scores.pass_all_k(n, c, k + 1)


def test_every_metric_of_an_item():
    """Two of four right, "4" said twice: each metric from its own definition."""
    samples = samples_of([("a", 1.0), ("a", 1.0), ("a", 0.0), ("a", 0.0)])
    samples = samples.with_columns(parsed_answer=pl.Series(["4", "4.0", "5", "6"]))

    def score(metric):
        return scores.item_scores(samples, metric=metric)["score"][0]

    assert score("g-pass@2:0.5") == pytest.approx(5 / 6)
    assert score("g-pass@2:1") == pytest.approx(1 / 6)
    assert score("maj@4") == 1.0  # what is scored right counts as one answer, however it is written
    assert math.isnan(score("maj@5"))
    with pytest.raises(BadInput, match="maj@k needs the answer of every output"):
        scores.item_scores(samples.drop("parsed_answer"), metric="maj@4")


@pytest.mark.parametrize("metric", ["pass@0", "g-pass@8", "pass@8:0.5", "mean:0.5", "maj@", "g-pass@8:1.5"])
def test_a_metric_that_is_half_written_is_refused(metric):
    """A share without its metric, or the reverse, would answer another question."""
    with pytest.raises(BadInput, match="is not known"):
        scores.item_scores(samples_of([("a", 0.0)]), metric=metric)


def test_the_most_frequent_answer_wins_and_ties_share():
    """Nothing extracted never wins; with fewer answers than votes there is no value."""
    assert scores.maj_at_k(["4", "4", "5", None], "4", 4) == 1.0
    assert scores.maj_at_k(["4", "5"], "5", 2) == 0.5
    assert scores.maj_at_k([None, None], "5", 2) == 0.0
    assert math.isnan(scores.maj_at_k(["4"], "4", 2))
    assert scores.maj_at_k(["4", "4", "5"], "4", 1) == pytest.approx(2 / 3, abs=0.08)


def test_the_guess_floor_grows_with_the_spread_of_answers():
    """A model that lists 100 different integers is right by luck on each item whose gold is among the others'."""
    golds = [str(number) for number in range(50)]
    spread = [[str(number) for number in range(100)]] * 50
    stuck = [["7"] * 100] * 50

    assert scores.guess_floor(spread, golds, 100).mean() == pytest.approx(1.0)
    assert scores.guess_floor(stuck, golds, 100).mean() == pytest.approx(1 / 50)


@given(st.integers(1, 60), st.data())
def test_clopper_pearson_and_wilson_agree_with_scipy(n, data):
    """scipy.stats.binomtest computes the same two intervals."""
    c = data.draw(st.integers(0, n))
    test = stats.binomtest(c, n)

    exact, wilson = test.proportion_ci(method="exact"), test.proportion_ci(method="wilson")
    assert scores.clopper_pearson(c, n) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert scores.wilson_interval(c / n, n) == pytest.approx((wilson.low, wilson.high), abs=1e-9)


def test_published_small_sample_intervals():
    """2 of 30 and 8 of 30 right at AIME size: the intervals overlap."""
    assert scores.clopper_pearson(2, 30) == pytest.approx((0.008, 0.221), abs=5e-4)
    assert scores.clopper_pearson(8, 30) == pytest.approx((0.123, 0.459), abs=5e-4)


def test_clustered_standard_error_agrees_with_statsmodels():
    """The intercept of a regression on a constant with cluster-robust covariance, but for its n-1/n factor."""
    sm = pytest.importorskip("statsmodels.api", reason="statsmodels is in the dev extra")
    generator = np.random.default_rng(3)
    clusters = np.repeat(np.arange(12), generator.integers(1, 9, 12))
    values = generator.random(len(clusters)) + generator.normal(size=12)[clusters]

    fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": clusters})

    # statsmodels multiplies by (N-1)/(N-K), which is 1 with one column.
    assert scores.clustered_se(values, clusters) == pytest.approx(float(fit.bse[0]), rel=1e-9)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 5)), min_size=2, max_size=40))
def test_copying_every_item_within_its_cluster_changes_no_interval(rows):
    """A benchmark that holds each template twice knows no more than before."""
    values, clusters = [value for value, _ in rows], [cluster for _, cluster in rows]

    once = scores.score_interval(values, clusters)
    twice = scores.score_interval(values * 2, clusters * 2)
    assert once == pytest.approx(twice, abs=1e-9)


@given(st.lists(st.tuples(st.sampled_from([-1.0, -0.25, 0.0, 0.5]), st.integers(0, 5)), min_size=2, max_size=40))
def test_copying_every_pair_within_its_cluster_changes_no_test(rows):
    """Neither the interval nor the p-value of a paired change."""
    values, clusters = [value for value, _ in rows], [cluster for _, cluster in rows]

    once, twice = scores.paired_change(values, clusters), scores.paired_change(values * 2, clusters * 2)

    if len(set(clusters)) < len(values):  # else the copies make clusters of what stood alone: the test changes its kind
        assert once == pytest.approx(twice, abs=1e-9, nan_ok=True)
    assert (once["low"], once["high"]) == pytest.approx((twice["low"], twice["high"]), abs=1e-9, nan_ok=True)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 9)), min_size=2, max_size=40), st.randoms())
def test_the_order_of_items_changes_no_interval(rows, shuffle):
    """Standard error, interval and change of shuffled rows."""
    other = shuffle.sample(rows, len(rows))
    first, second = ([value for value, _ in order] for order in (rows, other))
    here, there = ([cluster for _, cluster in order] for order in (rows, other))

    assert scores.score_interval(first, here) == pytest.approx(scores.score_interval(second, there), abs=1e-12)
    assert scores.paired_change(first, here) == pytest.approx(
        scores.paired_change(second, there), abs=1e-12, nan_ok=True
    )


def test_p_values_of_a_change_are_uniform_where_nothing_changed():
    """400 worlds of 60 families of one to four items that share their luck: Kolmogorov-Smirnov."""
    p = []
    for world in range(400):
        generator = np.random.default_rng([5, world])
        clusters = np.repeat(np.arange(60), generator.integers(1, 5, 60))
        d = generator.normal(size=60)[clusters] + generator.normal(size=len(clusters))
        p.append(scores.paired_change(d, clusters)["p"])

    assert stats.kstest(p, "uniform").pvalue > 0.01


@given(st.integers(0, 15), st.integers(0, 15))
def test_the_exact_test_of_flips_agrees_with_statsmodels(gains, losses):
    """McNemar's exact test of the two-by-two table."""
    table = [[3, losses], [gains, 4]]
    theirs = mcnemar(table, exact=True).pvalue if gains + losses else 1.0

    assert scores.paired_change([1.0] * gains + [-1.0] * losses + [0.0] * 7)["p"] == pytest.approx(theirs)


@given(st.integers(1, 60), st.data())
def test_intervals_agree_with_statsmodels(n, data):
    """proportion_confint by the methods "wilson" and "beta"."""
    c = data.draw(st.integers(0, n))

    assert scores.wilson_interval(c / n, n) == pytest.approx(proportion_confint(c, n, method="wilson"), abs=1e-9)
    assert scores.clopper_pearson(c, n) == pytest.approx(proportion_confint(c, n, method="beta"), abs=1e-9)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=40))
def test_the_interval_holds_the_mean_and_stays_in_range(values):
    """Also with all right or all wrong, where the normal interval has no width."""
    low, high = scores.score_interval(values)

    assert 0 <= low <= np.mean(values) + 1e-12
    assert np.mean(values) - 1e-12 <= high <= 1
    assert high - low > 0.01


def test_mcnemar_values_of_the_method():
    """Eight gains and no loss p = .008; 7:1 p = .07; 8:2 p = .11."""
    for gains, losses, p in ((8, 0, 0.008), (7, 1, 0.07), (8, 2, 0.11)):
        change = scores.paired_change([1.0] * gains + [-1.0] * losses + [0.0] * 20)
        assert change["p"] == pytest.approx(p, abs=0.003)


def test_paired_change_agrees_with_the_t_test():
    """With several samples an item the differences are fractions and Student's t is used."""
    d = [0.25, -0.5, 0.75, 0.0, 0.25, 0.5]
    theirs = stats.ttest_1samp(d, 0.0)

    change = scores.paired_change(d)

    assert change["p"] == pytest.approx(theirs.pvalue)
    assert (change["low"], change["high"]) == pytest.approx(tuple(theirs.confidence_interval()))


def test_unscored_outputs_are_left_out_and_a_run_without_scores_is_refused():
    """Native logs hold outputs that the harness gave up on."""
    frame = pl.DataFrame({"item_id": ["a", "b"], "run": ["r", "r"], "score": [1.0, None]})
    assert scores.one_run(frame)["item_id"].to_list() == ["a"]
    with pytest.raises(BadInput, match="no output has a score"):
        scores.one_run(frame.with_columns(score=pl.lit(None, dtype=pl.Float64)))
