"""What speaks against each document before any is chosen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from annotator.matching.profiles import Profiles
from annotator.ranking.gain import Gains
from annotator.rule_table import UNGRADED, Rules

REASONS = ("off_slice", "low_quality", "contaminated", "near_duplicate", "source_cap", "over_budget")


@dataclass
class Verdicts:
    """Every document's score and why it is out; rows are those of `Profiles.documents`.

    score: f64 in 0..1. home: index of the slice that gains most, -1 for none. code: i32 per document, an index into
        `words`, the distinct (reason, detail) pairs; 0 for documents that are still in.
    background: rows of usable documents that serve no slice.
    """

    score: np.ndarray
    home: np.ndarray
    code: np.ndarray
    background: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    words: list[tuple[str, str | None]] = field(default_factory=lambda: [("over_budget", None)])

    def drop(self, rows: np.ndarray, reason: str, detail: str | None) -> None:
        """Give one reason to some documents."""
        if len(rows):
            self.words.append((reason, detail))
            self.code[rows] = len(self.words) - 1

    def reject(self, rows: np.ndarray, doc_ids: Iterable[str], because: Mapping[str, tuple[str, str]]) -> None:
        """Give each of some documents a reason of its own."""
        for row, doc_id in zip(rows.tolist(), doc_ids, strict=True):
            self.drop(np.array([row]), *because[doc_id])

    @property
    def open(self) -> np.ndarray:
        """Rows of the documents that may be chosen."""
        return np.flatnonzero(self.code == 0)


def judge(found: Profiles, result: Gains, rules: Rules, languages: Collection[str] | None) -> Verdicts:
    """Scores, and the reasons that labels, guards, languages and grades give."""
    documents = found.documents
    known = documents["profile"].is_not_null().to_numpy()
    profile = documents["profile"].fill_null(0).to_numpy()
    gain = _of_profile(result.gain, profile, known, 0.0)
    worth, grades = _worth(documents["quality"], rules)
    sure = documents["confidence"].fill_null(1.0).clip(0.0, 1.0).to_numpy()
    found_out = Verdicts(
        score=np.round(gain * worth * sure, 9),
        home=_of_profile(result.home, profile, known, -1),
        code=np.zeros(len(known), dtype=np.int32),
    )
    found_out.drop(np.flatnonzero(~known), "off_slice", "no usable label")
    guard_ids = sorted({guard for guard in found.guards if guard is not None})
    shut = np.array([guard_ids.index(guard) if guard else -1 for guard in found.guards], dtype=np.int32)
    guard = _of_profile(shut, profile, known, -1)
    for k, name in enumerate(guard_ids):
        found_out.drop(np.flatnonzero(guard == k), "off_slice", f"guard {name}")
    useless = (found_out.code == 0) & (gain <= 0)
    found_out.drop(np.flatnonzero(useless), "off_slice", "no matched slice")
    foreign = _foreign(documents["lang"], languages)
    found_out.background = np.flatnonzero(useless & ~foreign.is_not_null().to_numpy() & (worth > 0))
    abroad = foreign.filter(pl.Series(found_out.code == 0)).drop_nulls().unique().sort().to_list()
    for name in abroad:
        here = (foreign == name).fill_null(False).to_numpy() & (found_out.code == 0)
        found_out.drop(np.flatnonzero(here), "off_slice", f"language {name}")
    left = (found_out.code == 0) & (worth <= 0)
    for grade in np.unique(grades[left]).tolist():
        found_out.drop(np.flatnonzero(left & (grades == grade)), "low_quality", f"quality {grade}")
    unsure = (found_out.code == 0) & (found_out.score <= 0)
    found_out.drop(np.flatnonzero(unsure), "low_quality", "label confidence 0")
    return found_out


def _worth(quality: pl.Series, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """Factor and grade of each document; -1 for no grade."""
    grades = quality.fill_null(-1).to_numpy()
    worth = np.full(len(grades), UNGRADED)
    for grade, factor in rules.quality.items():
        worth[grades == grade] = factor
    return worth, grades


def _foreign(lang: pl.Series, languages: Collection[str] | None) -> pl.Series:
    """The language of documents in another one than those wanted; null for all others."""
    names = lang.cast(pl.String)
    if not languages:
        return pl.Series("lang", [None], dtype=pl.String).extend_constant(None, max(lang.len() - 1, 0))[: lang.len()]
    return names.to_frame("lang").select(pl.when(~pl.col("lang").is_in(sorted(languages))).then("lang")).to_series()


def _of_profile(values: np.ndarray, profile: np.ndarray, known: np.ndarray, otherwise: float) -> np.ndarray:
    if not len(values):
        return np.full(len(known), otherwise, dtype=values.dtype)
    return np.where(known, values[profile], np.asarray(otherwise, dtype=values.dtype))
