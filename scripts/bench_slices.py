"""Planted weak slices: how many are found, how many findings are real, by us and by others, in one run.

    python scripts/bench_slices.py --seeds 20 --null-seeds 400 --peers peers/bin/python -o bench_slices.json

DivExplorer and SliceLine run in a Python of their own (`scripts/slice_peers.py` says how to make it); the rule of
EvalTree and Benjamini-Hochberg are implemented here, on our lattice. The generator is `annotator.simulate.plant`.
Times are CPU seconds a run, ours with everything that stands in the table (resamples, halves, label noise).
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from scipy import stats

from annotator.scores import clopper_pearson
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
OURS = "ours, paired"
NULL_SEEDS_AFTER = 10_000  # null worlds are drawn from seeds this far behind those of the planted settings
_SMALLEST = 30

Sets = list[list[str]]


@dataclass(frozen=True)
class Case:
    """A planted benchmark, and what the peers see of it: one row an item, in item order."""

    planted: Planted

    @cached_property
    def frame(self) -> pl.DataFrame:
        world = self.planted
        return outcomes(world.items, world.samples, labels=world.labels, reference=world.reference).frame

    @cached_property
    def lattice(self) -> Lattice:
        return build_lattice(self.frame.select(AXES), min_items=_SMALLEST)

    @property
    def ids(self) -> np.ndarray:
        return self.frame["item_id"].to_numpy()

    def for_peers(self) -> dict:
        """What scripts/slice_peers.py reads."""
        columns = {axis: self.frame[axis].to_list() for axis in AXES if axis != "solving_operation"}
        columns["solving_operation"] = self.frame["solving_operation"].list.first().to_list()
        errors = (1 - self.frame["score"]).to_list()
        return {
            "columns": columns,
            "errors": errors,
            "differences": self.frame["difference"].to_list(),
            "smallest": _SMALLEST,
        }


def ours(case: Case) -> Sets:
    world = case.planted
    return find_slices(world.items, world.labels, world.samples, reference=world.reference).table["item_ids"].to_list()


def ours_unpaired(case: Case) -> Sets:
    world = case.planted
    return find_slices(world.items, world.labels, world.samples).table["item_ids"].to_list()


def evaltree(case: Case) -> Sets:
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


def benjamini_hochberg_paired(case: Case) -> Sets:
    """Every closed conjunction with a Welch t at q <= .05, paired: what the search is for."""
    d = case.frame["difference"].to_numpy()
    inside, squares = case.lattice.members @ d, case.lattice.members @ d**2
    n, out = case.lattice.sizes, len(d) - case.lattice.sizes
    mean, rest = inside / n, (d.sum() - inside) / out
    variance = (squares / n - mean**2) / n + ((np.sum(d**2) - squares) / out - rest**2) / out
    p = stats.norm.sf((mean - rest) / np.sqrt(np.maximum(variance, 1e-12)))
    rows = np.flatnonzero(stats.false_discovery_control(p) <= 0.05)
    return [case.ids[case.lattice.items_of(row)].tolist() for row in rows]


METHODS: dict[str, Callable[[Case], Sets]] = {
    OURS: ours,
    "ours, no reference": ours_unpaired,
    "EvalTree rule on our lattice": evaltree,
    "BH on all closed slices, paired": benjamini_hochberg_paired,
}


def results(method: Callable[[Case], Sets], cases: list[Case]) -> list[tuple[Sets, float]]:
    """What a method finds in each case, and its CPU seconds."""
    found = []
    for case in cases:
        start = time.process_time()
        sets = method(case)
        found.append((sets, time.process_time() - start))
    return found


def peers_results(python: str | None, cases: list[Case]) -> dict[str, list[tuple[Sets, float]]]:
    """What DivExplorer and SliceLine find; nothing, with a word why, where they cannot run."""
    if python is None:
        return {}
    worker = Path(__file__).with_name("slice_peers.py")
    request = json.dumps([case.for_peers() for case in cases])
    answer = subprocess.run([python, str(worker)], input=request, capture_output=True, text=True, check=True)
    found = json.loads(answer.stdout.splitlines()[-1])  # the packages print, too
    if "missing" in found:
        print(f"peers left out: {found['missing']}", flush=True)
        return {}
    return {
        name: [([case.ids[rows].tolist() for rows in one["found"]], one["seconds"]) for case, one in zip(cases, each)]
        for name, each in found.items()
    }


def measured(found: list[tuple[Sets, float]], cases: list[Case]) -> dict:
    """Means over the cases; precision over those with a finding."""
    rows = [recovery_of(sets, case.planted.truth["item_ids"].to_list()) for (sets, _), case in zip(found, cases)]
    mean = {key: _mean([row[key] for row in rows]) for key in ("recall", "precision", "item_f1")}
    hits = sum(len(sets) > 0 for sets, _ in found)
    low, high = clopper_pearson(hits, len(found))
    return {
        **mean,
        "found": float(np.mean([len(sets) for sets, _ in found])),
        "any": hits / len(found),
        "any_low": low,
        "any_high": high,
        "cpu_seconds": float(np.mean([seconds for _, seconds in found])),
        "runs": len(found),
    }


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else None


def scale() -> str:
    """100,000 items on four axes: seconds and peak memory of this process."""
    world = plant(0, items=100_000, drop=1.0, samples=1)
    before, start = time.process_time(), time.perf_counter()
    found = find_slices(world.items, world.labels, world.samples, reference=world.reference)
    cpu, wall = time.process_time() - before, time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return (
        f"100,000 items x 4 axes: {found.summary['candidates']} candidates, {found.table.height} slices, "
        f"{cpu:.1f} s CPU ({wall:.1f} s), peak {peak:.2f} GB"
    )


def show(setting: str, method: str, row: dict) -> None:
    numbers = " ".join(f"{row[key]:.3f}" if row[key] is not None else "  -  " for key in ("recall", "precision"))
    f1 = f"{row['item_f1']:.3f}" if row["item_f1"] else "  -  "
    line = f"{setting:25} {method:32} {numbers} {f1}  found {row['found']:5.1f}"
    bounds = f"any {row['any']:.3f} [{row['any_low']:.3f}, {row['any_high']:.3f}]"
    print(f"{line}  {bounds} of {row['runs']:3}  {row['cpu_seconds']:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="worlds of each planted setting")
    parser.add_argument("--null-seeds", type=int, default=200, help="worlds of each null setting, for us")
    parser.add_argument("--peer-null-seeds", type=int, default=20, help="worlds of each null setting, for the others")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--peers", metavar="PYTHON", help="the Python that has divexplorer and sliceline")
    parser.add_argument("--scale", action="store_true", help="also time 100,000 items")
    parser.add_argument("-o", "--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    if options.peers is None:
        print("DivExplorer and SliceLine left out: no --peers PYTHON given (see scripts/slice_peers.py)")
    if options.scale:
        print(scale(), flush=True)
    print(f"{'setting':25} {'method':32} recall prec. itemF1  found       runs with any finding   CPU a run")
    table = []
    for setting, world in (SETTINGS | NULLS).items():
        null = setting in NULLS
        first = options.first_seed + (NULL_SEEDS_AFTER if null else 0)
        cases = [Case(plant(first + seed, **world)) for seed in range(options.null_seeds if null else options.seeds)]
        for_peers = cases[: options.peer_null_seeds] if null else cases
        found = {name: results(method, cases if name == OURS else for_peers) for name, method in METHODS.items()}
        for name, each in (found | peers_results(options.peers, for_peers)).items():
            row = measured(each, cases)
            table.append({"setting": setting, "method": name} | row)
            show(setting, name, row)
    if options.out:
        options.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
