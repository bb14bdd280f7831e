"""Where texts quote benchmark items: seeds of words, extended to weighted coverage of the item."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import polars as pl

from annotator.decontamination.alignment import FIRM_RUN, LEAST_NEWS, SHORT_COVERAGE, Part, Quote, best_quote
from annotator.decontamination.lines import WholeLines
from annotator.decontamination.ngrams import Words, ngrams, split_words
from annotator.decontamination.seeds import Seeds

LONG_SEED, SHORT_SEED = 8, 4  # words; of 8 words or more with one replaced, 4 in a row remain
LONG_PART = 64  # from here on, seeds of 8 words are enough
LEAST_WORDS = 5  # shorter questions are things that anybody says ("What do you do?"),
LEAST_WORDS_ALONE = 2  # unless they stand alone and are not words only ("Compute $\sin 30^\circ$.")
_FORMAL = re.compile(r"[\d$\\()\[\]{}=+*/^<>|]")
LEAST_QUESTION_NEWS = 0.5  # less is a counting sequence; a sum of small numbers has more
LEAST_WEIGHT = 0.2  # of a part, on one diagonal: below, a short seed is not followed
WHOLE = 0.999  # likewise, of a part shorter than a long seed
_RARE = 10  # short seeds that stand in more places are phrases of the trade ("what is the value of")
_SOLUTIONS = ("solution", "rationale", "explanation", "reasoning", "canonical_solution")


class ItemIndex:
    """All parts of all items, searchable.

    Attributes:
        parts: those of 8 words and more that say something, and questions from 5 words on. Questions of 2 to 4 words
            with a number or a sign of mathematics are looked for too, but only as lines of their own.
        too_short: how many parts are none of these; they cannot be told from chance and are not looked for.
    """

    def __init__(self, items: pl.DataFrame) -> None:
        named = sorted(_parts(items))
        words = _joined([text for _, _, text in named])
        bounds = np.searchsorted(words.text, np.arange(len(named) + 1))
        weight, news = _weights(words, len(named)), _news(words)
        self.parts, alone = [], []
        for (item_id, name, text), low, high in zip(named, bounds[:-1], bounds[1:], strict=True):
            part = Part(item_id, name, words.hashes[low:high], weight[low:high], news[low:high])
            if _says_enough(name, part.news):
                self.parts.append(part)
            elif name == "question" and LEAST_WORDS_ALONE <= high - low < LEAST_WORDS and _FORMAL.search(text):
                alone.append(part)
        self.too_short = len(named) - len(self.parts) - len(alone)
        self._alone = WholeLines(alone)
        self.items = len({item_id for item_id, _, _ in named})
        hashes = [part.words for part in self.parts]
        self._begin = np.cumsum([0, *map(len, hashes)])
        self._words = np.concatenate([*hashes, np.zeros(0, dtype=np.uint64)])
        self._share = np.concatenate([*(part.weight / part.weight.sum() for part in self.parts), np.zeros(0)])
        short = [k for k, part in enumerate(hashes) if len(part) < LONG_PART]
        tiny = [k for k in short if len(hashes[k]) < LONG_SEED]
        self._long_seeds = Seeds(hashes, range(len(hashes)), words=LONG_SEED, common=len(hashes))
        self._short_seeds = Seeds(hashes, short, words=SHORT_SEED, common=_RARE)
        self._tiny_seeds = Seeds(hashes, tiny, words=SHORT_SEED, common=len(hashes))

    def quotes(self, words: Words, *, threshold: float) -> Iterator[tuple[int, Quote]]:
        """(text, quote) for every part that some text of the batch quotes with at least `threshold` coverage."""
        if not len(words):
            return
        bounds = np.searchsorted(words.text, np.arange(words.text[-1] + 2))
        for rows in self._promising(words, bounds, min(threshold, SHORT_COVERAGE)):
            text, part = rows[0, :2].tolist()
            low, high = int(bounds[text]), int(bounds[text + 1])
            quote = best_quote(self.parts[part], words.hashes, rows[:, 2].tolist(), low, high, threshold)
            if quote is not None:
                yield text, quote
        yield from self._alone.quotes(words)

    def _promising(self, words: Words, bounds: np.ndarray, coverage: float) -> Iterator[np.ndarray]:
        """Diagonals (text, part, start), one array a text and part, that may add up to a quotation.

        Start is where the part's first word would stand. What shares less than `coverage` of a part's weight over all
        its diagonals, and no run near 13 words, is passed over here, a thousand times faster than one by one.
        """
        short_runs, long_runs = ngrams(words, SHORT_SEED), ngrams(words, LONG_SEED)
        kinds = (
            (self._long_seeds.hits(*long_runs), 0.0),
            (self._short_seeds.hits(*short_runs), LEAST_WEIGHT),
            (self._tiny_seeds.hits(*short_runs), WHOLE),
        )
        followed = []
        for (position, part, offset), least in kinds:
            rows = np.stack([words.text[position], part, position - offset], axis=1)
            rows, seeds = np.unique(rows, axis=0, return_counts=True)
            share = self._share_on(rows, words, bounds)
            enough = share >= least
            followed.append((rows[enough], share[enough], seeds[enough] if least == 0 else np.zeros(enough.sum())))
        rows, first = np.unique(np.concatenate([rows for rows, _, _ in followed]), axis=0, return_index=True)
        if not len(rows):
            return
        share, seeds = (np.concatenate([one[k] for one in followed])[first] for k in (1, 2))
        starts = np.flatnonzero(np.any(np.diff(rows[:, :2], axis=0, prepend=-1), axis=1))
        promising = (np.add.reduceat(share, starts) >= coverage - 1e-9) | (np.maximum.reduceat(seeds, starts) >= 3)
        for group, worth in zip(np.split(rows, starts[1:]), promising, strict=True):
            if worth:
                yield group

    def _share_on(self, diagonals: np.ndarray, words: Words, bounds: np.ndarray) -> np.ndarray:
        """The share of each part's weight that stands on its diagonal, scattered words included."""
        text, part, start = diagonals.T
        sizes = self._begin[part + 1] - self._begin[part]
        row = np.repeat(np.arange(len(diagonals)), sizes)
        offset = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        of_part, of_text = self._begin[part][row] + offset, start[row] + offset
        inside = (of_text >= bounds[text][row]) & (of_text < bounds[text + 1][row])
        same = inside & (self._words[of_part] == words.hashes[np.clip(of_text, 0, len(words) - 1)])
        return np.bincount(row, weights=self._share[of_part] * same, minlength=len(diagonals))


def _says_enough(name: str, news: np.ndarray) -> bool:
    if name == "question" and len(news) >= LEAST_WORDS and news.sum() >= LEAST_QUESTION_NEWS:
        return True
    return len(news) >= FIRM_RUN and bool(news.sum() >= LEAST_NEWS)


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
    columns = (np.concatenate([getattr(p, name) for p in pieces]) for name in ("hashes", "start", "end", "line"))
    hashes, start, end, line = columns
    return Words(hashes, np.concatenate([p.text + k * at_once for k, p in enumerate(pieces)]), start, end, line)


def _weights(words: Words, parts: int) -> np.ndarray:
    """Inverse document frequency of each word, the parts being the documents."""
    order = np.lexsort((words.text, words.hashes))
    hashes, owners = words.hashes[order], words.text[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    distinct, counts = np.unique(hashes[fresh], return_counts=True)
    return np.log1p(parts / counts[np.searchsorted(distinct, words.hashes)])
