"""Where texts quote benchmark items: 8-word seeds, extended to weighted coverage of the item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from annotator.ngrams import Words, ngrams, split_words

SEED_WORDS = 8
LONG_RUN = 13  # Brown et al. (2020), appendix C: a shared run of 13 words is a collision
SHORT_PART = 20  # parts of fewer words count only if they are there as a whole
SHORTEST_RUN = 3  # matched runs of fewer words are chance
LEAST_NEWS = 6.0  # below, a run is a counting sequence, a matrix of zeros or the like, which quotes nobody
_POSTINGS = 8  # a seed of more parts is a template; its first parts stand for all
_SOLUTIONS = ("solution", "rationale", "explanation", "reasoning", "canonical_solution")
_FILTER_BITS = 24


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an item.

    name: question, choices, answer or solution. words: hashes. weight: how rare each word is among the items.
    news: how much each word adds to those just before it (see `_news`).
    """

    item_id: str
    name: str
    words: np.ndarray
    weight: np.ndarray
    news: np.ndarray


@dataclass(frozen=True, slots=True)
class Quote:
    """A part found in a text: words first..last of the batch, the share of its weight that is there, and the rule."""

    part: Part
    rule: str
    coverage: float
    first: int
    last: int


class ItemIndex:
    """All parts of all items, searchable.

    Attributes:
        parts: those of 8 words and more that say something.
        too_short: how many parts do not; they cannot be told from chance and are not looked for.
    """

    def __init__(self, items: pl.DataFrame) -> None:
        named = sorted(_parts(items))
        words = _joined([text for _, _, text in named])
        bounds = np.searchsorted(words.text, np.arange(len(named) + 1))
        weight, news = _weights(words, len(named)), _news(words)
        self.parts = [
            Part(item_id, name, words.hashes[low:high], weight[low:high], news[low:high])
            for (item_id, name, _), low, high in zip(named, bounds[:-1], bounds[1:], strict=True)
            if high - low >= SEED_WORDS and news[low:high].sum() >= LEAST_NEWS
        ]
        self.too_short = len(named) - len(self.parts)
        self.items = len({item_id for item_id, _, _ in named})
        self._index()

    def _index(self) -> None:
        lengths = np.array([len(part.words) for part in self.parts], dtype=np.int64)
        hashes = np.concatenate([part.words for part in self.parts] or [np.zeros(0, dtype=np.uint64)])
        owner = np.repeat(np.arange(len(self.parts), dtype=np.int32), lengths)
        begin = np.concatenate(([0], np.cumsum(lengths)))
        seeds, at = ngrams(Words(hashes, owner, owner, owner), SEED_WORDS)
        order = np.lexsort((at, seeds))
        self._seeds, self._first = np.unique(seeds[order], return_index=True)
        self._last = np.append(self._first[1:], len(order))
        self._owner, self._offset = owner[at[order]], at[order] - begin[owner[at[order]]]
        self._filter = np.zeros(1 << _FILTER_BITS, dtype=bool)
        self._filter[self._seeds >> np.uint64(64 - _FILTER_BITS)] = True

    def quotes(
        self, words: Words, *, threshold: float, only: Sequence[bool] | None = None
    ) -> Iterator[tuple[int, Quote]]:
        """(text, quote) for every part that some text of the batch quotes with at least `threshold` coverage."""
        seeds, at = ngrams(words, SEED_WORDS)
        maybe = np.flatnonzero(self._filter[seeds >> np.uint64(64 - _FILTER_BITS)])
        if not len(maybe) or not len(self._seeds):
            return
        found = np.minimum(np.searchsorted(self._seeds, seeds[maybe]), len(self._seeds) - 1)
        true = self._seeds[found] == seeds[maybe]
        diagonals: dict[tuple[int, int], set[int]] = {}
        for position, seed in zip(at[maybe[true]].tolist(), found[true].tolist(), strict=True):
            low, high = self._first[seed], self._last[seed]
            for k in range(low, min(high, low + _POSTINGS)):
                key = (int(words.text[position]), int(self._owner[k]))
                diagonals.setdefault(key, set()).add(position - int(self._offset[k]))
        bounds = np.searchsorted(words.text, np.arange(words.text[-1] + 2))
        for (text, part), starts in sorted(diagonals.items()):
            quote = _best(self.parts[part], words.hashes, sorted(starts), bounds[text], bounds[text + 1], threshold)
            if quote is not None:
                yield text, quote


