"""Expected gain per token of a document: what its labels promise for the failing slices.

gain = sum over slices of share(slice) x affinity(slice, document), times quality and label confidence. The affinity
of a category counts only as far as the text carries its operation out (exercise), unless the rule says that text of
this kind teaches. Shares are of recoverable points and sum to 1, so a gain lies in 0..1 and has no unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from annotator.errors import BadInput
from annotator.matching.affinity import pooled
from annotator.matching.profiles import Profiles
from annotator.rule_table import Rules


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why a document is wanted: the category that gives most, the slices helped (most first), the rules."""

    category_id: str | None
    slice_ids: list[str]
    rule_ids: list[str]


class Gains:
    """Gains by profile.

    slice_ids: the matched slices, sorted. shares: their shares of all recoverable points, summing to 1.
    gain: f64 per profile, before quality and confidence. home: the slice (index) that gains most; -1 for none.
    """

    def __init__(self, matches: pl.DataFrame, found: Profiles, rules: Rules) -> None:
        """Work out the gain of every profile.

        Args:
            matches: MATCHES. Its weights are recoverable points x affinity; if all are 0, slices count alike.
            found: the documents' profiles under the same rules.
        """
        self.slice_ids = sorted(matches["slice_id"].unique().to_list())
        self.shares = _shares(matches, self.slice_ids)
        self._found, self._rules = found, rules
        self._pulls = _Pulls(matches, found, rules, self.slice_ids)
        self._exercised = np.array([rules.exercise.get(grade or "", 1.0) for grade in found.exercise])
        self._free = np.array([guard is None for guard in found.guards], dtype=bool)
        rows = len(found.members)
        total, most = np.zeros(rows), np.zeros(rows)
        self.home = np.full(rows, -1, dtype=np.int64)
        for k, share in enumerate(self.shares):
            mine = share * pooled(self._affinity(k), rules)
            total += mine
            better = mine > most
            self.home[better], most[better] = k, mine[better]
        self.gain = np.round(total, 9)

    def _affinity(self, k: int) -> np.ndarray:
        """Affinities of one slice with the categories of all profiles, shape (profiles, places)."""
        members = self._found.members
        factor = np.where(self._pulls.practised[k][members], self._exercised[:, None], 1.0)
        return np.where(self._free[:, None], self._pulls.affinity[k][members] * factor, 0.0)

    def reasons(self, profile: int) -> Reasons:
        """Why documents of one profile are wanted."""
        members = self._found.members[profile]
        factor = np.where(self._pulls.practised[:, members], self._exercised[profile], 1.0)
        affinity = self._pulls.affinity[:, members] * factor * self._free[profile]  # slices x places
        mine = np.round(self.shares * pooled(affinity, self._rules), 12)
        helped = sorted(np.flatnonzero(mine > 0).tolist(), key=lambda k: (-mine[k], k))
        pairs = zip(*np.nonzero(affinity), strict=True)
        rule_ids = {rule for k, place in pairs for rule in self._pulls.rule_ids[k, members[place]]}
        per_place = (self.shares @ affinity) * np.asarray(self._rules.position[: len(members)])
        strongest = members[int(per_place.argmax())]
        category_id = self._found.categories[strongest].id if strongest >= 0 else None
        return Reasons(category_id, [self.slice_ids[k] for k in helped], sorted(rule_ids))


def _shares(matches: pl.DataFrame, slice_ids: list[str]) -> np.ndarray:
    if not slice_ids:
        return np.zeros(0)
    points = dict(
        matches.filter(pl.col("affinity") > 0)
        .group_by("slice_id")
        .agg((pl.col("weight") / pl.col("affinity")).max())
        .iter_rows()
    )
    weights = np.array([max(points.get(slice_id, 0.0), 0.0) for slice_id in slice_ids])
    if not weights.any():
        weights = np.ones(len(slice_ids))
    # Rounded, so that a table of weights times a constant gives the same shares to the last bit.
    return np.round(weights / weights.sum(), 12)


class _Pulls:
    """Affinities of slices (rows) and categories (columns; the last one, for no operation, is 0), with their rules.

    practised: whether exercise counts for it.
    """

    def __init__(self, matches: pl.DataFrame, found: Profiles, rules: Rules, slice_ids: list[str]) -> None:
        columns = {category.id: k for k, category in enumerate(found.categories)}
        rows = {slice_id: k for k, slice_id in enumerate(slice_ids)}
        self.affinity = np.zeros((len(rows), len(columns) + 1))
        self.practised = np.zeros(self.affinity.shape, dtype=bool)
        self.rule_ids: Mapping[tuple[int, int], list[str]] = {}
        exercises = {rule.id for rule in rules.rules if rule.direction == "exercises"}
        wanted = matches.select("slice_id", "category_id", "affinity", "rule_ids")
        for slice_id, category_id, affinity, named in wanted.iter_rows():
            if not 0 <= affinity <= 1:
                what = f"an affinity of {affinity} in {category_id}"
                raise BadInput(what, where="matches", remedy="It lies in 0..1.")
            if category_id in columns:
                at = rows[slice_id], columns[category_id]
                self.affinity[at], self.rule_ids[at] = affinity, named
                self.practised[at] = not exercises.isdisjoint(named)
