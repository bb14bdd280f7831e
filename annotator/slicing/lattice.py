"""All descriptions of item sets that the four axes allow: conjunctions, one for each distinct set of items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from annotator.errors import BadInput

LARGEST_SHARE = 0.5  # more than half of the items are the benchmark, not a slice of it
_SHORT = {"solving_operation": "op", "background_condition": "bg", "task_type": "task", "output_constraint": "out"}


@dataclass(frozen=True, slots=True)
class Conjunction:
    """What the items of a slice have in common; None or () means any."""

    background_condition: str | None = None
    task_type: str | None = None
    solving_operation: tuple[str, ...] = ()
    output_constraint: str | None = None

    @property
    def predicates(self) -> frozenset[tuple[str, str]]:
        """(axis, value) pairs that all hold."""
        pairs = {("solving_operation", operation) for operation in self.solving_operation}
        for axis in ("background_condition", "task_type", "output_constraint"):
            value = getattr(self, axis)
            if value is not None:
                pairs.add((axis, value))
        return frozenset(pairs)

    @property
    def slice_id(self) -> str:
        """A stable name without spaces.

        >>> Conjunction("math.number_theory", solving_operation=("arithmetic", "divisibility_modular")).slice_id
        'op=arithmetic+divisibility_modular&bg=math.number_theory'
        """
        parts = {
            "solving_operation": "+".join(sorted(self.solving_operation)),
            "background_condition": self.background_condition,
            "task_type": self.task_type,
            "output_constraint": self.output_constraint,
        }
        return "&".join(f"{_SHORT[axis]}={'_'.join(value.split())}" for axis, value in parts.items() if value)

    @property
    def order(self) -> tuple[int, int, str]:
        """Sorts descriptions of one item set, best first: the shortest, then those that name an operation.

        Operations come first among equals because they are what corpus categories are matched by.
        """
        return len(self.predicates), -len(self.solving_operation), self.slice_id


def described_by(slice_id: str) -> Conjunction:
    """The conjunction that a slice_id names.

    Raises:
        BadInput: it has another form than "op=...&bg=...&task=...&out=...".

    >>> described_by("op=deduction&bg=formal.logic").background_condition
    'formal.logic'
    """
    axes = {short: axis for axis, short in _SHORT.items()}
    named: dict[str, Any] = {}
    for part in slice_id.split("&"):
        short, sign, value = part.partition("=")
        if short not in axes or not sign or not value:
            remedy = "Write it as in the column slice_id, for example op=deduction&bg=formal.logic."
            raise BadInput(f"{slice_id!r} does not describe a slice", where="slice_id", remedy=remedy)
        named[axes[short]] = tuple(value.split("+")) if short == "op" else value
    return Conjunction(**named)


@dataclass(frozen=True, slots=True)
class Lattice:
    """The candidate slices of some items.

    conjunctions: one for each distinct item set, in the order of their slice_id.
    members: sparse matrix, one row a conjunction, one column an item, 1.0 where the item belongs.
    sizes: items of each conjunction.
    """

    conjunctions: list[Conjunction]
    members: sparse.csr_array
    sizes: NDArray[np.int64]

    def items_of(self, row: int) -> NDArray[np.int32]:
        """Column numbers of the items of one conjunction, ascending."""
        return self.members.indices[self.members.indptr[row] : self.members.indptr[row + 1]]

    def at_least(self, items: int) -> Lattice:
        """Without the conjunctions of fewer items."""
        large = np.flatnonzero(self.sizes >= items)
        return Lattice([self.conjunctions[row] for row in large], self.members[large], self.sizes[large])

    def overlap(self, columns: NDArray[np.integer]) -> NDArray[np.float64]:
        """Jaccard similarity of every conjunction with one set of items."""
        chosen = np.zeros(self.members.shape[1])
        chosen[columns] = 1.0
        both = self.members @ chosen
        return both / np.maximum(self.sizes + len(columns) - both, 1)


def build_lattice(labels: pl.DataFrame, *, min_items: int) -> Lattice:
    """Every conjunction of at most one value of background, task and constraint and at most two operations.

    Args:
        labels: one row an item: background_condition, task_type, solving_operation list[str], output_constraint.
            A null value belongs to no conjunction that names its axis.
        min_items: the fewest items inside a conjunction; at most half of all items may be.

    An item lies in at most 56 conjunctions (2 x 2 x 2 choices of single values, 7 of up to three operations), so they
    are listed and counted outright. Conjunctions of one and the same item set keep the first description by
    `Conjunction.order` (closed sets, Pasquier et al. 1999).
    """
    singles = [_coded(labels[axis].to_list()) for axis in ("background_condition", "task_type", "output_constraint")]
    operations, items, operation_codes = _operation_choices(labels["solving_operation"].to_list())
    bases = [len(values) + 1 for values, _ in singles]
    keys, columns = [], []
    for named in range(8):  # which of the three single-valued axes the conjunction names
        key = operation_codes.copy()
        there = np.ones(len(items), dtype=bool)
        for axis, (_, codes) in enumerate(singles):
            key *= bases[axis]
            if named >> axis & 1:
                key += codes[items]
                there &= codes[items] > 0
        keys.append(key[there])
        columns.append(items[there])
    key, column = np.concatenate(keys), np.concatenate(columns)
    found, row, sizes = np.unique(key, return_inverse=True, return_counts=True)
    kept = (sizes >= min_items) & (sizes <= LARGEST_SHARE * labels.height) & (found != 0)
    conjunctions = [_decoded(code, singles, bases, operations) for code in found[kept]]
    renumber = np.cumsum(kept) - 1
    inside = kept[row]
    members = sparse.csr_array(
        (np.ones(inside.sum()), (renumber[row[inside]], column[inside])), shape=(len(conjunctions), labels.height)
    )
    members.sort_indices()
    return _closed(conjunctions, members)


def _coded(values: Sequence[str | None]) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct values in order, and 1 + position of each row's value (0 for null)."""
    distinct = sorted({value for value in values if value is not None})
    position = {value: code for code, value in enumerate(distinct, start=1)}
    return distinct, np.array([position.get(value, 0) for value in values], dtype=np.int64)


