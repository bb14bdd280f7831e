"""What speaks against each document before any is chosen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from annotator.matching.profiles import Profiles
from annotator.ranking.gain import Gains
from annotator.rule_table import UNGRADED, Rules

_NO_SLICE = ("off_slice", "no matched slice")
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
    no_label = len(found.guards)  # stands for the profile of documents without one
    profile = documents["profile"].cast(pl.Int64).fill_null(no_label).to_numpy()
    worth, grades = _worth(documents["quality"], rules)
    sure = documents["confidence"].fill_null(1.0).clip(0.0, 1.0).to_numpy()
    words, code = _of_profiles(found, result)
    found_out = Verdicts(
        score=np.round(np.append(result.gain, 0.0)[profile] * worth * sure, 9),
        home=np.append(result.home, -1)[profile],
        code=code[profile],
        words=words,
    )
    useless = found_out.code == words.index(_NO_SLICE)
    usable = useless & (worth > 0)
    if languages:
        usable &= ~_drop_foreign(found_out, documents["lang"].cast(pl.String), languages)
    found_out.background = np.flatnonzero(usable)
    left = (found_out.code == 0) & (worth <= 0)
    for grade in np.unique(grades[left]).tolist():
        found_out.drop(np.flatnonzero(left & (grades == grade)), "low_quality", f"quality {grade}")
    unsure = (found_out.code == 0) & (found_out.score <= 0)
    found_out.drop(np.flatnonzero(unsure), "low_quality", "label confidence 0")
    return found_out


def _of_profiles(found: Profiles, result: Gains) -> tuple[list[tuple[str, str | None]], np.ndarray]:
    """What speaks against a document by its profile alone (the last one: none), as words and numbers of words."""
    guards = sorted({guard for guard in found.guards if guard is not None})
    words = [("over_budget", None), ("off_slice", "no usable label"), _NO_SLICE]
    words += [("off_slice", f"guard {guard}") for guard in guards]
    code = np.where(result.gain <= 0, 2, 0)
    for k, guard in enumerate(found.guards):
        if guard is not None:
            code[k] = 3 + guards.index(guard)
    return words, np.append(code, 1).astype(np.int32)


def _worth(quality: pl.Series, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """Factor and grade of each document; -1 for no grade."""
    lowest, highest = min([-1, *rules.quality]), max([-1, *rules.quality])
    by_grade = np.full(highest - lowest + 2, UNGRADED)  # the last one is for grades that the rules do not know
    for grade, factor in rules.quality.items():
        by_grade[grade - lowest] = factor
    grades = quality.fill_null(-1).to_numpy()
    outside = (grades < lowest) | (grades > highest)
    return by_grade[np.where(outside, highest + 1, grades) - lowest], grades


def _drop_foreign(verdicts: Verdicts, lang: pl.Series, languages: Collection[str]) -> np.ndarray:
    """Drops what is still in and in another language than those wanted; tells of all documents whether they are."""
    foreign = (~lang.is_in(sorted(languages))).fill_null(False).to_numpy()
    here = foreign & (verdicts.code == 0)
    for name in lang.filter(pl.Series(here)).unique().sort().to_list():
        rows = np.flatnonzero(here & (lang == name).fill_null(False).to_numpy())
        verdicts.drop(rows, "off_slice", f"language {name}")
    return foreign
