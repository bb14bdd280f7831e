"""Finding two rows with one id among many millions, in little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from annotator.errors import BadInput
from annotator.readers.shards import Shard

if TYPE_CHECKING:
    import numpy as np

_ROW_BITS = 40
_FEW = 1 << 16  # so many ids do without numpy, whose import the first request of a run would have to wait for


class SeenIds:
    """The ids read so far, over all shards of a command, as 64-bit hashes with their places.

    16 bytes an id and as much again while two levels are merged: 10 million ids take under 400 MB, where a Python set
    of strings takes over a gigabyte. Two different ids share a hash with a chance of n**2 / 2**65: 3e-6 for 10 million.
    """

    def __init__(self) -> None:
        self._shards: list[Shard] = []
        self._few: dict[int, int] = {}  # hash -> place, of the first ids
        self._levels: list[tuple[np.ndarray, np.ndarray]] = []  # sorted hashes, places; each over twice the next

    def add(self, ids: pl.Series, rows: pl.Series, shard: Shard) -> None:
        """Remember some ids of a shard.

        Args:
            ids: str, without nulls.
            rows: i64, their rows in the shard.

        Raises:
            BadInput: naming both places, if an id was there already.
        """
        if not self._shards or self._shards[-1] != shard:
            self._shards.append(shard)
        first_place = (len(self._shards) - 1) << _ROW_BITS
        if not self._levels and len(self._few) + len(ids) <= _FEW:
            self._add_few(ids, rows, first_place)
        else:
            self._add_many(ids, rows, first_place)

    def _add_few(self, ids: pl.Series, rows: pl.Series, first_place: int) -> None:
        for position, (hashed, row) in enumerate(zip(ids.hash(seed=1).to_list(), rows.to_list(), strict=True)):
            place = first_place | row
            earlier = self._few.setdefault(hashed, place)
            if earlier != place:
                self._refuse(ids[position], place, earlier)

    def _add_many(self, ids: pl.Series, rows: pl.Series, first_place: int) -> None:
        import numpy as np

        if self._few:
            known = np.fromiter(self._few, np.uint64, len(self._few))
            order = np.argsort(known, kind="stable")
            self._push(known[order], np.fromiter(self._few.values(), np.uint64, len(self._few))[order])
            self._few = {}
        hashes = ids.hash(seed=1).to_numpy()
        places = rows.to_numpy().astype(np.uint64) | np.uint64(first_place)
        order = np.argsort(hashes, kind="stable")
        hashes, places = hashes[order], places[order]
        again = np.flatnonzero(hashes[1:] == hashes[:-1])
        if len(again):
            self._refuse(ids[int(order[again[0] + 1])], int(places[again[0] + 1]), int(places[again[0]]))
        for known, where in self._levels:
            at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            hits = np.flatnonzero(known[at] == hashes)
            if len(hits):
                first = hits[np.argmin(places[hits])]
                self._refuse(ids[int(order[first])], int(places[first]), int(where[at[first]]))
        if len(hashes):
            self._push(hashes, places)

    def _push(self, hashes: np.ndarray, places: np.ndarray) -> None:
        import numpy as np

        while self._levels and len(self._levels[-1][0]) < 2 * len(hashes):
            known, where = self._levels.pop()
            hashes, places = np.concatenate([known, hashes]), np.concatenate([where, places])
            order = np.argsort(hashes, kind="stable")
            hashes, places = hashes[order], places[order]
        self._levels.append((hashes, places))

    def _refuse(self, record_id: str, place: int, earlier: int) -> None:
        raise duplicate(record_id, self._place(place), self._place(earlier))

    def _place(self, place: int) -> str:
        return self._shards[place >> _ROW_BITS].place(place & ((1 << _ROW_BITS) - 1))


def duplicate(
    what: str, place: str, earlier: str, *, remedy: str = "Give each row an id of its own, or name another --column."
) -> BadInput:
    """The error for a second row with one id."""
    return BadInput(f"id {what!r} is there twice (first at {earlier})", where=place, remedy=remedy)
