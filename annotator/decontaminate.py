"""Find documents that quote benchmark items, before they are trained on.

What passes is n-gram-clean, not clean: a paraphrase shares no run of words with its source. For a chosen list a second
stage looks for those too, as far as sentence embeddings see them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from annotator.decontamination.ngrams import Words, fold, split_words
from annotator.decontamination.paraphrases import ParaphraseFinder
from annotator.decontamination.quoted import ItemIndex, Quote
from annotator.readers import read_documents

HITS = {
    "doc_id": pl.String,
    "item_id": pl.String,
    "part": pl.String,
    "rule": pl.String,
    "coverage": pl.Float64,
    "span": pl.String,
    "start": pl.Int64,
    "end": pl.Int64,
}
STATEMENT = "n-gram-clean: no long run of words in common with the items given; paraphrases are not looked for"
STATEMENT_AFTER_BOTH = (
    "n-gram-clean: no long run of words in common with the items given; and no passage comes near a question by "
    "sentence embedding, which finds most paraphrases, not all"
)
_BATCH_CHARS = 1 << 20
_SPAN_CHARS = 200


@dataclass(frozen=True, slots=True)
class Decontamination:
    """What was found.

    hits: one row a document and quoted part: doc_id, item_id, part (question, choices, answer, solution), rule
        (exact, 13_gram, coverage, paraphrase), coverage in 0..1 (IDF-weighted share of the part's words; of a
        paraphrase, the cosine), span (the text, at most
        200 characters), start, end (character positions in the document). Sorted by document, then item.
    summary: documents, megabytes, items, parts, parts_too_short, flagged_documents, by_rule, statement.
    """

    hits: pl.DataFrame
    summary: dict[str, Any]


def decontaminate(
    documents: Sequence[str | Path] | pl.DataFrame,
    items: pl.DataFrame,
    *,
    threshold: float = 0.5,
    strict_threshold: float = 0.3,
    strict_items: Collection[str] = (),
    only: Collection[str] | None = None,
    paraphrases: bool = False,
    columns: Mapping[str, str] = {},
    progress: Callable[[int], None] | None = None,
) -> Decontamination:
    """Look for every part of every item in every document.

    A document is flagged if it shares a run of 13 words with a part, holds a part of 8 words or more (a question of 5
    or more) as a whole, or covers `threshold` of a part of 20 words or more (0.65 of one of 8 or more), words weighted
    by how rare they are among the items. Runs are counted from seeds of 8 (parts of fewer than 64 words: 4) words
    outwards, over single replaced words. Questions of 2 to 4 words
    with a number or a sign of mathematics count where they are lines of their own. Other parts are not looked for; the
    summary counts them.

    Args:
        documents: files, folders or globs; or a frame with doc_id and text.
        items: as `read_items` gives them, all benchmarks that matter.
        strict_threshold: for `strict_items`, those that the documents are chosen to help with.
        only: ids of the documents to look at.
        paraphrases: also look for reworded questions in documents without a hit, some 10 documents a second; needs the
            extra `accurate`. See `annotator.decontamination.paraphrases`.
        progress: called with documents done.
    """
    index = ItemIndex(items)
    finder = Finder(index, threshold=threshold, strict_threshold=strict_threshold, strict_items=strict_items)
    reworded = ParaphraseFinder(items) if paraphrases else None
    rows: list[dict[str, Any]] = []
    done = characters = 0
    for batch in text_batches(documents, only=only, columns=columns):
        quoted = finder.hits(batch, split_words(batch["text"].to_list()))
        rows += quoted
        if reworded is not None:
            found = {hit["doc_id"] for hit in quoted}
            rows += reworded.hits(batch.filter(~pl.col("doc_id").is_in(found)))
        done += batch.height
        characters += int(batch["text"].str.len_bytes().sum())
        if progress is not None:
            progress(done)
    hits = pl.DataFrame(rows, schema=HITS).sort("doc_id", "item_id", "part")
    summary = summary_of(index, hits) | {"documents": done, "megabytes": round(characters / 1e6, 3)}
    return Decontamination(hits, summary | ({"statement": STATEMENT_AFTER_BOTH} if paraphrases else {}))


def summary_of(index: ItemIndex, hits: pl.DataFrame) -> dict[str, Any]:
    """What was looked for and found, JSON-ready."""
    by_rule = dict(hits.group_by("rule").len().sort("rule").iter_rows())
    return {
        "items": index.items,
        "parts": len(index.parts),
        "parts_too_short": index.too_short,
        "flagged_documents": hits["doc_id"].n_unique(),
        "by_rule": by_rule,
        "statement": STATEMENT,
    }


def text_batches(
    documents: Sequence[str | Path] | pl.DataFrame,
    *,
    only: Collection[str] | None = None,
    columns: Mapping[str, str] = {},
) -> Iterator[pl.DataFrame]:
    """doc_id and text, about a megabyte at a time."""
    frames: Iterable[pl.DataFrame] = (
        [documents] if isinstance(documents, pl.DataFrame) else read_documents(documents, columns=columns)
    )
    wanted = None if only is None else pl.Series(sorted(only), dtype=pl.String).implode()
    for frame in frames:
        frame = frame.select("doc_id", "text")
        if wanted is not None:
            frame = frame.filter(pl.col("doc_id").is_in(wanted))
        group = (pl.col("text").str.len_bytes().cum_sum() // _BATCH_CHARS).alias("group")
        if frame.height:
            yield from frame.with_columns(group).partition_by("group", maintain_order=True, include_key=False)


class Finder:
    """Turns quotes into rows of HITS."""

    def __init__(
        self, index: ItemIndex, *, threshold: float, strict_threshold: float, strict_items: Collection[str]
    ) -> None:
        self.index, self.threshold, self.strict = index, threshold, frozenset(strict_items)
        self.lowest = min(threshold, strict_threshold) if self.strict else threshold

    def hits(self, batch: pl.DataFrame, words: Words) -> list[dict[str, Any]]:
        """The hits in a batch (doc_id, text) whose texts `words` come from."""
        return [
            self._row(batch["doc_id"][text], batch["text"][text], quote, words)
            for text, quote in self.index.quotes(words, threshold=self.lowest)
            if self._counts(quote)
        ]

    def _counts(self, quote: Quote) -> bool:
        return quote.rule != "coverage" or quote.coverage >= self.threshold or quote.part.item_id in self.strict

    def _row(self, doc_id: str, text: str, quote: Quote, words: Words) -> dict[str, Any]:
        start, end = _characters(text, int(words.start[quote.first]), int(words.end[quote.last]))
        return {
            "doc_id": doc_id,
            "item_id": quote.part.item_id,
            "part": quote.part.name,
            "rule": quote.rule,
            "coverage": quote.coverage,
            "span": " ".join(text[start:end].split())[:_SPAN_CHARS],
            "start": start,
            "end": end,
        }


def _characters(text: str, start: int, end: int) -> tuple[int, int]:
    """Byte positions in the folded text as character positions in the text itself."""
    if text.isascii():
        return start, end
    folded = np.cumsum([0, *(len(fold(character).encode("utf-8", "replace")) for character in text)])
    first = int(np.searchsorted(folded, start, side="right")) - 1
    return first, min(int(np.searchsorted(folded, end, side="left")), len(text))
