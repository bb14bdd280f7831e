"""How well a run did on each item, and how sure we can be: pass@k and its kin, intervals that hold for few items."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from annotator.errors import BadInput

Floats = NDArray[np.float64]

_METRIC = re.compile(r"(mean)|(?:(pass[@^]|maj@|g-pass@)([1-9]\d*))(?::(0?\.\d+|1(?:\.0+)?))?")


def item_scores(samples: pl.DataFrame, *, metric: str = "mean") -> pl.DataFrame:
    """One row an item, in `item_id` order, with the score of its samples.

    Args:
        samples: item_id, score (0..1), one row a model output, of one run; parsed_answer for maj@k.
        metric: "mean", "pass@k" (solved by at least one of k), "pass^k" (by all of k), "g-pass@k:t" (by at least a
            share t of k, as in g-pass@8:0.5) or "maj@k" (by the most frequent answer of k), with k a number.
            For all but the mean a sample is correct when its score is 1.

    Returns:
        item_id str, score f64 (NaN where an item has fewer than k samples), samples i64, correct i64.

    Raises:
        BadInput: unknown metric, a score outside 0..1, or maj@k without answers.
    """
    kind, k, tau = _parsed(metric)
    check_scores(samples)
    item_ids, score, starts, counts = sorted_groups(samples.select("item_id", pl.col("score").cast(pl.Float64)))
    correct = np.add.reduceat((score >= 1.0).astype(np.int64), starts) if len(starts) else counts
    if kind == "mean":
        values = np.add.reduceat(score, starts) / counts if len(starts) else score
    elif kind == "maj@":
        values = _majorities(samples, k)
    else:
        one = {"pass@": pass_at_k, "pass^": pass_all_k, "g-pass@": partial(g_pass_at_k, tau=tau)}[kind]
        values = [one(n, c, k) for n, c in zip(counts.tolist(), correct.tolist())]
    return pl.DataFrame(
        {"item_id": item_ids, "score": values, "samples": counts, "correct": correct},
        schema={"item_id": pl.String, "score": pl.Float64, "samples": pl.Int64, "correct": pl.Int64},
    )


def _parsed(metric: str) -> tuple[str, int, float]:
    found = _METRIC.fullmatch(metric)
    if not found or (found[4] is not None) != (found[2] == "g-pass@"):
        remedy = "Use mean, pass@K, pass^K, g-pass@K:SHARE or maj@K, for example pass@8 or g-pass@8:0.5."
        raise BadInput(f"metric {metric!r} is not known", remedy=remedy)
    return found[1] or found[2], int(found[3] or 1), float(found[4] or 1)


def pass_k(metric: str) -> int | None:
    """The k of "pass@k"; None for every other metric.

    >>> pass_k("pass@8"), pass_k("mean")
    (8, None)
    """
    kind, k, _ = _parsed(metric)
    return k if kind == "pass@" else None


def _majorities(samples: pl.DataFrame, k: int) -> list[float]:
    """maj@k of each item, in the order of their ids. All answers scored right count as one answer."""
    if "parsed_answer" not in samples.columns:
        remedy = "Map the extracted answers to parsed_answer, or use a metric that needs scores alone."
        raise BadInput("maj@k needs the answer of every output", where="samples", remedy=remedy)
    right = "right"
    voted = pl.when(pl.col("score") >= 1.0).then(pl.lit(right)).otherwise(pl.lit("answer ") + pl.col("parsed_answer"))
    ordered = samples.select("item_id", voted.alias("answer")).sort("item_id", "answer")
    answers: dict[str, list[str | None]] = {}
    for item_id, answer in ordered.iter_rows():
        answers.setdefault(item_id, []).append(answer)
    return [maj_at_k(given, right, k) for given in answers.values()]


def sorted_groups(frame: pl.DataFrame) -> tuple[pl.Series, Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Distinct ids in order, all values sorted by (id, value), where each id's values start, and how many there are.

    For sums by np.add.reduceat, which run in one order: a group_by in several threads may not.
    """
    ordered = frame.sort(frame.columns)
    first = np.flatnonzero((ordered[:, 0] != ordered[:, 0].shift(1)).fill_null(value=True).to_numpy())
    counts = np.diff(np.append(first, ordered.height)).astype(np.int64)
    return ordered[:, 0].gather(first), ordered[:, 1].to_numpy(), first, counts


def check_scores(samples: pl.DataFrame) -> None:
    """Raise BadInput, naming the first item, unless every score is a number in 0..1."""
    bad = samples.filter(~pl.col("score").cast(pl.Float64).is_between(0, 1).fill_null(value=False))
    if len(bad):
        first = bad.row(0, named=True)
        remedy = "Map the metric of the harness to 0 (wrong) .. 1 (right)."
        where = f"samples, {first['item_id']}"
        raise BadInput(f"score {first['score']} is not within 0..1", where=where, remedy=remedy)


