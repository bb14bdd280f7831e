"""Planted weak slices: how many are found, how many findings are real, by us and by others, in one run.

    python scripts/bench_slices.py --seeds 20 --null-seeds 200 -o bench_slices.json

DivExplorer and SliceLine take part if they can be imported (`pip install divexplorer sliceline`, in an environment of
their own); the rule of EvalTree is re-implemented on our lattice. The generator is `annotator.simulate.plant`.

Peers get what they can use. DivExplorer and SliceLine know one value an axis, so they see the primary operation; both
are run on the candidate's errors, as they are meant, and on the paired differences, which is kinder.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy import stats

from annotator.simulate import Planted, plant, recovery_of
from annotator.slices import find_slices
from annotator.slicing.lattice import Lattice, build_lattice
from annotator.slicing.outcomes import outcomes
from annotator.taxonomy import AXES

SETTINGS = {
    "large drop, no decoys": {"drop": 1.8, "decoys": 0},
    "large drop, 4 decoys": {"drop": 1.8, "decoys": 4},
    "small drop, no decoys": {"drop": 1.0, "decoys": 0},
    "small drop, 4 decoys": {"drop": 1.0, "decoys": 4},
}
NULLS = {
    "null": {"planted": 0, "decoys": 0},
    "null, 4 decoys": {"planted": 0, "decoys": 4},
    "null, 4 decoys, families": {"planted": 0, "decoys": 4, "cluster_size": 5, "cluster_spread": 0.5},
}
_SMALLEST = 30


@dataclass(frozen=True)
class Case:
    """A planted benchmark, and what the peers see of it: one row an item, in item order."""

    planted: Planted
    frame: pl.DataFrame
    lattice: Lattice

    @property
    def ids(self) -> np.ndarray:
        return self.frame["item_id"].to_numpy()


def case(seed: int, setting: dict) -> Case:
    world = plant(seed, **setting)
    joined = outcomes(world.items, world.samples, labels=world.labels, reference=world.reference).frame
    return Case(world, joined, build_lattice(joined.select(AXES), min_items=_SMALLEST))


def ours(case: Case) -> list[list[str]]:
    world = case.planted
    table = find_slices(world.items, world.labels, world.samples, reference=world.reference, bootstraps=1).table
    return table["item_ids"].to_list()


def ours_unpaired(case: Case) -> list[list[str]]:
    return (
        find_slices(case.planted.items, case.planted.labels, case.planted.samples, bootstraps=1)
        .table["item_ids"]
        .to_list()
    )


def evaltree(case: Case) -> list[list[str]]:
    """Clopper-Pearson upper bound below mean - .1, as EvalTree; a node within another failing one is left out.

    EvalTree descends to the lowest failing node of a tree. In a lattice, where a node has many children, that keeps
    dozens of chance children of one weakness, so the kinder rule is used: the broadest failing node stays.
    """
    samples = case.frame["samples"].to_numpy()
    right = case.frame["score"].to_numpy() * samples
    lattice = case.lattice
    n, c = lattice.members @ samples.astype(float), lattice.members @ right
    upper = stats.beta.ppf(0.95, c + 1, np.maximum(n - c, 1e-9))
    failing = np.flatnonzero(upper < right.sum() / samples.sum() - 0.1)
    names = {row: lattice.conjunctions[row].predicates for row in failing}
    kept = [row for row in failing if not any(names[other] < names[row] for other in failing)]
    return [case.ids[lattice.items_of(row)].tolist() for row in kept]


def benjamini_hochberg_paired(case: Case) -> list[list[str]]:
    """Every closed conjunction with a Welch t at q <= .05, paired: what explain-away is for."""
    d = case.frame["difference"].to_numpy()
    inside, squares = case.lattice.members @ d, case.lattice.members @ d**2
    n, out = case.lattice.sizes, len(d) - case.lattice.sizes
    mean, rest = inside / n, (d.sum() - inside) / out
    variance = (squares / n - mean**2) / n + ((np.sum(d**2) - squares) / out - rest**2) / out
    p = stats.norm.sf((mean - rest) / np.sqrt(np.maximum(variance, 1e-12)))
    rows = np.flatnonzero(stats.false_discovery_control(p) <= 0.05)
    return [case.ids[case.lattice.items_of(row)].tolist() for row in rows]


def _table(case: Case):
    import pandas as pd

    primary = case.frame["solving_operation"].list.first()
    columns = {axis: case.frame[axis].to_list() for axis in AXES if axis != "solving_operation"}
    return pd.DataFrame({**columns, "solving_operation": primary.to_list()})


def _divexplorer(case: Case, outcome: np.ndarray, prune: bool) -> list[list[str]]:
    from divexplorer import DivergenceExplorer, DivergencePatternProcessor

    table = _table(case)
    columns = list(table.columns)
    table["outcome"] = outcome
    patterns = DivergenceExplorer(table).get_pattern_divergence(
        min_support=_SMALLEST / len(table), attributes=columns, quantitative_outcomes=["outcome"]
    )
    if prune:
        patterns = DivergencePatternProcessor(patterns, "outcome").redundancy_pruning(th_redundancy=0.02)
    good = patterns[(patterns["outcome_t"] > 3) & (patterns["outcome_div"] > 0)]
    good = good.sort_values("outcome_div", ascending=False).head(10)
    found = []
    for itemset in good["itemset"]:
        inside = np.ones(len(table), dtype=bool)
        for predicate in itemset:
            column, value = predicate.split("=", 1)
            inside &= (table[column] == value).to_numpy()
        found.append(case.ids[inside].tolist())
    return found


def _sliceline(case: Case, errors: np.ndarray) -> list[list[str]]:
    from sliceline.slicefinder import Slicefinder

    table = _table(case)
    finder = Slicefinder(alpha=0.99, k=10, max_l=3, min_sup=_SMALLEST, verbose=False)
    finder.fit(table.to_numpy(dtype=object), errors)
    found = []
    for row in finder.top_slices_:
        inside = np.ones(len(table), dtype=bool)
        for column, value in zip(table.columns, row):
            if value is not None:
                inside &= (table[column] == value).to_numpy()
        found.append(case.ids[inside].tolist())
    return found


def divexplorer_errors(case: Case) -> list[list[str]]:
    return _divexplorer(case, 1 - case.frame["score"].to_numpy(), prune=False)


def divexplorer_paired(case: Case) -> list[list[str]]:
    return _divexplorer(case, case.frame["difference"].to_numpy(), prune=True)


def sliceline_errors(case: Case) -> list[list[str]]:
    return _sliceline(case, 1 - case.frame["score"].to_numpy())


def sliceline_paired(case: Case) -> list[list[str]]:
    return _sliceline(case, np.maximum(case.frame["difference"].to_numpy(), 0.0))


def methods() -> dict[str, Callable[[Case], list[list[str]]]]:
    """Everything that can run here; absent peers are named."""
    found: dict[str, Callable[[Case], list[list[str]]]] = {
        "ours, paired": ours,
        "ours, no reference": ours_unpaired,
        "EvalTree rule on our lattice": evaltree,
        "BH on all closed slices, paired": benjamini_hochberg_paired,
    }
    try:
        import divexplorer  # noqa: F401

        found |= {"DivExplorer, errors": divexplorer_errors, "DivExplorer, paired, pruned": divexplorer_paired}
    except ImportError:
        print("DivExplorer is not installed here: left out (pip install divexplorer)")
    try:
        import sliceline  # noqa: F401

        found |= {"SliceLine, errors": sliceline_errors, "SliceLine, paired": sliceline_paired}
    except ImportError:
        print("SliceLine is not installed here: left out (pip install sliceline)")
    return found


def measure(name: str, setting: dict, method: Callable[[Case], list[list[str]]], cases: list[Case]) -> dict:
    rows, seconds, counts = [], [], []
    for one in cases:
        start = time.perf_counter()
        found = method(one)
        seconds.append(time.perf_counter() - start)
        counts.append(len(found))
        rows.append(recovery_of(found, one.planted.truth["item_ids"].to_list()))
    mean = {key: _mean([row[key] for row in rows]) for key in ("recall", "precision", "item_f1")}
    hits = float(np.mean([count > 0 for count in counts]))
    return {"setting": name, **mean, "found": float(np.mean(counts)), "any": hits, "seconds": float(np.mean(seconds))}


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else None


def scale() -> dict:
    """100,000 items on four axes: seconds and peak memory of this process."""
    world = plant(0, items=100_000, drop=1.0, samples=1)
    start = time.perf_counter()
    found = find_slices(world.items, world.labels, world.samples, reference=world.reference)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"items": 100_000, "candidates": found.summary["candidates"], "seconds": seconds, "peak_gb": peak}


def show(row: dict, method: str) -> None:
    numbers = [f"{row[key]:.2f}" if row[key] is not None else "  - " for key in ("recall", "precision", "item_f1")]
    line = f"{row['setting']:26} {method:32} {' '.join(numbers)}  found {row['found']:5.1f}"
    print(f"{line}  any {row['any']:.3f}  {row['seconds']:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="seeds of each planted setting")
    parser.add_argument("--null-seeds", type=int, default=200, help="seeds of each null setting (ours; peers: 20)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--scale", action="store_true", help="also time 100,000 items")
    parser.add_argument("-o", "--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    table, every = [], methods()
    if options.scale:
        print(scale(), flush=True)
    for name, setting in SETTINGS.items():
        cases = [case(options.first_seed + seed, setting) for seed in range(options.seeds)]
        for method, run in every.items():
            table.append({"method": method} | measure(name, setting, run, cases))
            show(table[-1], method)
    for name, setting in NULLS.items():
        for method, run in every.items():
            seeds = options.null_seeds if method == "ours, paired" else min(20, options.null_seeds)
            cases = [case(10_000 + options.first_seed + seed, setting) for seed in range(seeds)]
            table.append({"method": method, "seeds": seeds} | measure(name, setting, run, cases))
            show(table[-1], method)
    if options.out:
        options.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
