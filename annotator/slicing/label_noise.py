"""Would a slice still pass if the judge had erred as often as it does? Labels redrawn at its known error rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from annotator.fingerprint import fingerprint
from annotator.slicing.explain_away import Explained, Terms, partial_tests
from annotator.slicing.lattice import Conjunction, Lattice
from annotator.slicing.significance import Floats, cluster_scale
from annotator.taxonomy import AXES

ASSUMED_ERROR = 0.1  # of each label, where no agreement with gold labels is given
_MOST_DRAWS, _FEWEST_DRAWS, _WORK = 50, 10, 250_000  # items x draws: 50 up to 5,000 items, 10 from 25,000 on


def label_fragility(
    labels: pl.DataFrame,
    lattice: Lattice,
    differences: Floats,
    terms: Terms,
    found: Explained,
    *,
    seed_from: str,
    clusters: NDArray[np.integer] | None = None,
    agreement: Mapping[str, Any] | None = None,
) -> Floats:
    """For each accepted slice, the share of redrawn label tables under which its verdict falls.

    Every label is wrong with probability 1 - precision of its value (from `agreement`, else `ASSUMED_ERROR`), and is
    then replaced by a value that it is confused with, in proportion to the confusions listed, else to how frequent
    values are. A verdict holds if the items that now fit the description, or that of the wider set by which it passed,
    still reach their bar given the other slices. The labels read are noisy already, so this errs towards "fragile".

    Args:
        labels: the four axes, one row an item, in the lattice's column order.
        agreement: what `annotator.agreement.agree(labels, gold)` gives.
    """
    if not found.accepted:
        return np.zeros(0)
    noise = [_Noise.of(axis, labels[axis].to_list(), ((agreement or {}).get("axes") or {}).get(axis)) for axis in AXES]
    own = [slice_.row for slice_ in found.accepted]
    tested = [slice_.tested for slice_ in found.accepted]
    conjunctions = [lattice.conjunctions[row] for row in (*own, *tested)]
    scale = cluster_scale(lattice.members, differences, clusters)[[*own, *tested]]
    generator = np.random.default_rng(int(fingerprint([seed_from, "labels"])[:16], 16))
    draws = min(_MOST_DRAWS, max(_FEWEST_DRAWS, _WORK // len(differences)))
    fallen = np.zeros(len(own))
    for _ in range(draws):
        redrawn = _fitting(conjunctions, noise, [each.draw(generator) for each in noise], len(differences))
        partial = partial_tests(redrawn, differences, terms, scale=scale)
        for at in range(len(own)):
            t = partial.look(tuple(other for other in range(len(own)) if other != at)).t
            fallen[at] += not (t[at] >= found.bars[own[at]] or t[len(own) + at] >= found.bars[tested[at]])
    return fallen / draws


@dataclass(frozen=True, slots=True)
class _Noise:
    """Labels of one axis, one row a (item, value) pair, and how they err.

    wrong: probability of each value to be wrong. instead: cumulative distribution of what it should be (rows: values).
    """

    values: list[str]
    items: NDArray[np.int64]
    codes: NDArray[np.int64]
    wrong: Floats
    instead: Floats

    @classmethod
    def of(cls, axis: str, column: Sequence[Any], measured: Mapping[str, Any] | None) -> _Noise:
        told = [[value] if isinstance(value, str) else sorted(set(value or ())) for value in column]
        values = sorted({value for row in told for value in row})
        position = {value: at for at, value in enumerate(values)}
        items = np.repeat(np.arange(len(told)), [len(row) for row in told])
        codes = np.array([position[value] for row in told for value in row], dtype=np.int64)
        often = np.bincount(codes, minlength=len(values)).astype(np.float64)
        wrong, instead = _errors(values, often, measured or {})
        return cls(values, items, codes, wrong, np.cumsum(instead, axis=1))

    def draw(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """The codes of one redrawn table."""
        hit = np.flatnonzero(generator.random(len(self.codes)) < self.wrong[self.codes])
        codes = self.codes.copy()
        codes[hit] = (self.instead[codes[hit]] <= generator.random(len(hit))[:, None]).sum(axis=1)
        return codes


def _errors(values: list[str], often: Floats, measured: Mapping[str, Any]) -> tuple[Floats, Floats]:
    """Error probability of each value, and the distribution of what it should have been (rows sum to 1)."""
    if len(values) < 2:  # nothing to be confused with
        return np.zeros(len(values)), np.ones((len(values), len(values)))
    precision = {row["value"]: row["precision"] for row in measured.get("values") or [] if row.get("predicted")}
    agreed = measured.get("agreement")
    usual = ASSUMED_ERROR if agreed is None else 1 - agreed
    wrong = np.array([usual if precision.get(value) is None else 1 - precision[value] for value in values])
    position = {value: at for at, value in enumerate(values)}
    instead = np.zeros((len(values), len(values)))
    for row in measured.get("confusions") or []:
        if row["label"] in position and row["reference"] in position and row["label"] != row["reference"]:
            instead[position[row["label"]], position[row["reference"]]] += row["records"]
    unknown = instead.sum(axis=1) == 0
    instead[unknown] = often
    np.fill_diagonal(instead, 0.0)
    return wrong, instead / instead.sum(axis=1, keepdims=True)


def _fitting(conjunctions: list[Conjunction], noise: list[_Noise], drawn: list[NDArray], items: int) -> Lattice:
    """The items that fit each description under the redrawn labels."""
    fits: dict[tuple[str, str], NDArray[np.bool_]] = {}
    for axis, each, codes in zip(AXES, noise, drawn):
        for value in {value for conjunction in conjunctions for name, value in conjunction.predicates if name == axis}:
            fits[axis, value] = np.zeros(items, dtype=bool)
            fits[axis, value][each.items[codes == each.values.index(value)]] = True
    inside = np.stack([np.logical_and.reduce([fits[pair] for pair in each.predicates]) for each in conjunctions])
    members = sparse.csr_array(inside.astype(np.float64))
    return Lattice(conjunctions, members, np.diff(members.indptr).astype(np.int64))


def rates(agreement: Mapping[str, Any] | None) -> dict[str, float]:
    """The share of wrong labels on each axis that was reckoned with."""
    axes = (agreement or {}).get("axes") or {}
    found = {axis: (axes.get(axis) or {}).get("agreement") for axis in AXES}
    return {axis: ASSUMED_ERROR if share is None else round(1 - share, 10) for axis, share in found.items()}