def one_run(samples: pl.DataFrame, *, run: str | None = None, where: str = "samples") -> pl.DataFrame:
    """The scored samples of one run: of `run`, or of the only one there.

    Outputs that the harness left unscored (an error, a repeat beyond those it took) are left out.

    Raises:
        BadInput: no such run, several and none named, or no score at all.
    """
    chosen = _named_run(samples, run, where)
    scored = chosen.filter(pl.col("score").is_not_null())
    if chosen.height and scored.is_empty():
        raise BadInput("no output has a score", where=where, remedy="Score the run first, or name its score column.")
    return scored


def _named_run(samples: pl.DataFrame, run: str | None, where: str) -> pl.DataFrame:
    if "run" not in samples.columns:
        return samples
    names = sorted(samples["run"].drop_nulls().unique().to_list())
    if run is not None:
        if run not in names:
            raise BadInput(f"no run {run!r}", where=where, remedy=f"There are: {', '.join(names[:8])}.")
        return samples.filter(pl.col("run") == run)
    if len(names) > 1:
        remedy = f"Choose one of: {', '.join(names[:8])}."
        raise BadInput(f"outputs of {len(names)} runs in one table", where=where, remedy=remedy)
    return samples


@lru_cache(maxsize=65_536)
def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased probability that at least one of `k` samples is correct, from `c` correct of `n`.

    1 - C(n-c, k) / C(n, k), Chen et al. 2021 (arXiv 2107.03374), in exact integers. NaN when n < k: some harnesses
    return 1.0 there even for c = 0.

    >>> pass_at_k(10, 3, 1), pass_at_k(4, 0, 4), pass_at_k(2, 2, 4)
    (0.3, 0.0, nan)
    """
    if n < k:
        return math.nan
    total = math.comb(n, k)
    return (total - math.comb(n - c, k)) / total


@lru_cache(maxsize=65_536)
def pass_all_k(n: int, c: int, k: int) -> float:
    """Unbiased probability that all of `k` samples are correct (pass^k of tau-bench, arXiv 2406.12045): C(c,k)/C(n,k).

    >>> pass_all_k(4, 2, 2)
    0.16666666666666666
    """
    return math.nan if n < k else math.comb(c, k) / math.comb(n, k)


@lru_cache(maxsize=65_536)
def g_pass_at_k(n: int, c: int, k: int, tau: float) -> float:
    """Probability that at least a share `tau` of `k` samples is correct: G-Pass@k_tau of arXiv 2412.13147.

    P(Hypergeometric(n, c, k) >= ceil(tau k)). tau -> 0 gives pass@k, tau = 1 gives pass^k.

    >>> round(g_pass_at_k(4, 2, 2, 1.0), 6) == round(pass_all_k(4, 2, 2), 6)
    True
    """
    if n < k:
        return math.nan
    needed = max(1, math.ceil(tau * k - 1e-12))
    return float(stats.hypergeom.sf(needed - 1, n, c, k))


def maj_at_k(answers: Sequence[str | None], gold: str, k: int, *, draws: int = 500) -> float:
    """Probability that the most frequent of `k` answers is the gold one (Wang et al. 2022, self-consistency).

    Exact for k = n; else the mean over `draws` subsets, the same ones every time. Answers must be normalised already;
    None (nothing extracted) never wins. Ties share the vote equally. NaN when fewer than k answers.

    >>> maj_at_k(["4", "4", "5", None], "4", 4), maj_at_k(["4", "5"], "4", 2)
    (1.0, 0.5)
    """
    if len(answers) < k:
        return math.nan
    if len(answers) == k:
        return _vote(answers, gold)
    ordered = sorted(answers, key=lambda answer: (answer is None, answer or ""))
    generator = np.random.default_rng([len(answers), k])
    picks = (generator.choice(len(ordered), size=k, replace=False) for _ in range(draws))
    return math.fsum(_vote([ordered[i] for i in pick], gold) for pick in picks) / draws


def _vote(answers: Sequence[str | None], gold: str) -> float:
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return 0.0
    best = max(counts.values())
    winners = [answer for answer, count in counts.items() if count == best]
    return 1.0 / len(winners) if gold in winners else 0.0


def guess_floor(answers: Sequence[Sequence[str | None]], golds: Sequence[str], k: int) -> Floats:
    """pass@k that each item would get by luck: its own answers scored against the gold answers of the other items.

    Over M plausible integers chance pass@128 is 1-(1-1/M)^128, .47 for M = 200, so a high pass@k may be mere spread;
    report excess = pass@k - floor. Deterministic: the mean over all N-1 other golds, not a random permutation.

    Args:
        answers: normalised answers of each item's samples (None: nothing extracted).
        golds: normalised gold answer of each item, in the same order.

    Returns:
        one floor an item; NaN with fewer than k answers or a single item.

    >>> guess_floor([["1", "2"], ["7", "7"]], ["1", "2"], 1)
    array([0.5, 0. ])
    """
    among = Counter(golds)
    floors = np.full(len(golds), math.nan)
    for row, (given, gold) in enumerate(zip(answers, golds)):
        if len(given) < k or len(golds) < 2:
            continue
        counts = Counter(answer for answer in given if answer is not None)
        hits = [
            (among[answer] - (answer == gold)) * pass_at_k(len(given), count, k)
            for answer, count in sorted(counts.items())
        ]
        floors[row] = math.fsum(hits) / (len(golds) - 1)
    return floors


def clustered_se(values: ArrayLike, clusters: ArrayLike | None = None) -> float:
    """Standard error of a mean when values of one cluster (passage, template, family) hang together.

    sqrt(C/(C-1) * sum_c (sum_{i in c} (x_i - mean))^2) / N: Miller 2024 (arXiv 2411.00640) with the finite-cluster
    factor, as in Inspect. Without clusters this is the usual s / sqrt(N). NaN for fewer than two clusters.

    >>> round(clustered_se([0, 1, 1, 1]), 4), round(clustered_se([0, 0, 1, 1], ["a", "a", "b", "b"]), 4)
    (0.25, 0.5)
    """
    x = np.asarray(values, dtype=np.float64)
    sums = cluster_sums(x - x.mean(), clusters) if len(x) else x
    if len(sums) < 2:
        return math.nan
    return float(np.sqrt(len(sums) / (len(sums) - 1) * np.sum(sums**2)) / len(x))


def cluster_sums(values: Floats, clusters: ArrayLike | None) -> Floats:
    """Sum of the values of each cluster, in the order of the cluster names; the values themselves without clusters."""
    if clusters is None:
        return values
    _, code = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(code, weights=values)


def wilson_interval(rate: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a rate seen in `n` trials (n may be an effective, fractional number).

    Wilson (1927), J. Am. Stat. Assoc. 22:209-212. Not the normal interval: that one has no width at 0 of n.

    >>> [round(end, 3) for end in wilson_interval(0.0, 10)]
    [0.0, 0.278]
    """
    if not n > 0:
        return 0.0, 1.0
    z = float(stats.norm.ppf(0.5 + level / 2))
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half) if rate > 0 else 0.0, min(1.0, centre + half) if rate < 1 else 1.0


