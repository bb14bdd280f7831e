"""Expected gain per token of a document: what its labels promise for the failing slices.

gain = sum over slices of share(slice) x affinity(slice, document), times quality and label confidence. The affinity
of a category counts only as far as the text carries its operation out (exercise), unless the rule says that text of
this kind teaches. Shares are of recoverable points and sum to 1, so a gain lies in 0..1 and has no unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from annotator.categories import Profiles
from annotator.errors import BadInput
from annotator.mapping import Rules
from annotator.matching.affinity import pooled


@dataclass(frozen=True, slots=True)
class Gains:
    """Gains by profile.

    slice_ids: the matched slices, sorted. shares: their shares of all recoverable points, summing to 1.
    gain: f64 per profile, before quality and confidence. home: the slice (index) that gains most; -1 for none.
    category: id of the category that gives most. helped: slice ids that gain, most first. rules: ids that say so.
    """

    slice_ids: list[str]
    shares: np.ndarray
    gain: np.ndarray
    home: np.ndarray
    category: list[str | None]
    helped: list[list[str]]
    rules: list[list[str]]


def gains(matches: pl.DataFrame, found: Profiles, rules: Rules) -> Gains:
    """The gain of every profile.

    Args:
        matches: MATCHES. Its weights are recoverable points x affinity; if all are 0, slices count alike.
        found: the documents' profiles under the same rules.
    """
    slice_ids = sorted(matches["slice_id"].unique().to_list())
    shares = _shares(matches, slice_ids)
    index = {category.id: k for k, category in enumerate(found.categories)}
    exercised = np.array([rules.exercise.get(grade or "", 1.0) for grade in found.exercise])
    free = np.array([guard is None for guard in found.guards], dtype=bool)
    rows = len(found.members)
    total, most = np.zeros(rows), np.zeros(rows)
    home = np.full(rows, -1, dtype=np.int64)
    per_category = np.zeros(found.members.shape)
    helped: list[list[tuple[float, str]]] = [[] for _ in range(rows)]
    reasons: list[dict[str, None]] = [{} for _ in range(rows)]
    by_slice = {key[0]: part for key, part in matches.partition_by("slice_id", as_dict=True).items()}
    for k, slice_id in enumerate(slice_ids):
        pull, practised, rule_ids = _pulls(by_slice[slice_id], index, len(found.categories), rules)
        factor = np.where(practised[found.members], exercised[:, None], 1.0)
        affinity = np.where(free[:, None], pull[found.members] * factor, 0.0)
        mine = shares[k] * pooled(affinity, rules)
        total += mine
        per_category += shares[k] * affinity * np.asarray(rules.position)
        better = mine > most
        home[better], most[better] = k, mine[better]
        for profile in np.flatnonzero(mine > 0).tolist():
            helped[profile].append((-round(float(mine[profile]), 12), slice_id))
            for place in np.flatnonzero(affinity[profile]):
                reasons[profile].update(dict.fromkeys(rule_ids[int(found.members[profile, place])]))
    strongest = found.members[np.arange(rows), per_category.argmax(axis=1)] if rows else np.zeros(0, dtype=int)
    return Gains(
        slice_ids=slice_ids,
        shares=shares,
        gain=np.round(total, 9),
        home=home,
        category=[found.categories[k].id if k >= 0 else None for k in strongest],
        helped=[[slice_id for _, slice_id in sorted(pairs)] for pairs in helped],
        rules=[sorted(names) for names in reasons],
    )


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


def _pulls(
    matched: pl.DataFrame, index: dict[str, int], categories: int, rules: Rules
) -> tuple[np.ndarray, np.ndarray, dict[int, list[str]]]:
    """Affinity of each category (the last entry, for no operation, is 0), and whether exercise counts for it."""
    pull, practised = np.zeros(categories + 1), np.zeros(categories + 1, dtype=bool)
    rule_ids: dict[int, list[str]] = {}
    directions = {rule.id: rule.direction for rule in rules.rules}
    for category_id, affinity, named in matched.select("category_id", "affinity", "rule_ids").iter_rows():
        if not 0 <= affinity <= 1:
            raise BadInput(f"an affinity of {affinity} in {category_id}", where="matches", remedy="It lies in 0..1.")
        k = index.get(category_id)
        if k is not None:
            pull[k], rule_ids[k] = affinity, named
            practised[k] = any(directions.get(name) == "exercises" for name in named)
    return pull, practised, rule_ids
