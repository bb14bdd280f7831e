"""Seeds: short runs of words of item parts, looked up in texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from annotator.decontamination.ngrams import Words, ngrams

_POSTINGS = 64  # a seed of more places is a template; its first places stand for all
_FILTER_BITS = 24  # at most: two tables of 16 MB let one foreign run in 256 pass, of a million seeds


class Seeds:
    """The runs of `words` words of some parts, each with the places where it stands.

    Args:
        parts: hashes of the words of each part.
        chosen: which of them to take; numbers in `hits` refer to all parts.
        words: length of a seed.
        common: seeds that stand in more places than this are left out, as phrases of the trade.
    """

    def __init__(self, parts: Sequence[np.ndarray], chosen: Sequence[int], *, words: int, common: int) -> None:
        self.words = words
        lengths = np.array([len(parts[k]) for k in chosen], dtype=np.int64)
        hashes = np.concatenate([parts[k] for k in chosen] or [np.zeros(0, dtype=np.uint64)])
        owner = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        begin = np.concatenate(([0], np.cumsum(lengths)))
        seeds, at = ngrams(Words(hashes, owner, owner, owner, owner), words)
        order = np.lexsort((at, seeds))
        keys, first, counts = np.unique(seeds[order], return_index=True, return_counts=True)
        kept = counts <= common
        self._keys, self._first = keys[kept], first[kept]
        self._counts = np.minimum(counts[kept], _POSTINGS)
        self._part = np.asarray(chosen, dtype=np.int64)[owner[at[order]]] if len(order) else order
        self._offset = at[order] - begin[owner[at[order]]]
        bits = min(_FILTER_BITS, max(1, len(self._keys)).bit_length() + 4)
        self._shifts = np.uint64(64 - bits), np.uint64(64 - 2 * bits)
        self._mask = np.uint64((1 << bits) - 1)
        self._filters = np.zeros((2, 1 << bits), dtype=bool)
        for shift, table in zip(self._shifts, self._filters, strict=True):
            table[(self._keys >> shift) & self._mask] = True

    def hits(self, runs: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where a seed stands in a part and a text: (word of the batch, part, word of the part), three equal arrays.

        Args:
            runs, at: as `ngrams` gives them for `words`.
        """
        maybe = np.flatnonzero(self._filters[0][runs >> self._shifts[0]])
        maybe = maybe[self._filters[1][(runs[maybe] >> self._shifts[1]) & self._mask]]
        if not len(maybe) or not len(self._keys):
            return (np.zeros(0, dtype=np.int64),) * 3
        found = np.minimum(np.searchsorted(self._keys, runs[maybe]), len(self._keys) - 1)
        true = self._keys[found] == runs[maybe]
        position, found = at[maybe[true]], found[true]
        counts = self._counts[found]
        posting = np.repeat(self._first[found] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        return np.repeat(position, counts), self._part[posting], self._offset[posting]
