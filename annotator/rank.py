"""Rank documents under a budget of tokens, and say of every other document why it was left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from annotator.categories import profiles
from annotator.decontaminate import HITS, Finder, summary_of, text_batches
from annotator.decontamination.ngrams import split_words
from annotator.decontamination.quoted import ItemIndex
from annotator.errors import BadInput
from annotator.mapping import Rules
from annotator.ranking.gain import Gains, gains
from annotator.ranking.near_duplicates import KeptDocuments, signatures
from annotator.ranking.selection import Candidates, quotas
from annotator.readers import read_documents
from annotator.tables import DROPPED, LABELS, UPSAMPLE

BYTES_PER_TOKEN = 4  # UTF-8 bytes a token; 4.0-4.6 for English prose and 3-3.5 for code with today's vocabularies
REPEAT_SCALE = 15.4  # R*_D of Muennighoff et al. (2023), "Scaling Data-Constrained Language Models"
UNGRADED = 0.6  # what an ungraded document counts: as a usable one
REASONS = ("off_slice", "low_quality", "contaminated", "near_duplicate", "source_cap", "over_budget")
Progress = Callable[[int], None] | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents chosen within a token budget, and why the rest were not. Both together are all documents read.

    chosen: UPSAMPLE, best first; shard and row are null unless located. score is the expected gain per token in 0..1;
        tokens are those of one pass.
    dropped: DROPPED in order of doc_id; reason is one of REASONS.
    summary: JSON-ready counts; `tokens` count repeats, `effective_tokens` discount them.
    """

    chosen: pl.DataFrame
    dropped: pl.DataFrame
    summary: dict[str, Any]


def rank(
    matches: pl.DataFrame,
    document_labels: pl.DataFrame | pl.LazyFrame,
    documents: Sequence[str | Path] | pl.DataFrame,
    items: pl.DataFrame | None,
    *,
    rules: Rules,
    budget_tokens: int,
    slices: pl.DataFrame | None = None,
    max_repeats: int = 4,
    max_source_share: float | None = 0.5,
    languages: Collection[str] | None = None,
    near_duplicates: bool = True,
    locate: bool = False,
    columns: Mapping[str, str] = {},
    progress: Progress = None,
) -> Ranking:
    """The documents to upsample for the matched slices.

    Args:
        matches: MATCHES. document_labels: LABELS of the documents, under the same rules.
        documents: files, folders or globs, or a frame with doc_id, text and any of source, lang, tokens.
        items: all benchmark items, so that no document that quotes one is chosen; None leaves that out.
        slices: SLICES; documents that quote the slices' own benchmark are held to a stricter threshold.
        max_repeats: at most so many passes over one document.
        max_source_share: at most this share of the budget from one source, where there are two or more.
        languages: only documents of these languages (`lang`); those without one stay.
        locate: fill in shard and row, which makes the table depend on how the corpus is split into files.
        progress: called with texts read, for decontamination and near duplicates.

    Raises:
        BadInput: a budget or cap out of range, or labels that belong to none of the documents.
    """
    _check(budget_tokens, max_repeats, max_source_share)
    corpus = _Corpus(documents, columns)
    table, result = _scored(matches, document_labels, corpus, rules, languages)
    open_to_choice = table.filter(pl.col("reason").is_null())
    several = open_to_choice["source"].drop_nulls().n_unique() > 1
    cap = int(max_source_share * budget_tokens) if max_source_share is not None and several else None
    candidates = Candidates(open_to_choice, shares=result.shares, max_repeats=max_repeats, source_tokens=cap)
    screen = _Screen(corpus, items, slices, near_duplicates, progress)
    repeats = _settle(candidates, screen, budget_tokens)
    chosen = _chosen(open_to_choice, candidates, repeats, result, corpus if locate else None)
    dropped = _dropped(table, screen.rejected, chosen, cap)
    summary = _summary(chosen, dropped, table, result, screen, budget_tokens, corpus)
    return Ranking(chosen, dropped, summary)


