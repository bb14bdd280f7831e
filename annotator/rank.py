"""Rank documents under a budget of tokens, and say of every other document why it was left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from annotator.errors import BadInput
from annotator.matching.corpus import Counter, known_documents, scan_documents
from annotator.matching.profiles import Profiles, profiles
from annotator.matching.tracing import corpus_fingerprint, table_fingerprint
from annotator.ranking.gain import Gains
from annotator.ranking.limits import Limits
from annotator.ranking.outcome import Choice, chosen_table, dropped_table, summary_of
from annotator.ranking.screen import Progress, Screen, settle
from annotator.ranking.selection import Candidates
from annotator.ranking.verdicts import REASONS, Verdicts, judge
from annotator.rule_table import Rules

__all__ = ["REASONS", "Ranking", "rank"]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents chosen within a token budget, and why the rest were not. Both together are all documents read.

    chosen: UPSAMPLE, best first; shard and row are null unless located. score is the expected gain per token in 0..1;
        tokens are those of one pass. Background text comes last, with score 0, no slices and the rule "replay".
    dropped: DROPPED in order of doc_id; reason is one of REASONS.
    summary: JSON-ready counts; `tokens` count repeats, `effective_tokens` discount them.
    """

    chosen: pl.DataFrame
    dropped: pl.DataFrame
    summary: dict[str, Any]


def rank(
    matches: pl.DataFrame,
    document_labels: pl.DataFrame | pl.LazyFrame | None,
    documents: Sequence[str | Path] | pl.DataFrame | pl.LazyFrame,
    items: pl.DataFrame | None,
    *,
    rules: Rules,
    budget_tokens: int,
    slices: pl.DataFrame | None = None,
    max_repeats: int = 4,
    max_source_share: float | None = 0.5,
    max_host_share: float | None = 0.05,
    replay_share: float = 0.0,
    languages: Collection[str] | None = None,
    near_duplicates: bool = True,
    locate: bool = False,
    columns: Mapping[str, str] = {},
    count_tokens: Counter | None = None,
    progress: Progress = None,
) -> Ranking:
    """The documents to upsample for the matched slices.

    Args:
        matches: MATCHES. document_labels: LABELS of the documents (a scan will do), under the same rules; None for
            rules that read a corpus's own columns.
        documents: files, folders or globs, or a table with doc_id, text and any of source, lang, url, tokens.
        items: all benchmark items, so that no document that quotes one is chosen; None leaves that out.
        slices: SLICES; documents that quote the slices' own benchmark are held to a stricter threshold.
        max_repeats: at most so many passes over one document.
        max_source_share, max_host_share: at most this share of the budget from one source, one web host, where there
            are two or more; None for no cap.
        replay_share: the share of the budget kept for background text, drawn evenly from what serves no slice.
        languages: only documents of these languages (`lang`); those without one stay.
        locate: fill in shard and row, which makes the table depend on how the corpus is split into files.
        count_tokens: texts -> tokens, in place of the documents' own counts (`annotator.matching.corpus`).
        progress: called with texts read, for decontamination and near duplicates.

    Raises:
        BadInput: a limit out of range, languages that no document has, or labels that belong to none of the documents.
    """
    limits = Limits(budget_tokens, max_repeats, max_source_share, max_host_share, replay_share, languages)
    if isinstance(documents, pl.DataFrame | pl.LazyFrame):
        scan = known_documents(documents, rules=rules)
    else:
        scan = scan_documents(documents, columns=columns, rules=rules, count_tokens=count_tokens)
    found = _profiled(scan, document_labels, rules, locate)
    unseen = limits.unseen_languages(found.documents["lang"])
    result = Gains(matches, found, rules)
    verdicts = judge(found, result, rules, limits.languages)
    screen = Screen(documents, columns, items=items, slices=slices, near_duplicates=near_duplicates, progress=progress)
    rows, repeats, caps = _targeted(found, verdicts, result, limits, screen)
    choice = Choice(rows, repeats, _background(found, verdicts, limits, screen), caps)
    chosen = chosen_table(found, verdicts, result, choice)
    dropped = dropped_table(found.documents, verdicts, choice)
    homes = verdicts.home[rows]
    summary = summary_of(chosen, dropped, found, result, homes, choice, limits, screen.summary())
    if unseen:
        summary["note"] = f"{summary['note']} No document is in {' or '.join(unseen)}.".strip()
    summary["inputs"] = {"matches": table_fingerprint(matches), "corpus": corpus_fingerprint(found)}
    for name, table in (("items", items), ("slices", slices)):
        if table is not None:
            summary["inputs"][name] = table_fingerprint(table)
    return Ranking(chosen, dropped, summary)


def _profiled(scan: pl.LazyFrame, labels: pl.DataFrame | pl.LazyFrame | None, rules: Rules, locate: bool) -> Profiles:
    """Every document by doc_id, with its profile and what the limits look at."""
    place = ("shard", "row") if locate else ()
    carry = ("source", "tokens", "tokens_estimated", "host", "lang", "failed", *place)
    found = profiles(labels, rules=rules, documents=scan, all_documents=True, carry=carry)
    documents = found.documents
    if documents["tokens"].null_count():
        remedy = "Give token counts (column tokens) or the texts themselves."
        raise BadInput("a document has neither tokens nor a text", where="documents", remedy=remedy)
    if labels is not None and documents["failed"].null_count() == documents.height:
        count = labels.lazy().select(pl.len()).collect().item()
        if count:
            what = f"none of {count:,} labels belongs to one of {documents.height:,} documents"
            remedy = "Label these documents, or name the id with --column."
            raise BadInput(what, where="--document-labels", remedy=remedy)
    return found


def _targeted(
    found: Profiles, verdicts: Verdicts, result: Gains, limits: Limits, screen: Screen
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Rows chosen for the slices, passes over each, and the caps that held (column -> tokens)."""
    rows = verdicts.open
    table = found.documents.select("doc_id", "tokens", "source", "host")[rows].with_columns(
        pl.Series("score", verdicts.score[rows]), pl.Series("home", verdicts.home[rows])
    )
    caps = limits.caps(table)
    candidates = Candidates(table, shares=result.shares, max_repeats=limits.max_repeats, caps=caps)
    repeats, rejected = settle(candidates, screen, limits.targeted_tokens)
    verdicts.reject(rows[rejected], table["doc_id"].filter(pl.Series(rejected)), screen.rejected)
    return rows[repeats > 0], repeats[repeats > 0], caps


def _background(found: Profiles, verdicts: Verdicts, limits: Limits, screen: Screen) -> np.ndarray:
    """Rows of background text: usable documents that serve no slice, drawn by a hash of their ids, once each."""
    tokens = limits.budget_tokens - limits.targeted_tokens
    rows = verdicts.background
    if not tokens or not len(rows):
        return np.zeros(0, dtype=np.int64)
    table = found.documents.select("doc_id", "tokens")[rows].with_columns(score=pl.lit(1.0), home=pl.lit(0, pl.Int64))
    pool = Candidates(table, shares=np.ones(1), max_repeats=1)
    repeats, rejected = settle(pool, screen, tokens, near_duplicates=False)
    verdicts.reject(rows[rejected], table["doc_id"].filter(pl.Series(rejected)), screen.rejected)
    return rows[repeats > 0]
