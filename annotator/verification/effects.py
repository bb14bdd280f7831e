"""Effects of an intervention: contrasts of item scores between arms, with training seeds as a source of doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from annotator.errors import BadInput
from annotator.scores import Floats, item_scores
from annotator.slicing.outcomes import rounded

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Arm:
    """Item scores of one or several runs (training seeds) of one kind.

    scores: one row a run, one column an item. runs: their names, sorted. samples: outputs per item and run, on average.
    noise: variance of each item's mean that comes from drawing outputs; None where every item has but one.
    """

    name: str
    scores: Floats
    runs: list[str]
    samples: float
    noise: Floats | None = None

    @property
    def mean(self) -> Floats:
        """Score of each item, averaged over runs."""
        return self.scores.mean(axis=0)


def read_arm(name: str, samples: pl.DataFrame, item_ids: list[str], metric: str) -> Arm:
    """The scores of an arm on some items, all of which each of its runs must have."""
    if "run" not in samples.columns:
        samples = samples.with_columns(run=pl.lit(name))
    wanted, rows, counts, noise = pl.DataFrame({"item_id": item_ids}), [], [], []
    runs = sorted(samples["run"].fill_null(name).unique().to_list())
    for run in runs:
        mine = item_scores(samples.filter(pl.col("run").fill_null(name) == run), metric=metric)
        joined = wanted.join(mine, on="item_id", how="left", maintain_order="left")
        if joined["score"].null_count() or joined["score"].is_nan().any():
            missing = joined.filter(pl.col("score").is_null() | pl.col("score").is_nan())["item_id"][0]
            raise BadInput(f"run {run!r} of arm {name!r} has no {metric} for {missing!r}", remedy="Give complete runs.")
        rows.append(joined["score"].to_numpy())
        counts.append(float(joined["samples"].mean()))
        if metric == "mean" and joined["samples"].min() > 1:
            # x(1-x)/(n-1) estimates the variance of a mean of n outputs of 0 or 1, and bounds it for shares between
            noise.append(rows[-1] * (1 - rows[-1]) / (joined["samples"].to_numpy() - 1))
    known = np.sum(noise, axis=0) / len(runs) ** 2 if len(noise) == len(runs) else None
    return Arm(name, np.vstack(rows), runs, float(np.mean(counts)), known)


def common_items(frames: dict[str, pl.DataFrame], items: pl.DataFrame, metric: str) -> list[str]:
    """Items that every run of every arm has a score for, sorted.

    Raises:
        BadInput: if an arm shares no item with the benchmark, or all together share none.
    """
    common = set(items["item_id"].to_list())
    for name, frame in frames.items():
        runs = frame["run"].fill_null(name) if "run" in frame.columns else pl.Series([name] * frame.height)
        for run in sorted(runs.unique().to_list()):
            mine = item_scores(frame.filter(runs == run), metric=metric).filter(pl.col("score").is_not_nan())
            theirs = set(mine["item_id"].to_list())
            if not theirs & set(items["item_id"].to_list()):
                raise BadInput("no item_id matches an item", where=f"{name} ({run})", remedy="Map the id column.")
            common &= theirs
    if not common:
        raise BadInput("no item was answered in every run", where="before, after and controls")
    return sorted(common)


def weights_of(inside: Mask, *, minus: Mask | None = None) -> Floats:
    """Weights of a mean over some items, or of the difference of two such means."""
    weights = inside / max(inside.sum(), 1)
    return weights if minus is None else weights - minus / max(minus.sum(), 1)


def effect(
    weights: Floats, better: Arm, base: Arm, clusters: NDArray[np.integer], *, alpha: float = 0.05
) -> dict[str, Any]:
    """Weighted mean of (better - base) over items, with its interval.

    Args:
        weights: from `weights_of`: one group of items, or the difference of two.

    The variance is the cluster-robust one of the items, paired, plus, for each arm of several runs, the variance
    between runs divided by their number (its part that decoding noise alone would give taken off); degrees of freedom
    by Satterthwaite (1946). With one run an arm, the interval speaks of these checkpoints only.

    Returns:
        estimate, low, high, p, items, se; None where a number cannot be had (fewer than two clusters).
    """
    d = better.mean - base.mean
    estimate = float(np.sum(weights * d))
    used = weights != 0
    groups = [weights > 0, weights < 0]
    centred = d.copy()
    for group in groups:
        if group.any():
            centred[group] -= d[group].mean()
    code = np.unique(clusters[used], return_inverse=True)[1]
    sums = np.bincount(code, weights=(weights * centred)[used])
    count = len(sums)
    empty = {
        "estimate": rounded(estimate),
        "low": None,
        "high": None,
        "p": None,
        "se": None,
        "items": int(groups[0].sum()),
    }
    if count < 2:
        return empty
    parts = [(float(np.sum(sums**2)) * count / (count - 1), count - 1.0)]
    parts += [part for arm in (better, base) if (part := _between_runs(weights, arm)) is not None]
    variance = sum(value for value, _ in parts)
    freedom = variance**2 / sum(value**2 / of for value, of in parts) if variance > 0 else count - 1.0
    se = math.sqrt(variance)
    half = float(stats.t.ppf(1 - alpha / 2, freedom)) * se
    p = float(2 * stats.t.sf(abs(estimate) / se, freedom)) if se > 0 else float(estimate == 0)
    numbers = {"estimate": estimate, "low": estimate - half, "high": estimate + half, "p": p, "se": se}
    return {name: rounded(value) for name, value in numbers.items()} | {"items": int(groups[0].sum())}


def _between_runs(weights: Floats, arm: Arm) -> tuple[float, float] | None:
    """Variance that an arm's runs add to a weighted mean, and its degrees of freedom; None for a single run."""
    count = len(arm.scores)
    if count < 2:
        return None
    means = np.sum(arm.scores * weights, axis=1)
    decoding = float(np.sum(weights**2 * arm.scores.var(axis=0, ddof=1)))
    return max(0.0, float(means.var(ddof=1)) - decoding) / count, count - 1.0


def decoding_variance(weights: Floats, arm: Arm) -> float | None:
    """The part of the variance of an arm's weighted mean that more outputs an item would shrink; None if not known."""
    return None if arm.noise is None else float(np.sum(weights**2 * arm.noise))


def flips(inside: Mask, better: Arm, base: Arm) -> tuple[int, int]:
    """Items of a group that went up, and down, by more than rounding."""
    d = (better.mean - base.mean)[inside]
    return int((d > 1e-9).sum()), int((d < -1e-9).sum())


def holm(p_values: list[float | None]) -> list[float | None]:
    """Holm's (1979) adjusted p-values, None staying None.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    known = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, at) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[at] = rounded(highest)
    return adjusted


def needed_se(effect_wanted: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The standard error at which an effect of this size would show with the given power."""
    return effect_wanted / float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))


def items_needed(effect_wanted: float, se: float, items: int, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Items of this kind at which an effect of this size would show with the given power, all else equal."""
    return math.ceil(items * (se / needed_se(effect_wanted, alpha=alpha, power=power)) ** 2)