def _check(budget_tokens: int, max_repeats: int, max_source_share: float | None) -> None:
    if budget_tokens < 1:
        raise BadInput(f"a budget of {budget_tokens} tokens", where="--budget-tokens", remedy="Give 1 or more.")
    if max_repeats < 1:
        raise BadInput(f"{max_repeats} passes at most", where="--max-repeats", remedy="Give 1 or more.")
    if max_source_share is not None and not 0 < max_source_share <= 1:
        raise BadInput(f"a source share of {max_source_share}", where="--max-source-share", remedy="It lies in 0..1.")


class _Corpus:
    """The documents without their texts in `meta`, one row each by doc_id; texts are streamed when asked for."""

    def __init__(self, documents: Sequence[str | Path] | pl.DataFrame, columns: Mapping[str, str]) -> None:
        self.documents, self.columns = documents, columns
        meta = self._meta()
        self.estimated = 0
        if meta["tokens"].null_count():
            missing = meta.filter(pl.col("tokens").is_null())["doc_id"]
            self.estimated = missing.len()
            sizes = [
                batch.select(
                    "doc_id", (pl.col("text").str.len_bytes() // BYTES_PER_TOKEN).cast(pl.Int64).alias("guess")
                )
                for batch in self.texts(missing.to_list())
            ]
            if sizes:
                meta = meta.join(pl.concat(sizes), on="doc_id", how="left")
                meta = meta.with_columns(pl.coalesce("tokens", "guess").alias("tokens")).drop("guess")
        self.meta = meta.with_columns(pl.col("tokens").fill_null(1).clip(lower_bound=1)).sort("doc_id")

    def _meta(self) -> pl.DataFrame:
        if not isinstance(self.documents, pl.DataFrame):
            frames = list(read_documents(self.documents, columns=self.columns, text=False))
            if not frames:
                raise BadInput("no documents", where=", ".join(map(str, self.documents)))
            return pl.concat(frames)
        frame = self.documents.drop("text", strict=False)
        if frame["doc_id"].n_unique() < frame.height:
            raise BadInput("a doc_id is there twice", where="documents", remedy="Ids must be unique.")
        missing = [name for name in ("source", "tokens") if name not in frame.columns]
        return frame.with_columns(pl.lit(None, dtype=UPSAMPLE[name]).alias(name) for name in missing)

    def texts(self, doc_ids: Collection[str]) -> Any:
        """Batches of doc_id and text."""
        if isinstance(self.documents, pl.DataFrame) and "text" not in self.documents.columns:
            raise BadInput("the documents have no texts", where="documents", remedy="Texts or token counts are needed.")
        return text_batches(self.documents, only=doc_ids, columns=self.columns)


def _scored(
    matches: pl.DataFrame, labels: pl.DataFrame | pl.LazyFrame, corpus: _Corpus, rules: Rules,
    languages: Collection[str] | None,
) -> tuple[pl.DataFrame, Gains]:  # fmt: skip
    """Every document with its profile, score, home slice and, where it is out already, reason and detail."""
    found = profiles(labels, rules=rules, documents=corpus.meta if set(rules.extra_columns) - set(LABELS) else None)
    result = gains(matches, found, rules)
    labelled = found.documents.select("doc_id", "profile", "quality", "confidence", pl.lit(True).alias("labelled"))
    columns = ["doc_id", "source", "tokens", *(["lang"] if languages else [])]
    table = corpus.meta.select(columns).join(labelled, on="doc_id", how="left", maintain_order="left")
    if labelled.height and table["labelled"].null_count() == table.height:
        what = f"none of {labelled.height:,} labels belongs to one of {table.height:,} documents"
        raise BadInput(what, where="--document-labels", remedy="Label these documents, or name the id with --column.")
    known = table["profile"].is_not_null().to_numpy()
    profile = table["profile"].fill_null(0).to_numpy()

    def of_profile(values: np.ndarray, otherwise: Any) -> np.ndarray:
        return np.where(known, values[profile], otherwise) if len(values) else np.full(len(known), otherwise)

    grades = table["quality"].fill_null(-1).to_numpy()
    worth = np.full(len(known), UNGRADED)
    for grade, factor in rules.quality.items():
        worth[grades == grade] = factor
    sure = table["confidence"].fill_null(1.0).clip(0.0, 1.0).to_numpy()
    gain = of_profile(result.gain, 0.0)
    score = np.round(gain * worth * sure, 9)
    guarded = of_profile(np.array([guard is not None for guard in found.guards], dtype=bool), False)
    foreign = np.zeros(len(known), dtype=bool)
    if languages:
        foreign = (~table["lang"].is_in(sorted(languages))).fill_null(False).to_numpy()
    verdict = np.select([~known, guarded, gain <= 0, foreign, worth <= 0, score <= 0], range(1, 7), 0)
    return _reasoned(table, verdict, found.guards).with_columns(
        pl.Series("score", score), pl.Series("home", of_profile(result.home, -1), dtype=pl.Int64)
    ), result


def _reasoned(table: pl.DataFrame, verdict: np.ndarray, guards: list[str | None]) -> pl.DataFrame:
    """Adds reason and detail, null where the verdict is 0."""
    reasons = pl.Series([None, *["off_slice"] * 4, *["low_quality"] * 2], dtype=pl.String)
    words = [None, "no usable label", None, "no matched slice", None, None, "label confidence 0"]
    guard = pl.Series(guards, dtype=pl.String).gather(table["profile"].fill_null(0)) if guards else pl.lit(None)
    table = table.with_columns(
        reasons.gather(verdict).alias("reason"),
        pl.Series(words, dtype=pl.String).gather(verdict).alias("detail"),
        pl.Series("verdict", verdict),
        (guard if isinstance(guard, pl.Expr) else pl.lit(guard)).alias("guard"),
    )
    detail = (
        pl.when(pl.col("verdict") == 2).then(pl.format("guard {}", "guard"))
        .when(pl.col("verdict") == 4).then(pl.format("language {}", "lang" if "lang" in table.columns else "detail"))
        .when(pl.col("verdict") == 5).then(pl.format("quality {}", "quality"))
        .otherwise("detail")
    )  # fmt: skip
    return table.with_columns(detail.alias("detail")).select(
        "doc_id", "source", "tokens", "profile", "reason", "detail"
    )


class _Screen:
    """Reads texts and rejects documents that quote items or repeat a document taken before."""

    def __init__(
        self,
        corpus: _Corpus,
        items: pl.DataFrame | None,
        slices: pl.DataFrame | None,
        duplicates: bool,
        progress: Progress,
    ) -> None:
        self.corpus, self.progress, self.duplicates = corpus, progress, duplicates
        self.rejected: dict[str, tuple[str, str]] = {}
        self.kept = KeptDocuments()
        self.read = 0
        self.hits: list[dict[str, Any]] = []
        self.index = None if items is None else ItemIndex(items)
        strict = _own_items(items, slices) if items is not None and slices is not None else ()
        self.finder = self.index and Finder(self.index, threshold=0.5, strict_threshold=0.3, strict_items=strict)

    @property
    def needed(self) -> bool:
        """Whether texts have to be read at all."""
        return self.duplicates or self.finder is not None

    def look_at(self, doc_ids: list[str]) -> list[bool]:
        """Judge some documents, given in order of preference: True for each that is rejected."""
        marks: dict[str, np.ndarray] = {}
        quoted: dict[str, dict[str, Any]] = {}
        for batch in self.corpus.texts(doc_ids):
            words = split_words(batch["text"].to_list())
            if self.finder is not None:
                for hit in self.finder.hits(batch, words):
                    self.hits.append(hit)
                    best = quoted.setdefault(hit["doc_id"], hit)
                    if (hit["coverage"], best["item_id"]) > (best["coverage"], hit["item_id"]):
                        quoted[hit["doc_id"]] = hit
            if self.duplicates:
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


def _own_items(items: pl.DataFrame, slices: pl.DataFrame) -> list[str]:
    """All items of the benchmarks that the slices were found on."""
    ids = slices["item_ids"].explode().drop_nulls().unique()
    own = items.filter(pl.col("item_id").is_in(ids.implode()))
    same = pl.col("benchmark").is_in(own["benchmark"].drop_nulls().unique().implode())
    return items.filter(same.fill_null(False) | pl.col("item_id").is_in(ids.implode()))["item_id"].to_list()


def _quotation(hit: dict[str, Any]) -> str:
    return f"{hit['item_id']} {hit['part']} ({hit['rule']}, coverage {hit['coverage']:.2f}): {hit['span']}"


def _settle(candidates: Candidates, screen: _Screen, budget_tokens: int) -> np.ndarray:
    """Passes over each candidate: choose, read the texts chosen, reject, and choose again until all chosen were read.

    Texts are judged in the order of a choice without budget and source cap, from its beginning as far as it is needed.
    What is said of a document therefore depends on those before it only, not on the budget.
    """
    rejected = np.zeros(len(candidates), dtype=bool)
    read = np.zeros(len(candidates), dtype=bool)
    reach = budget_tokens
    while True:
        repeats = candidates.passes_within(budget_tokens, rejected)
        unread = (repeats > 0) & ~read
        if not screen.needed or not unread.any():
            return repeats
        reach *= 2
        order = candidates.order(reach)
        preference = order.row[np.sort(np.unique(order.row, return_index=True)[1])]
        needed = np.flatnonzero(unread[preference])
        if not order.whole and len(needed) < unread.sum():
            continue
        rows = preference[: needed[-1] + 1]
        rows = rows[~read[rows]]
        verdicts = screen.look_at(candidates.doc_ids[rows].to_list())
        read[rows], rejected[rows] = True, verdicts


def _chosen(
    table: pl.DataFrame, candidates: Candidates, repeats: np.ndarray, result: Gains, corpus: _Corpus | None
) -> pl.DataFrame:
    rows = np.flatnonzero(repeats)
    taken = table[rows].with_columns(
        pl.Series("repeats", repeats[rows], dtype=pl.Int64),
        pl.Series("tie", candidates.tie_breakers(rows, rows), dtype=pl.UInt64),
    )
    taken = taken.sort(["score", "tie"], descending=[True, False])
    strings = pl.List(pl.String)
    taken = taken.with_columns(
        pl.int_range(1, taken.height + 1, dtype=pl.Int64).alias("rank"),
        pl.Series("category_id", result.category, dtype=pl.String).gather(taken["profile"]),
        pl.Series("slice_ids", result.helped, dtype=strings).gather(taken["profile"]),
        pl.Series("rule_ids", result.rules, dtype=strings).gather(taken["profile"]),
    )
    if corpus is not None:
        taken = taken.join(corpus.meta.select("doc_id", "shard", "row"), on="doc_id", how="left", maintain_order="left")
    else:
        taken = taken.with_columns(pl.lit(None, pl.String).alias("shard"), pl.lit(None, pl.Int64).alias("row"))
    return taken.select(pl.col(name).cast(dtype) for name, dtype in UPSAMPLE.items())


def _dropped(
    table: pl.DataFrame, rejected: dict[str, tuple[str, str]], chosen: pl.DataFrame, source_tokens: int | None
) -> pl.DataFrame:
    """`table` is in order of doc_id, and so is what comes of it: sorting ten million rows again would double memory."""
    gone = pl.Series([*rejected, *chosen["doc_id"]], dtype=pl.String)
    taken = chosen.group_by("source").agg((pl.col("tokens") * pl.col("repeats")).sum())
    full = pl.lit(False)
    if source_tokens is not None:
        so_far = pl.col("source").replace_strict(taken["source"], taken["tokens"], default=0, return_dtype=pl.Int64)
        full = pl.col("source").is_not_null() & (so_far + pl.col("tokens") > source_tokens)
    late = pl.when(full).then(pl.lit("source_cap")).otherwise(pl.lit("over_budget"))
    why = (
        pl.when(full).then(pl.format("source {}", "source")).otherwise(pl.format("score {}", pl.col("score").round(4)))
    )
    is_late = pl.col("reason").is_null()
    left = table.filter(~pl.col("doc_id").is_in(gone.implode())).select(
        "doc_id",
        pl.when(is_late).then(late).otherwise("reason").alias("reason"),
        pl.when(is_late).then(why).otherwise("detail").alias("detail"),
    )
    judged = pl.DataFrame([(d, *why) for d, why in sorted(rejected.items())], schema=DROPPED, orient="row")
    return left.merge_sorted(judged, key="doc_id")


def _summary(
    chosen: pl.DataFrame, dropped: pl.DataFrame, table: pl.DataFrame, result: Gains, screen: _Screen,
    budget_tokens: int, corpus: _Corpus,
) -> dict[str, Any]:  # fmt: skip
    read = chosen["tokens"] * chosen["repeats"]
    extra = (1.0 - (-(chosen["repeats"] - 1) / REPEAT_SCALE).exp()) * REPEAT_SCALE
    home = table.select("doc_id", "home", "tokens").join(chosen.select("doc_id", "repeats"), on="doc_id")
    per_slice = home.group_by("home").agg(pl.len(), (pl.col("tokens") * pl.col("repeats")).sum().alias("total"))
    sums = {row["home"]: row for row in per_slice.iter_rows(named=True)}
    wanted = (quotas(result.shares) * budget_tokens).astype(np.int64) if result.slice_ids else []
    by_source = chosen.with_columns(read.alias("total")).group_by("source").agg(pl.col("total").sum())
    reasons = dict(dropped.group_by("reason").len().iter_rows())
    unused = budget_tokens - int(read.sum())
    clean = screen.index and summary_of(screen.index, pl.DataFrame(screen.hits, schema=HITS)) | {
        "texts_read": screen.read
    }
    return {
        "documents": table.height,
        "chosen": chosen.height,
        "dropped": {reason: reasons.get(reason, 0) for reason in REASONS},
        "budget_tokens": budget_tokens,
        "tokens": int(read.sum()),
        "unused_tokens": unused,
        "unique_tokens": int(chosen["tokens"].sum()),
        "effective_tokens": round(float((chosen["tokens"] * (1.0 + extra)).sum())),
        "tokens_estimated": corpus.estimated,
        "slices": {
            slice_id: {
                "documents": int(sums.get(k, {}).get("len", 0)),
                "tokens": int(sums.get(k, {}).get("total", 0)),
                "quota_tokens": int(wanted[k]),
            }
            for k, slice_id in enumerate(result.slice_ids)
        },
        "sources": {
            source or "": int(total) for source, total in sorted(by_source.iter_rows(), key=lambda row: row[0] or "")
        },
        "decontamination": clean,
        "note": _note(chosen, unused, clean, corpus, reasons),
    }


def _note(
    chosen: pl.DataFrame, unused: int, clean: dict[str, Any] | None, corpus: _Corpus, reasons: dict[str, int]
) -> str:
    notes = []
    if not chosen.height:
        notes.append("Nothing was chosen.")
    elif unused > 0:
        capped = reasons.get("source_cap", 0)
        why = (
            f"a source stands at its cap ({capped:,} documents)" if capped else "no more text, or the next does not fit"
        )
        notes.append(f"{unused:,} tokens of the budget are unused: {why}.")
    if clean is None:
        notes.append("No items were given: nothing was decontaminated.")
    if corpus.estimated:
        notes.append(f"Tokens of {corpus.estimated:,} documents are estimated at {BYTES_PER_TOKEN} bytes a token.")
    return " ".join(notes)
