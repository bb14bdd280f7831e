"""Questions of a few words, which quote somebody only where they stand alone: as lines of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from annotator.decontamination.alignment import Part, Quote
from annotator.decontamination.ngrams import Words, ngrams


class WholeLines:
    """Parts of a few words each, found where a line begins with their first word and a line ends with their last."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._by_length: list[tuple[int, np.ndarray, list[Part]]] = []
        for length in sorted({len(part.words) for part in parts}):
            same = [part for part in parts if len(part.words) == length]
            keys = _runs(np.stack([part.words for part in same]))
            order = np.argsort(keys, kind="stable")
            self._by_length.append((length, keys[order], [same[k] for k in order.tolist()]))

    def quotes(self, words: Words) -> Iterator[tuple[int, Quote]]:
        """(text, quote) for every part that stands alone in some text of the batch, once a text."""
        if not len(words) or not self._by_length:
            return
        begins = np.ones(len(words), dtype=bool)
        begins[1:] = (words.line[1:] != words.line[:-1]) | (words.text[1:] != words.text[:-1])
        ends = np.append(begins[1:], True)  # few words begin a line, so only their runs are hashed
        seen = set()
        for length, keys, parts in self._by_length:
            at = np.flatnonzero(begins[: max(len(words) - length + 1, 0)] & ends[length - 1 :])
            at = at[words.text[at] == words.text[at + length - 1]]
            runs = _runs(words.hashes[at[:, None] + np.arange(length)])
            low, high = np.searchsorted(keys, runs, "left"), np.searchsorted(keys, runs, "right")
            for k in np.flatnonzero(high > low).tolist():
                text, first = int(words.text[at[k]]), int(at[k])
                for place in range(low[k], high[k]):
                    if (text, place, length) not in seen:
                        seen.add((text, place, length))
                        yield text, Quote(parts[place], "exact", 1.0, first, first + length - 1)


def _runs(hashes: np.ndarray) -> np.ndarray:
    """One hash for each row of words."""
    rows, length = hashes.shape
    owner = np.repeat(np.arange(rows, dtype=np.int32), length)
    return ngrams(Words(hashes.ravel(), owner, owner, owner, owner), length)[0]
