"""One label out of several: how the votes of a panel are merged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

from annotator.taxonomy import AXES, MAX_OPERATIONS


def merge_votes(votes: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """The label that most of the votes support, and the share of votes behind its least supported axis.

    Args:
        votes: labels of one record, all with the same fields, in an order that does not depend on who answered first.

    A field with one value gets the value with the most votes; of several with equally many, the one whose first vote
    comes first in `votes`. A field with a list gets every member that more than half of the votes name, or, if there is
    none, the best of them; best is who has most votes, then who stands further in front on average, then whose first
    vote comes first. At most three are kept, best first. The evidence is that of the vote that agrees with the merged
    label in most fields, the first of several.

    >>> merge_votes([{"evidence": "p", "task_type": "a"}, {"evidence": "q", "task_type": "b"}] * 2)[0]
    {'evidence': 'p', 'task_type': 'a'}
    """
    merged: dict[str, Any] = {}
    shares = [1.0]
    for name, value in votes[0].items():
        if name == "evidence":
            merged[name] = ""
            continue
        merge = _members if isinstance(value, list) else _value
        merged[name], share = merge([vote[name] for vote in votes])
        if name in AXES:
            shares.append(share)
    if "evidence" in merged:
        agreeing = [sum(vote[name] == merged[name] for name in merged if name != "evidence") for vote in votes]
        merged["evidence"] = votes[agreeing.index(max(agreeing))]["evidence"]
    return merged, min(shares)


def _value(votes: Sequence[Hashable]) -> tuple[Any, float]:
    counts: dict[Any, int] = defaultdict(int)  # keeps the order of first votes, and max() takes the first of equals
    for value in votes:
        counts[value] += 1
    chosen = max(counts, key=counts.__getitem__)
    return chosen, counts[chosen] / len(votes)


def _members(votes: Sequence[list[Any]]) -> tuple[list[Any], float]:
    places: dict[Any, list[int]] = defaultdict(list)
    for members in votes:
        for place, member in enumerate(members):
            places[member].append(place)
    best_first = sorted(places, key=lambda member: (-len(places[member]), sum(places[member]) / len(places[member])))
    kept = [member for member in best_first if 2 * len(places[member]) > len(votes)][:MAX_OPERATIONS] or best_first[:1]
    return kept, min(len(places[member]) for member in kept) / len(votes)
