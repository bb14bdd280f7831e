"""Finding two rows with one id among many millions, in little memory."""

from __future__ import annotations

import numpy as np
import polars as pl

from annotator.errors import BadInput
from annotator.readers.shards import Shard

_ROW_BITS = 40


class SeenIds:
    """The ids read so far, over all shards of a command, as 64-bit hashes with their places.

    16 bytes an id and as much again while two levels are merged: 10 million ids take under 400 MB, where a Python set
    of strings takes over a gigabyte. Two different ids share a hash with a chance of n**2 / 2**65: 3e-6 for 10 million.
    """

    def __init__(self) -> None:
        self._shards: list[Shard] = []
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
        hashes = ids.hash(seed=1).to_numpy()
        places = rows.to_numpy().astype(np.uint64) | np.uint64((len(self._shards) - 1) << _ROW_BITS)
        order = np.argsort(hashes, kind="stable")
        hashes, places = hashes[order], places[order]
        again = np.flatnonzero(hashes[1:] == hashes[:-1])
        if len(again):
            self._refuse(ids[int(order[again[0] + 1])], places[again[0] + 1], places[again[0]])
        for known, where in self._levels:
            at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            hits = np.flatnonzero(known[at] == hashes)
            if len(hits):
                first = hits[np.argmin(places[hits])]
                self._refuse(ids[int(order[first])], places[first], where[at[first]])
        if len(hashes):
            self._push(hashes, places)

    def _push(self, hashes: np.ndarray, places: np.ndarray) -> None:
        while self._levels and len(self._levels[-1][0]) < 2 * len(hashes):
            known, where = self._levels.pop()
            hashes, places = np.concatenate([known, hashes]), np.concatenate([where, places])
            order = np.argsort(hashes, kind="stable")
            hashes, places = hashes[order], places[order]
        self._levels.append((hashes, places))

    def _refuse(self, record_id: str, place: np.uint64, earlier: np.uint64) -> None:
        raise duplicate(record_id, self._place(place), self._place(earlier))

    def _place(self, place: np.uint64) -> str:
        return self._shards[int(place) >> _ROW_BITS].place(int(place) & ((1 << _ROW_BITS) - 1))


def duplicate(
    what: str, place: str, earlier: str, *, remedy: str = "Give each row an id of its own, or name another --column."
) -> BadInput:
    """The error for a second row with one id."""
    return BadInput(f"id {what!r} is there twice (first at {earlier})", where=place, remedy=remedy)
