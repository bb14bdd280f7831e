"""Second stage: questions told in other words, found by sentence embeddings. For a chosen list, not for a corpus.

Each document is cut into passages. Word vectors, which cost next to nothing, name the questions that each passage comes
nearest to; the sentence encoder of the extra `accurate` then judges the nearest few pairs of a document. A pair counts
if its cosine reaches the threshold and the passage holds the question's numbers: of two problems told alike with other
numbers, neither gives the other's answer away. Rephrasings that pass n-gram filters: Yang et al. (2023), arXiv
2311.04850. Not found: what is told over more than a passage, in another language, or with its numbers changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from annotator.judges import encoder, features

# Cosine of all-MiniLM-L6-v2. Six retellings (tests/test_paraphrases.py) reach 0.83 to 0.93. In 497 pages without a
# copy, 197 of them grade-school problems, the nearest of 3,869 GSM8K and MATH questions with the same numbers has 0.70:
# none is flagged, which bounds false flags at 0.6 % (95 %).
SIMILAR = 0.75
PASSAGE_WORDS = (25, 60)  # short and long questions; passages overlap by half
PARAGRAPH_WORDS = 150  # longer ones are looked at in passages only
LEAST_WORDS = 12  # of a question: shorter ones are topics rather than problems
PAIRS = 3  # of a document that the encoder judges
NUMBERS = 0.75  # of a question's numbers must stand in the passage
_NEAR = 0.5  # cosine of word vectors: below, a pair is not worth an encoding
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_PARAGRAPH = re.compile(r"\S(?:.|\n(?!\s*\n))*")
_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SPELT = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_WORD_NUMBERS = {word: str(value) for value, word in enumerate(_SPELT)} | {"twice": "2", "half": "2", "dozen": "12"}


class ParaphraseFinder:
    """Finds passages that tell a question of `items` in other words.

    Args:
        items: as `read_items` gives them.
        threshold: least cosine of passage and question, 0..1.

    Raises:
        BadInput: if the extra `accurate` is not installed.
    """

    def __init__(self, items: pl.DataFrame, *, threshold: float = SIMILAR) -> None:
        encoder.encode([""], "item")  # fails now rather than after hours
        self.threshold = threshold
        asked = items.filter(pl.col("prompt").str.split(" ").list.len() >= LEAST_WORDS).sort("item_id")
        self._ids, self._prompts = asked["item_id"].to_list(), asked["prompt"].to_list()
        self._vectors = np.array([_word_vector(prompt) for prompt in self._prompts], dtype=np.float32).reshape(-1, 128)
        self._encoded: dict[int, np.ndarray] = {}

    def hits(self, batch: pl.DataFrame) -> Iterator[dict[str, Any]]:
        """Rows of `decontaminate.HITS` (rule "paraphrase", coverage the cosine), at most one a document."""
        for doc_id, text in batch.select("doc_id", "text").iter_rows():
            best: tuple[float, int, tuple[int, int]] | None = None
            for start, end, item in self._nearest(text):
                cosine = float(_unit(encoder.encode([text[start:end]], "item")[0]) @ self._encoding(item))
                if cosine >= self.threshold and (best is None or cosine > best[0]):
                    best = cosine, item, (start, end)
            if best is not None:
                cosine, item, (start, end) = best
                span = " ".join(text[start:end].split())[:200]
                found = {"doc_id": doc_id, "item_id": self._ids[item], "part": "question", "rule": "paraphrase"}
                yield found | {"coverage": round(cosine, 4), "span": span, "start": start, "end": end}

    def _nearest(self, text: str) -> list[tuple[int, int, int]]:
        """(start, end, item) of the pairs with the nearest word vectors whose numbers agree."""
        bounds = list(passages(text))
        if not bounds or not len(self._vectors):
            return []
        vectors = np.array([_word_vector(text[start:end]) for start, end in bounds], dtype=np.float32)
        near = np.round(vectors @ self._vectors.T, 4)
        pairs = []
        for flat in np.argsort(-near, axis=None, kind="stable")[: 20 * PAIRS].tolist():
            passage, item = divmod(flat, len(self._ids))
            if near[passage, item] < _NEAR or len(pairs) == PAIRS:
                break
            start, end = bounds[passage]
            if numbers_agree(self._prompts[item], text[start:end]):
                pairs.append((start, end, item))
        return pairs

    def _encoding(self, item: int) -> np.ndarray:
        if item not in self._encoded:
            self._encoded[item] = _unit(encoder.encode([self._prompts[item]], "item")[0])
        return self._encoded[item]


def passages(text: str) -> list[tuple[int, int]]:
    """(start, end) of paragraphs, and of overlapping runs of whole sentences of about each of PASSAGE_WORDS words."""
    ends = [match.start() for match in _SENTENCE.finditer(text)] + [len(text)]
    starts = [0] + [match.end() for match in _SENTENCE.finditer(text)]
    sizes = [len(text[start:end].split()) for start, end in zip(starts, ends, strict=True)]
    runs = sorted({run for words in PASSAGE_WORDS for run in _runs(sizes, words)})
    bounds = {(starts[first], ends[last]) for first, last in runs}
    bounds |= {
        match.span() for match in _PARAGRAPH.finditer(text) if LEAST_WORDS <= len(match[0].split()) <= PARAGRAPH_WORDS
    }
    return sorted(bounds)


def _runs(sizes: list[int], words: int) -> Iterator[tuple[int, int]]:
    """(first, last) sentence of runs that reach `words` words, each beginning about half a run after the one before."""
    first = 0
    while first < len(sizes):
        last, held = first, sizes[first]
        while last + 1 < len(sizes) and held < words:
            last += 1
            held += sizes[last]
        if held:
            yield first, last
        if last + 1 == len(sizes):
            return
        passed = 0
        while passed < held / 2:
            passed += sizes[first]
            first += 1


def numbers_agree(question: str, passage: str) -> bool:
    """Whether the passage holds NUMBERS of the question's numbers, in digits or words; true of one without numbers."""
    asked = _numbers(question)
    return not asked or len(asked & _numbers(passage)) >= NUMBERS * len(asked)


def _numbers(text: str) -> set[str]:
    spelt = {_WORD_NUMBERS[word] for word in _WORD.findall(text.lower()) if word in _WORD_NUMBERS}
    return spelt | {number.replace(",", "") for number in _NUMBER.findall(text)}


def _word_vector(text: str) -> np.ndarray:
    """The unit mean of the text's distinct words, each taken apart from what is common to all words."""
    hashes, vectors = _words()
    wanted = np.unique(features.word_hashes(text)).astype(hashes.dtype)
    at = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
    return _unit(vectors[at[hashes[at] == wanted]].sum(axis=0))


@lru_cache(maxsize=1)
def _words() -> tuple[np.ndarray, np.ndarray]:
    with np.load(Path(features.__file__).parent / "words.npz") as stored:
        vectors = stored["vectors"].astype(np.float32) * stored["scale"]
        return stored["hash"], vectors - vectors.mean(axis=0)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.sqrt((vector.astype(np.float64) ** 2).sum())), 1e-9)