def _best(part: Part, hashes: np.ndarray, starts: list[int], low: int, high: int, threshold: float) -> Quote | None:
    """The best alignment of a part with words low..high: diagonals that lie close together count as one place."""
    best: Quote | None = None
    size = len(part.words)
    place: list[int] = []
    for k, start in enumerate(starts):
        place.append(start)
        if k + 1 < len(starts) and starts[k + 1] - start <= max(size // 2, SEED_WORDS):
            continue
        quote = _aligned(part, hashes, place, low, high, threshold)
        if quote is not None and (best is None or quote.coverage > best.coverage):
            best = quote
        place = []
    return best


def _aligned(part: Part, hashes: np.ndarray, place: list[int], low: int, high: int, threshold: float) -> Quote | None:
    size = len(part.words)
    covered = np.zeros(size, dtype=bool)
    longest, first, last = 0, high, low
    for start in place:
        begin, end = max(start, low), min(start + size, high)
        same = np.zeros(size, dtype=bool)
        same[begin - start : end - start] = hashes[begin:end] == part.words[begin - start : end - start]
        edges = np.flatnonzero(np.diff(np.concatenate(([0], same.view(np.int8), [0]))))
        for run_first, run_end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if run_end - run_first >= SHORTEST_RUN:
                covered[run_first:run_end] = True
                if part.news[run_first:run_end].sum() >= LEAST_NEWS:
                    longest = max(longest, run_end - run_first)
                first, last = min(first, start + run_first), max(last, start + run_end - 1)
    coverage = float(part.weight[covered].sum() / part.weight.sum())
    if part.news[covered].sum() < LEAST_NEWS:
        return None
    if longest == size:
        rule = "exact"
    elif longest >= LONG_RUN:
        rule = "13_gram"
    elif size >= SHORT_PART and coverage >= threshold:
        rule = "coverage"
    else:
        return None
    return Quote(part, rule, round(coverage, 6), int(first), int(last))


def _parts(items: pl.DataFrame) -> Iterator[tuple[str, str, str]]:
    """(item_id, part, text) of all items; a column "solution", or an inner field of that name, is a solution."""
    solutions = [name for name in items.columns if name.rpartition(".")[2] in _SOLUTIONS and name != "target"]
    columns = ["item_id", "prompt", "choices", "target", *solutions]
    for item_id, prompt, choices, target, *worked in items.select(columns).iter_rows():
        yield item_id, "question", prompt
        if choices:
            yield item_id, "choices", "\n".join(choice for choice in choices if choice)
        if target:
            yield item_id, "answer", target
        for text in worked:
            if isinstance(text, str) and text:
                yield item_id, "solution", text


def _news(words: Words) -> np.ndarray:
    """1 for a word, 0.5 for a single letter, 0.25 for a number below 1000; 0 for what repeats or continues a sequence.

    To continue is to differ by at most 1 (2 after 1, b after a) from one of the four words before.
    """
    signs = split_words([*map(chr, range(ord("a"), ord("z") + 1)), *map(str, range(1000))])
    order = np.argsort(signs.hashes)
    found = order[np.minimum(np.searchsorted(signs.hashes[order], words.hashes), len(order) - 1)]
    plain = signs.hashes[found] == words.hashes
    value = np.where(plain, np.where(found < 26, found, found + 1000), -9).astype(np.int64)
    news = np.where(plain, np.where(found < 26, 0.5, 0.25), 1.0)
    for back in range(1, 5):
        near = plain[back:] & (np.abs(value[back:] - value[:-back]) <= 1)
        repeated = words.hashes[back:] == words.hashes[:-back]
        news[back:][(near | repeated) & (words.text[back:] == words.text[:-back])] = 0.0
    return news


def _joined(texts: list[str], at_once: int = 4096) -> Words:
    """The words of many texts, split some thousands at a time to keep memory small."""
    pieces = [split_words(texts[first : first + at_once]) for first in range(0, max(len(texts), 1), at_once)]
    hashes, start, end = (np.concatenate([getattr(p, name) for p in pieces]) for name in ("hashes", "start", "end"))
    return Words(hashes, np.concatenate([p.text + k * at_once for k, p in enumerate(pieces)]), start, end)


def _weights(words: Words, parts: int) -> np.ndarray:
    """Inverse document frequency of each word, the parts being the documents."""
    order = np.lexsort((words.text, words.hashes))
    hashes, owners = words.hashes[order], words.text[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    distinct, counts = np.unique(hashes[fresh], return_counts=True)
    return np.log1p(parts / counts[np.searchsorted(distinct, words.hashes)])