def clopper_pearson(correct: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval: never covers less than `level`, at the price of width.

    Clopper & Pearson (1934), Biometrika 26:404-413, by beta quantiles.

    >>> [round(end, 3) for end in clopper_pearson(2, 30)]
    [0.008, 0.221]
    """
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, correct, n - correct + 1)) if correct > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, correct + 1, n - correct)) if correct < n else 1.0
    return low, high


def score_interval(
    values: ArrayLike, clusters: ArrayLike | None = None, *, samples: int | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the mean score of some items, for small numbers too.

    The Wilson interval at n_eff = m(1-m)/SE_cl^2 trials, the number of coin flips that would leave as much doubt as the
    clustered standard error; never fewer than the clusters nor more than all samples (counted per cluster, so that an
    item copied within its cluster changes nothing).

    Args:
        values: item scores in 0..1, at least one.
        samples: model outputs behind them (default: one an item).
    """
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean())
    count = len(x) if clusters is None else len(np.unique(np.asarray(clusters)))
    most = max(count, count * (samples if samples is not None else len(x)) / len(x))
    se = clustered_se(x, clusters)
    n_eff = mean * (1 - mean) / se**2 if se > 0 else count
    return wilson_interval(mean, min(max(n_eff, count), most), level=level)


def paired_change(
    differences: ArrayLike, clusters: ArrayLike | None = None, *, level: float = 0.95
) -> dict[str, float]:
    """Mean of paired differences with its interval and two-sided p-value.

    Student's t on clusters; the p-value is the exact McNemar test when every difference is -1, 0 or 1 and nothing is
    clustered (six gains and no loss: p = .031).

    Returns:
        estimate, low, high, p (all NaN for no difference at all; interval and p NaN for fewer than two clusters).

    >>> round(paired_change([1] * 6 + [0] * 20)["p"], 3)
    0.031
    """
    d = np.asarray(differences, dtype=np.float64)
    if not len(d):
        return dict.fromkeys(("estimate", "low", "high", "p"), math.nan)
    mean, se = float(d.mean()), clustered_se(d, clusters)
    count = len(d) if clusters is None else len(np.unique(np.asarray(clusters)))
    if count < 2:
        return {"estimate": mean, "low": math.nan, "high": math.nan, "p": math.nan}
    half = float(stats.t.ppf(0.5 + level / 2, count - 1)) * se
    if count == len(d) and np.isin(d, (-1.0, 0.0, 1.0)).all():
        gains, losses = int((d > 0).sum()), int((d < 0).sum())
        p = float(stats.binomtest(gains, gains + losses).pvalue) if gains + losses else 1.0
    else:
        p = float(2 * stats.t.sf(abs(mean) / se, count - 1)) if se > 0 else float(mean == 0)
    return {"estimate": mean, "low": mean - half, "high": mean + half, "p": p}
