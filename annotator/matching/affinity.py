"""The affinity of a slice and a corpus category, axis by axis.

With weight a and strength s of each axis, affinity = exp(sum a ln s / sum a). The operation is the gate: without a rule
from the slice's operation to the category the affinity is 0. A slice that names no operation has the first axis it does
name as its gate, which only equal or near values open.

Where a slice leaves background or task open, its items still have some. Given their labels, a category is compared with
that mix instead of with one value: the mean likeness to the items' values, the likest value counting 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from annotator.matching.profiles import Category, covers
from annotator.rule_table import CORE, GATE, SHORT, Rule, Rules

Mix = Mapping[str, Mapping[str, float]]  # axis -> value of a document -> strength


@dataclass(frozen=True, slots=True)
class Step:
    """One axis of an affinity: its weight, the strength, and the rules or near groups that gave it."""

    axis: str
    weight: float
    strength: float
    rule_ids: tuple[str, ...]
    open: bool


class Links:
    """Which rules cover which categories, and which categories each operation reaches."""

    def __init__(self, categories: Sequence[Category], rules: Rules) -> None:
        self.rules = rules
        self.covering = [[rule for rule in rules.rules if covers(rule.document, category)] for category in categories]
        self._reached: dict[str, set[int]] = {}
        for k, covering in enumerate(self.covering):
            for operation in {value for rule in covering for value in rule.slice.get(GATE, ())}:
                self._reached.setdefault(operation, set()).add(k)

    def reached(self, row: Mapping[str, Any]) -> Iterable[int]:
        """The categories that a slice may have an affinity with, by index."""
        if not row[GATE]:
            return range(len(self.covering))
        return sorted(set().union(*(self._reached.get(operation, ()) for operation in row[GATE])))


def steps(
    row: Mapping[str, Any],
    category: Category,
    rules: Rules,
    *,
    covering: Sequence[Rule] | None = None,
    mix: Mix | None = None,
) -> list[Step]:
    """The axes that count for a slice, the gate first.

    Args:
        row: the axes of the slice, null for any.
        covering: the rules whose document side the category shows, if known already.
        mix: for axes that the slice leaves open, see `mix_of`.
    """
    if covering is None:
        covering = [rule for rule in rules.rules if covers(rule.document, category)]
    named = [axis for axis in (*CORE, "output_constraint") if row.get(axis) and rules.weights[axis] > 0]
    found = [_step(axis, axis == named[0], row, category, rules, covering) for axis in named]
    for axis, strengths in (mix or {}).items():
        if axis not in named and named and rules.weights[axis] > 0:
            strength = strengths.get(category.value(axis) or "", rules.unrelated[axis])
            found.append(Step(axis, rules.weights[axis], strength, (f"mix-{SHORT[axis]}",), True))
    return found


def combined(trail: Sequence[Step]) -> tuple[float, tuple[str, ...]]:
    """The weighted geometric mean of the strengths; 0 if a gate is shut or nothing pulls."""
    total = sum(step.weight for step in trail)
    if not total or not all(step.open for step in trail):
        return 0.0, ()
    mean = math.exp(sum(step.weight * math.log(max(step.strength, 1e-9)) for step in trail) / total)
    return round(min(mean, 1.0), 6), tuple(dict.fromkeys(rule for step in trail for rule in step.rule_ids))


def pooled(affinities: np.ndarray, rules: Rules) -> np.ndarray:
    """The affinity of documents from those of their categories (last axis: first, second, third operation).

    1 - prod(1 - w a): a second operation that also matches adds to the first, and nothing exceeds 1.
    """
    return 1.0 - np.prod(1.0 - affinities * np.asarray(rules.position[: affinities.shape[-1]]), axis=-1)


def mix_of(row: Mapping[str, Any], item_labels: pl.DataFrame, rules: Rules) -> Mix:
    """What the items of a slice are like on the axes that it leaves open.

    Args:
        row: a row of SLICES; `item_ids` says which items.
        item_labels: LABELS of items.
    """
    mine = item_labels.filter(pl.col("record_id").is_in(row["item_ids"] or []) & (pl.col("status") != "failed"))
    mix: dict[str, dict[str, float]] = {}
    for axis in CORE[1:]:
        if row[axis] is not None or not mine.height or axis not in rules.category:
            continue
        shares = dict(mine.group_by(axis).len().filter(pl.col(axis).is_not_null()).sort(axis).iter_rows())
        near = {value for group in rules.near if group.axis == axis for value in group.values}
        likeness = {
            theirs: sum(share * rules.likeness(axis, ours, theirs)[0] for ours, share in shares.items())
            for theirs in sorted({*shares, *near})
        }
        most = max(likeness.values(), default=0.0)
        mix[axis] = {value: round(strength / most, 6) for value, strength in likeness.items()}
    return mix


def _step(
    axis: str, gate: bool, row: Mapping[str, Any], category: Category, rules: Rules, covering: Sequence[Rule]
) -> Step:
    weight = rules.weights[axis]
    if axis == GATE:
        best = [_best_rule(axis, operation, row, category, covering) for operation in row[GATE]]
        strength = sum(rule.strength for rule in best if rule) / len(best)
        return Step(axis, weight, strength, tuple(rule.id for rule in best if rule), any(best))
    rule = _best_rule(axis, row[axis], row, category, covering)
    theirs = category.value(axis)
    strength, near = rules.likeness(axis, row[axis], theirs)
    if rule is not None and rule.strength > strength:
        return Step(axis, weight, rule.strength, (rule.id,), True)
    is_open = not gate or theirs == row[axis] or near is not None or rule is not None
    same = (f"same-{SHORT[axis]}",) if gate and theirs == row[axis] else ()
    return Step(axis, weight, strength, (near,) if near else same, is_open)


def _best_rule(
    axis: str, value: str, row: Mapping[str, Any], category: Category, covering: Sequence[Rule]
) -> Rule | None:
    """The strongest rule of that axis which holds for the slice; of equals the first in the file."""
    holding = (
        rule
        for rule in covering
        if rule.axis == axis
        and value in rule.slice[axis]
        and all(_names(row, other, wanted) for other, wanted in rule.slice.items() if other != axis)
        and all(row.get(other) in (None, category.value(other)) for other in rule.bound)
    )
    return max(holding, key=lambda rule: rule.strength, default=None)


def _names(row: Mapping[str, Any], axis: str, wanted: tuple[str, ...]) -> bool:
    value = row.get(axis)
    return any(one in wanted for one in (value if isinstance(value, list) else [value]))
