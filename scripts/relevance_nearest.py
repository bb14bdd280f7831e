"""Benchmark-targeted baselines of bench_relevance.py that score a document by the one item it comes nearest to.

A mean over items rewards documents like the benchmark as a whole; the nearest item rewards a document that resembles
one item very much, as one that quotes it does. Ranking by the nearest benchmark example: BETR, Mizrahi et al. (2025),
arXiv 2507.12466. Nothing is filtered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from relevance_rankings import Corpus, best

PASSAGE_WORDS = 120
CANDIDATES = 100  # documents of each preselecting list that MiniLM scores: a passage costs it some 50 ms

Embed = Callable[[Sequence[str]], np.ndarray]


def passages(text: str) -> list[str]:
    """Consecutive runs of about PASSAGE_WORDS words, of equal length but for one word; at least one passage."""
    words = text.split()
    count = max(1, round(len(words) / PASSAGE_WORDS))
    bounds = [len(words) * k // count for k in range(count + 1)]
    return [" ".join(words[start:end]) for start, end in pairwise(bounds)]


class Nearest:
    """The greatest cosine of any passage of a document to any query.

    Args:
        embed: texts -> unit vectors, as the baseline of mean similarity uses it.
    """

    def __init__(self, corpus: Corpus, embed: Embed) -> None:
        self._doc_ids, self._embed = corpus.doc_ids, embed
        cut = [passages(text) for text in corpus.documents["text"].to_list()]
        self._starts = np.cumsum([0, *map(len, cut)])[:-1]
        self.passages = [passage for found in cut for passage in found]
        self._vectors = embed(self.passages)

    def ranked(self, queries: Sequence[str], count: int) -> list[str]:
        """Documents by their nearest pair of passage and query."""
        return best(np.maximum.reduceat(self._nearness(queries), self._starts), self._doc_ids, count)

    def nearest_passage(self, queries: Sequence[str], doc_ids: Iterable[str]) -> dict[str, str]:
        """doc_id -> the passage that comes nearest to a query, the first of equals."""
        near = self._nearness(queries)
        ends = [*self._starts[1:], len(near)]
        rows = np.searchsorted(self._doc_ids, sorted(doc_ids))
        return {
            self._doc_ids[row]: self.passages[self._starts[row] + int(near[self._starts[row] : ends[row]].argmax())]
            for row in rows
        }

    def _nearness(self, queries: Sequence[str]) -> np.ndarray:
        """The cosine of every passage to its nearest query."""
        return (self._vectors @ self._embed(queries).T).max(axis=1)


class NearestMiniLM:
    """The same cosine by MiniLM itself, of documents that cheaper rankings have preselected and one passage of each.

    The encoder is that of annotator's accurate judge: int8 weights, first and last 126 word pieces of each text. It
    encodes a text the same in any company, so the vectors are kept for later studies.

    Args:
        folder: where they are kept, minilm.parquet: text, vector.
    """

    def __init__(self, nearest: Nearest, folder: Path) -> None:
        self._nearest, self._kept = nearest, folder / "minilm.parquet"
        kept = pl.read_parquet(self._kept) if self._kept.exists() else None
        self._encoded = {} if kept is None else dict(zip(kept["text"], kept["vector"].to_numpy(), strict=True))

    def ranked(self, queries: Sequence[str], candidates: Iterable[str], count: int) -> list[str]:
        """Candidates by the cosine of their passage nearest to the queries, which the static model has picked."""
        chosen = self._nearest.nearest_passage(queries, candidates)
        doc_ids = np.array(sorted(chosen))
        scores = self._embedded([chosen[doc_id] for doc_id in doc_ids]) @ self._embedded(queries).T
        return best(scores.max(axis=1), doc_ids, count)

    def _embedded(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors; each text is encoded once, as slices and studies share documents and items."""
        from annotator.judges.encoder import DIMENSIONS, encode

        if new := sorted(set(texts) - self._encoded.keys()):
            self._encoded.update(zip(new, encode(new, "item"), strict=True))
            schema = {"text": pl.String, "vector": pl.Array(pl.Float32, DIMENSIONS)}
            kept = {"text": list(self._encoded), "vector": np.array(list(self._encoded.values()))}
            pl.DataFrame(kept, schema=schema).write_parquet(self._kept)
        vectors = np.array([self._encoded[text] for text in texts])
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