def _operation_choices(
    lists: Sequence[Sequence[str] | None],
) -> tuple[list[tuple[str, ...]], NDArray[np.int64], NDArray[np.int64]]:
    """Every choice of up to two operations that occurs, and one (item, choice) pair a row; choice 0 is "any"."""
    known: dict[tuple[str, ...], int] = {(): 0}
    by_labels: dict[tuple[str, ...], list[int]] = {}
    items, codes = [], []
    for item, row in enumerate(lists):
        labels = tuple(sorted(set(row or ())))
        if labels not in by_labels:
            pairs = [(a, b) for at, a in enumerate(labels) for b in labels[at + 1 :]]
            choices = [(), *((one,) for one in labels), *pairs]
            by_labels[labels] = [known.setdefault(choice, len(known)) for choice in choices]
        items.append(np.full(len(by_labels[labels]), item, dtype=np.int64))
        codes.append(np.array(by_labels[labels], dtype=np.int64))
    return list(known), np.concatenate(items), np.concatenate(codes)


def _decoded(code: int, singles: list, bases: list[int], operations: list[tuple[str, ...]]) -> Conjunction:
    values: list[str | None] = []
    for (names, _), base in zip(reversed(singles), reversed(bases)):
        code, position = divmod(int(code), base)
        values.append(names[position - 1] if position else None)
    constraint, task, background = values
    return Conjunction(background, task, operations[code], constraint)


def _closed(conjunctions: list[Conjunction], members: sparse.csr_array) -> Lattice:
    """One conjunction for each distinct item set, in the order of their slice_id.

    Sets are told apart by size and a 128-bit sum of item hashes, so that millions of memberships need no comparison.
    """
    sizes = np.diff(members.indptr).astype(np.int64)
    generator = np.random.default_rng(0)  # fixed: which hashes are drawn must not change with the data
    hashes = generator.integers(0, 2**63, size=(2, members.shape[1]), dtype=np.uint64)
    starts = members.indptr[:-1]
    sums = [np.add.reduceat(part[members.indices], starts) if len(starts) else part[:0] for part in hashes]
    best: dict[tuple[int, int, int], int] = {}
    for row, mark in enumerate(zip(sizes.tolist(), sums[0].tolist(), sums[1].tolist())):
        other = best.get(mark)
        if other is None or conjunctions[row].order < conjunctions[other].order:
            best[mark] = row
    chosen = sorted(best.values(), key=lambda row: conjunctions[row].slice_id)
    return Lattice([conjunctions[row] for row in chosen], members[chosen], sizes[chosen])
