"""Texts read before a document is chosen: what quotes a benchmark item, and what repeats a document taken before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from annotator.decontaminate import HITS, Finder, summary_of, text_batches
from annotator.decontamination.ngrams import split_words
from annotator.decontamination.quoted import ItemIndex
from annotator.errors import BadInput
from annotator.ranking.near_duplicates import KeptDocuments, signatures
from annotator.ranking.selection import Candidates

Progress = Callable[[int], None] | None


class Screen:
    """Reads texts and rejects documents that quote items or repeat a document taken before.

    rejected: doc_id -> (reason, detail). hits: rows of HITS. read: texts read.
    """

    def __init__(
        self,
        documents: Sequence[str | Path] | pl.DataFrame | pl.LazyFrame,
        columns: Mapping[str, str],
        *,
        items: pl.DataFrame | None,
        slices: pl.DataFrame | None,
        near_duplicates: bool,
        progress: Progress,
    ) -> None:
        self.documents, self.columns = documents, columns
        self.near_duplicates, self.progress = near_duplicates, progress
        self.rejected: dict[str, tuple[str, str]] = {}
        self.kept = KeptDocuments()
        self.read = 0
        self.hits: list[dict[str, Any]] = []
        self.index = None if items is None else ItemIndex(items)
        strict = _own_items(items, slices) if items is not None and slices is not None else ()
        self.finder = self.index and Finder(self.index, threshold=0.5, strict_threshold=0.3, strict_items=strict)

    def summary(self) -> dict[str, Any] | None:
        """What decontamination looked for and found; None without items."""
        if self.index is None:
            return None
        return summary_of(self.index, pl.DataFrame(self.hits, schema=HITS)) | {"texts_read": self.read}

    def look_at(self, doc_ids: list[str], *, near_duplicates: bool) -> list[bool]:
        """Judge some documents, given in order of preference: True for each that is rejected."""
        marks: dict[str, np.ndarray] = {}
        quoted: dict[str, dict[str, Any]] = {}
        for batch in self._texts(doc_ids):
            words = split_words(batch["text"].to_list())
            if self.finder is not None:
                for hit in self.finder.hits(batch, words):
                    self.hits.append(hit)
                    best = quoted.setdefault(hit["doc_id"], hit)
                    if (hit["coverage"], best["item_id"]) > (best["coverage"], hit["item_id"]):
                        quoted[hit["doc_id"]] = hit
            if near_duplicates:
                marks.update(zip(batch["doc_id"], signatures(words, batch.height), strict=True))
            self.read += batch.height
            if self.progress is not None:
                self.progress(self.read)
        for doc_id in doc_ids:
            if doc_id in quoted:
                self.rejected[doc_id] = ("contaminated", _quotation(quoted[doc_id]))
            elif doc_id in marks:
                original = self.kept.original_of(marks[doc_id])
                if original is not None:
                    self.rejected[doc_id] = ("near_duplicate", f"of {original[0]} (similarity {original[1]:.2f})")
                else:
                    self.kept.take(doc_id, marks[doc_id])
        return [doc_id in self.rejected for doc_id in doc_ids]

    def _texts(self, doc_ids: Collection[str]) -> Iterator[pl.DataFrame]:
        documents = self.documents
        if isinstance(documents, pl.DataFrame | pl.LazyFrame):
            table = documents.lazy()
            if "text" not in table.collect_schema():
                raise BadInput("the documents have no texts", where="documents", remedy="Texts are needed to look at.")
            wanted = pl.Series(doc_ids, dtype=pl.String).implode()
            documents = table.select("doc_id", "text").filter(pl.col("doc_id").is_in(wanted)).collect()
        return text_batches(documents, only=doc_ids, columns=self.columns)


def settle(
    candidates: Candidates, screen: Screen, budget_tokens: int, *, near_duplicates: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Choose, read the texts chosen, reject, and choose again until all chosen were read.

    Texts are judged in the order of a choice without budget and caps, from its beginning as far as it is needed. What
    is said of a document therefore depends on those before it only, not on the budget.

    Args:
        near_duplicates: False leaves near duplicates in, even if the screen looks for them.

    Returns:
        passes over each candidate, and which candidates were rejected (bool).
    """
    near_duplicates = near_duplicates and screen.near_duplicates
    rejected = np.zeros(len(candidates), dtype=bool)
    read = np.zeros(len(candidates), dtype=bool)
    reach = budget_tokens
    while True:
        repeats = candidates.passes_within(budget_tokens, rejected)
        unread = (repeats > 0) & ~read
        if not (near_duplicates or screen.finder) or not unread.any():
            return repeats, rejected
        reach *= 2
        order = candidates.order(reach)
        preference = order.row[np.sort(np.unique(order.row, return_index=True)[1])]
        needed = np.flatnonzero(unread[preference])
        if not order.whole and len(needed) < unread.sum():
            continue
        rows = preference[: needed[-1] + 1]
        rows = rows[~read[rows]]
        verdicts = screen.look_at(candidates.doc_ids[rows].to_list(), near_duplicates=near_duplicates)
        read[rows], rejected[rows] = True, verdicts


def _own_items(items: pl.DataFrame, slices: pl.DataFrame) -> list[str]:
    """All items of the benchmarks that the slices were found on."""
    ids = slices["item_ids"].explode().drop_nulls().unique()
    own = items.filter(pl.col("item_id").is_in(ids.implode()))
    same = pl.col("benchmark").is_in(own["benchmark"].drop_nulls().unique().implode())
    return items.filter(same.fill_null(False) | pl.col("item_id").is_in(ids.implode()))["item_id"].to_list()


def _quotation(hit: dict[str, Any]) -> str:
    return f"{hit['item_id']} {hit['part']} ({hit['rule']}, coverage {hit['coverage']:.2f}): {hit['span']}"
