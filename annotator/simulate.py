"""Made-up benchmarks with a known truth: planted weak slices, decoys, and nothing at all.

The public test bed for slice finding: everything is drawn from a seed, and the truth comes along.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

_AXES = {"background_condition": 8, "task_type": 10, "solving_operation": 12, "output_constraint": 6}
_SKEW = 0.7  # exponent of the Zipf law of label frequencies
_SMALLEST, _LARGEST = 30, 250  # items of a planted slice or decoy
_OVERLAP = 0.2
_PREDICATES = (1, 2, 2, 2, 3, 3)
_DECOY_PREDICATES = 2


@dataclass(frozen=True, slots=True)
class Planted:
    """A benchmark with known weak slices.

    items, labels, samples, reference: as the readers give them. truth: slice_id, items, item_ids, one row a planted
    slice. decoys: the same for slices that are hard for both runs alike.
    """

    items: pl.DataFrame
    labels: pl.DataFrame
    samples: pl.DataFrame
    reference: pl.DataFrame
    truth: pl.DataFrame
    decoys: pl.DataFrame


def plant(
    seed: int,
    *,
    items: int = 3000,
    planted: int = 6,
    decoys: int = 4,
    drop: float = 1.8,
    decoy_drop: float = 1.8,
    samples: int = 4,
    cluster_size: int = 1,
    cluster_spread: float = 0.0,
) -> Planted:
    """Items with Zipf labels on four axes, and two runs that differ in the planted slices only.

    Axes have 8, 10, 12 and 6 values, items 1 to 3 operations; the logit of an item is N(0.8, 1.2). Planted slices (one
    of one predicate, three of two, two of three; each names an operation, holds 30 to 250 items and shares at most a
    fifth of them with another) lower the candidate's logit by `drop`; decoys lower that of both runs by `decoy_drop`.

    Args:
        planted: how many weak slices, 0 to 6; 0 gives the null.
        samples: outputs of each item and run.
        cluster_size, cluster_spread: with a size above 1, items come in families whose change between the runs shares a
            normal term of this standard deviation (on the logit).
    """
    generator = np.random.default_rng([20_260_101, seed])
    codes = {
        axis: generator.choice(size, items, p=_zipf(size))
        for axis, size in _AXES.items()
        if axis != "solving_operation"
    }
    operations = _operations(generator, items)
    easy = generator.normal(0.8, 1.2, items)
    sets, names = _draw_slices(generator, codes, operations, [*_PREDICATES[:planted], *[_DECOY_PREDICATES] * decoys])
    reference, candidate = easy.copy(), easy.copy()
    for members in sets[planted:]:
        reference[members] -= decoy_drop
        candidate[members] -= decoy_drop
    for members in sets[:planted]:
        candidate[members] -= drop
    family = np.arange(items) // cluster_size
    if cluster_spread:
        candidate += generator.normal(0, cluster_spread, family.max() + 1)[family]
    ids = [f"item-{number:06d}" for number in range(items)]
    labels = {axis: [f"{axis[0]}{value}" for value in column] for axis, column in codes.items()}
    labels["solving_operation"] = [[f"o{value}" for value in np.flatnonzero(row)] for row in operations]
    return Planted(
        pl.DataFrame({"item_id": ids, "cluster_id": [f"family-{number}" for number in family]}),
        pl.DataFrame({"record_id": ids, "status": ["ok"] * items, **{axis: labels[axis] for axis in _AXES}}),
        _samples(generator, ids, candidate, samples, "candidate"),
        _samples(generator, ids, reference, samples, "reference"),
        _slices(ids, sets[:planted], names[:planted]),
        _slices(ids, sets[planted:], names[planted:]),
    )


def _zipf(size: int) -> NDArray[np.float64]:
    weights = 1 / np.arange(1, size + 1) ** _SKEW
    return weights / weights.sum()


def _operations(generator: np.random.Generator, items: int) -> NDArray[np.bool_]:
    """One to three different operations an item, drawn by their frequencies (Gumbel top-k)."""
    size = _AXES["solving_operation"]
    keys = np.log(_zipf(size)) + generator.gumbel(size=(items, size))
    rank = np.argsort(np.argsort(-keys, axis=1), axis=1)
    return rank < generator.integers(1, 4, items)[:, None]


def _draw_slices(generator, codes, operations, predicates) -> tuple[list[NDArray[np.bool_]], list[str]]:
    """Item sets of conjunctions, each near a size drawn evenly from the range (a single operation may be larger)."""
    sets: list[NDArray[np.bool_]] = []
    names: list[str] = []
    for count in predicates:
        wanted = generator.uniform(_SMALLEST, _LARGEST)
        tries = [_conjunction(generator, codes, operations, count) for _ in range(400)]
        fitting = [
            (abs(members.sum() - wanted), name, members)
            for name, members in tries
            if members.sum() >= _SMALLEST
            and (count == 1 or members.sum() <= _LARGEST * max(1.0, len(members) / 3000))
            and all((members & other).sum() <= _OVERLAP * min(members.sum(), other.sum()) for other in sets)
        ]
        if not fitting:
            raise ValueError(f"no conjunction of {count} predicates fits; use more items or fewer slices")
        _, name, members = min(fitting, key=lambda found: found[:2])
        sets.append(members)
        names.append(name)
    return sets, names


def _conjunction(generator, codes, operations, count: int) -> tuple[str, NDArray[np.bool_]]:
    """A random conjunction that some item satisfies: one operation and count - 1 other labels."""
    item = generator.integers(len(operations))
    operation = generator.choice(np.flatnonzero(operations[item]))
    members = operations[:, operation].copy()
    short = {"background_condition": "bg", "task_type": "task", "output_constraint": "out"}
    chosen = sorted(generator.choice(list(codes), count - 1, replace=False), key=list(short).index)
    parts = [f"op=o{operation}"]
    for axis in chosen:
        members &= codes[axis] == codes[axis][item]
        parts.append(f"{short[axis]}={axis[0]}{codes[axis][item]}")
    return "&".join(parts), members


def _samples(generator, ids: list[str], logit: NDArray[np.float64], samples: int, run: str) -> pl.DataFrame:
    right = generator.random((len(ids), samples)) < special.expit(logit)[:, None]
    return pl.DataFrame(
        {
            "item_id": np.repeat(ids, samples),
            "run": [run] * (len(ids) * samples),
            "sample_index": np.tile(np.arange(samples), len(ids)),
            "score": right.astype(np.float64).ravel(),
        }
    )


def _slices(ids: list[str], sets: list[NDArray[np.bool_]], names: list[str]) -> pl.DataFrame:
    members = [[ids[at] for at in np.flatnonzero(inside)] for inside in sets]
    schema = {"slice_id": pl.String, "items": pl.Int64, "item_ids": pl.List(pl.String)}
    return pl.DataFrame({"slice_id": names, "items": [len(row) for row in members], "item_ids": members}, schema=schema)


def recovery_of(found: list[list[str]], truth: list[list[str]]) -> dict[str, float]:
    """How well found item sets match planted ones.

    Returns:
        recall: share of planted sets with a found one of Jaccard similarity at least .5; precision: the reverse;
        item_f1: F1 of all found against all planted items (as EvalTree). NaN where there is nothing to divide by.

    >>> recovery_of([["a", "b"]], [["a", "b", "c"], ["x"]])
    {'recall': 0.5, 'precision': 1.0, 'item_f1': 0.6666666666666666}
    """
    sets, planted = [set(row) for row in found], [set(row) for row in truth]

    def alike(one: set, others: list[set]) -> bool:
        return any(len(one & other) >= 0.5 * len(one | other) for other in others)

    every, target = set().union(*sets), set().union(*planted)
    both = len(every) + len(target)
    return {
        "recall": float(np.mean([alike(row, sets) for row in planted])) if planted else float("nan"),
        "precision": float(np.mean([alike(row, planted) for row in sets])) if sets else float("nan"),
        "item_f1": 2 * len(every & target) / both if both else float("nan"),
    }
