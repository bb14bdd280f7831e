"""Where texts quote benchmark items: 8-word seeds, extended to weighted coverage of the item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from annotator.decontamination.ngrams import Words, ngrams, split_words

SEED_WORDS = 8
LONG_RUN = 13  # Brown et al. (2020), appendix C: a shared run of 13 words is a collision
SHORT_PART = 20  # parts of fewer words must be there as a whole, or nearly so from MEDIUM_PART words on
MEDIUM_PART = 12
LONG_PART = 32  # from here on, seeds of 8 words are enough
SHORT_SEED_WORDS = 5  # so that one replaced word in the middle of a short part leaves a seed
SHORT_COVERAGE = 0.7  # asked of short parts, and where no run of 8 words is shared
SHORTEST_RUN = 3  # matched runs of fewer words are chance
LEAST_NEWS = 6.0  # below, a run is a counting sequence, a matrix of zeros or the like, which quotes nobody
_RARE = 3  # short seeds that more parts share are phrases of the trade ("what is the value of")
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
        short = [k for k, part in enumerate(self.parts) if MEDIUM_PART <= len(part.words) < LONG_PART]
        self._seeds = [
            _Seeds(self.parts, range(len(self.parts)), words=SEED_WORDS, common=len(self.parts)),
            _Seeds(self.parts, short, words=SHORT_SEED_WORDS, common=_RARE),
        ]

    def quotes(self, words: Words, *, threshold: float) -> Iterator[tuple[int, Quote]]:
        """(text, quote) for every part that some text of the batch quotes with at least `threshold` coverage."""
        diagonals: dict[tuple[int, int], set[int]] = {}
        for seeds in self._seeds:
            for position, part, offset in seeds.hits(words):
                diagonals.setdefault((int(words.text[position]), part), set()).add(position - offset)
        bounds = np.searchsorted(words.text, np.arange(words.text[-1] + 2)) if diagonals else []
        for (text, part), starts in sorted(diagonals.items()):
            quote = _best(self.parts[part], words.hashes, sorted(starts), bounds[text], bounds[text + 1], threshold)
            if quote is not None:
                yield text, quote


class _Seeds:
    """Runs of words of some parts, each with the places where it stands; those in over `common` places are left out."""

    def __init__(self, parts: Sequence[Part], chosen: Sequence[int], *, words: int, common: int) -> None:
        self.words = words
        lengths = np.array([len(parts[k].words) for k in chosen], dtype=np.int64)
        hashes = np.concatenate([parts[k].words for k in chosen] or [np.zeros(0, dtype=np.uint64)])
        owner = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        begin = np.concatenate(([0], np.cumsum(lengths)))
        seeds, at = ngrams(Words(hashes, owner, owner, owner), words)
        order = np.lexsort((at, seeds))
        keys, first, counts = np.unique(seeds[order], return_index=True, return_counts=True)
        kept = counts <= common
        self._keys, self._first, self._counts = keys[kept], first[kept], counts[kept]
        self._part = np.asarray(chosen, dtype=np.int64)[owner[at[order]]] if len(order) else order
        self._offset = at[order] - begin[owner[at[order]]]
        self._filter = np.zeros(1 << _FILTER_BITS, dtype=bool)
        self._filter[self._keys >> np.uint64(64 - _FILTER_BITS)] = True

    def hits(self, words: Words) -> Iterator[tuple[int, int, int]]:
        """(word of the batch, part, word of the part) where a seed stands in both."""
        seeds, at = ngrams(words, self.words)
        maybe = np.flatnonzero(self._filter[seeds >> np.uint64(64 - _FILTER_BITS)])
        if not len(maybe) or not len(self._keys):
            return
        found = np.minimum(np.searchsorted(self._keys, seeds[maybe]), len(self._keys) - 1)
        true = self._keys[found] == seeds[maybe]
        for position, seed in zip(at[maybe[true]].tolist(), found[true].tolist(), strict=True):
            low = int(self._first[seed])
            for k in range(low, low + min(int(self._counts[seed]), _POSTINGS)):
                yield position, int(self._part[k]), int(self._offset[k])


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
    longest, seeded, first, last = 0, False, high, low
    for start in place:
        begin, end = max(start, low), min(start + size, high)
        same = np.zeros(size, dtype=bool)
        same[begin - start : end - start] = hashes[begin:end] == part.words[begin - start : end - start]
        edges = np.flatnonzero(np.diff(np.concatenate(([0], same.view(np.int8), [0]))))
        for run_first, run_end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if run_end - run_first >= SHORTEST_RUN:
                covered[run_first:run_end] = True
                seeded |= run_end - run_first >= SEED_WORDS
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
    elif size >= MEDIUM_PART and coverage >= (threshold if size >= SHORT_PART and seeded else SHORT_COVERAGE):
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
