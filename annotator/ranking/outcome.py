"""The tables and the summary of a ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from annotator.matching.corpus import BYTES_PER_TOKEN
from annotator.matching.profiles import Profiles
from annotator.ranking.gain import Gains
from annotator.ranking.limits import Limits
from annotator.ranking.selection import quotas, tie_breakers
from annotator.ranking.verdicts import REASONS, Verdicts
from annotator.tables import UPSAMPLE

REPEAT_SCALE = 15.4  # R*_D of Muennighoff et al. (2023), "Scaling Data-Constrained Language Models"
REPLAY = "replay"  # stands in rule_ids of background text
_STEPS = 10_000  # scores of dropped documents are shown to four digits
_CAPPED = {"source": "source_cap", "host": "source_cap"}


@dataclass(frozen=True, slots=True)
class Choice:
    """Rows of `Profiles.documents` that are chosen.

    rows: for slices; repeats: passes over each of them. background: background text, read once. caps: column -> tokens
    that one of its values may have.
    """

    rows: np.ndarray
    repeats: np.ndarray
    background: np.ndarray
    caps: dict[str, int]

    def tokens_by(self, documents: pl.DataFrame, column: str) -> dict[Any, int]:
        """Tokens read for slices, repeats counted, by value of a column (null left out)."""
        table = pl.DataFrame(
            {
                "value": documents[column].gather(self.rows).cast(pl.String),
                "read": documents["tokens"].gather(self.rows) * pl.Series(self.repeats),
            }
        )
        return dict(table.drop_nulls("value").group_by("value").agg(pl.col("read").sum()).iter_rows())


def chosen_table(found: Profiles, verdicts: Verdicts, result: Gains, choice: Choice) -> pl.DataFrame:
    """UPSAMPLE: the documents chosen for slices, best first, then background text."""
    both = np.append(choice.rows, choice.background)
    once = np.ones(len(choice.background), dtype=np.int64)
    taken = found.documents[both].with_columns(
        pl.Series("repeats", np.append(choice.repeats, once), dtype=pl.Int64),
        pl.Series("score", np.append(verdicts.score[choice.rows], np.zeros(len(once)))),
    )
    taken = taken.with_columns(pl.Series("tie", tie_breakers(taken["doc_id"]), dtype=pl.UInt64))
    taken = taken.sort(["score", "tie"], descending=[True, False])
    missing = [pl.lit(None, dtype=UPSAMPLE[name]).alias(name) for name in ("shard", "row") if name not in taken.columns]
    reasons = _reasons(taken, found, result)
    taken = taken.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("rank"), *missing, *reasons)
    return taken.select(pl.col(name).cast(dtype) for name, dtype in UPSAMPLE.items())


def _reasons(taken: pl.DataFrame, found: Profiles, result: Gains) -> list[pl.Series]:
    """category_id, slice_ids and rule_ids, worked out once for each profile that was chosen."""
    profiles = taken["profile"].unique().sort()
    known = [result.reasons(profile) for profile in profiles.to_list()]
    first = [found.categories[k].id for k in found.members[profiles.to_numpy(), 0]]
    strings = pl.List(pl.String)
    category = [reason.category_id or own for reason, own in zip(known, first, strict=True)]
    place = profiles.search_sorted(taken["profile"])
    return [
        pl.Series("category_id", category, dtype=pl.String).gather(place),
        pl.Series("slice_ids", [reason.slice_ids for reason in known], dtype=strings).gather(place),
        pl.Series("rule_ids", [reason.rule_ids or [REPLAY] for reason in known], dtype=strings).gather(place),
    ]


def dropped_table(documents: pl.DataFrame, verdicts: Verdicts, choice: Choice) -> pl.DataFrame:
    """DROPPED: all documents but the chosen ones, in their order."""
    out = np.ones(documents.height, dtype=bool)
    out[choice.rows] = out[choice.background] = False
    late = np.flatnonzero(out & (verdicts.code == 0))
    words = list(verdicts.words)
    code = verdicts.code.copy()
    shown = np.round(verdicts.score[late], 4)
    code[late] = len(words) + np.round(shown * _STEPS).astype(np.int32)
    words += [("over_budget", f"score {step / _STEPS}") for step in range(_STEPS + 1)]
    for column, limit in choice.caps.items():
        used = choice.tokens_by(documents, column)
        _give_cap(documents, column, limit, used, late, code, words)
    rows = pl.Series(np.flatnonzero(out))
    picked = pl.Series(code[out])
    return pl.DataFrame(
        {
            "doc_id": documents["doc_id"].gather(rows),
            "reason": pl.Series([reason for reason, _ in words], dtype=pl.String).gather(picked),
            "detail": pl.Series([detail for _, detail in words], dtype=pl.String).gather(picked),
        }
    )


def _give_cap(
    documents: pl.DataFrame, column: str, limit: int, used: dict[str, int], late: np.ndarray, code: np.ndarray,
    words: list[tuple[str, str | None]],
) -> None:  # fmt: skip
    """Writes the cap as the reason of documents that do not fit into what their source or host may have."""
    values, tokens = documents[column].gather(late).cast(pl.String), documents["tokens"].gather(late)
    longest = int(tokens.max() or 0)
    near = [value for value, total in sorted(used.items()) if total + longest > limit]
    for value in near:
        full = ((values == value) & (tokens > limit - used[value])).fill_null(False).to_numpy()
        words.append((_CAPPED[column], f"{column} {value}"))
        code[late[full]] = len(words) - 1


def summary_of(
    chosen: pl.DataFrame, dropped: pl.DataFrame, found: Profiles, result: Gains, homes: np.ndarray, choice: Choice,
    limits: Limits, clean: dict[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """Counts, JSON-ready; `homes` are the slices (indices) of the documents in `choice.rows`."""
    read = chosen["tokens"] * chosen["repeats"]
    extra = (1.0 - (-(chosen["repeats"] - 1) / REPEAT_SCALE).exp()) * REPEAT_SCALE
    by_source = chosen.with_columns(read.alias("total")).group_by("source").agg(pl.col("total").sum())
    reasons = dict(dropped.group_by("reason").len().iter_rows())
    unused = limits.budget_tokens - int(read.sum())
    estimated = int(found.documents["tokens_estimated"].sum() or 0)
    background = chosen["slice_ids"].list.len() == 0
    return {
        "documents": found.documents.height,
        "chosen": chosen.height,
        "dropped": {reason: reasons.get(reason, 0) for reason in REASONS},
        "budget_tokens": limits.budget_tokens,
        "tokens": int(read.sum()),
        "unused_tokens": unused,
        "unique_tokens": int(chosen["tokens"].sum()),
        "effective_tokens": round(float((chosen["tokens"] * (1.0 + extra)).sum())),
        "replay_tokens": int(read.filter(background).sum()),
        "tokens_estimated": estimated,
        "slices": _by_slice(found, result, homes, choice, limits),
        "sources": {
            source or "": int(total) for source, total in sorted(by_source.iter_rows(), key=lambda row: row[0] or "")
        },
        "decontamination": clean,
        "note": _note(chosen, unused, clean, estimated, reasons),
    }


def _by_slice(
    found: Profiles, result: Gains, homes: np.ndarray, choice: Choice, limits: Limits
) -> dict[str, dict[str, int]]:
    """Documents, tokens and quota of each slice; a document counts for the slice that gains most."""
    slices = len(result.slice_ids)
    read = found.documents["tokens"].gather(choice.rows).to_numpy() * choice.repeats
    documents, tokens = np.bincount(homes, minlength=slices), np.bincount(homes, read, minlength=slices)
    wanted = quotas(result.shares) * limits.targeted_tokens
    return {
        slice_id: {"documents": int(documents[k]), "tokens": int(tokens[k]), "quota_tokens": int(wanted[k])}
        for k, slice_id in enumerate(result.slice_ids)
    }


def _note(
    chosen: pl.DataFrame, unused: int, clean: dict[str, Any] | None, estimated: int, reasons: dict[str, int]
) -> str:
    notes = []
    if not chosen.height:
        notes.append("Nothing was chosen.")
    elif unused > 0:
        capped = reasons.get("source_cap", 0)
        why = (
            f"a source or host stands at its cap ({capped:,} documents)"
            if capped
            else "no more text, or the next does not fit"
        )
        notes.append(f"{unused:,} tokens of the budget are unused: {why}.")
    if clean is None:
        notes.append("No items were given: nothing was decontaminated.")
    if estimated:
        notes.append(f"Tokens of {estimated:,} documents are estimated at {BYTES_PER_TOKEN} bytes a token.")
    return " ".join(notes)
