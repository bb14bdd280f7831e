"""Look for one cause in two runs: how often its sign shows, and what undoing it recovers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from annotator.diagnosis.causes import INCOMPARABLE, Cause, Marks
from annotator.diagnosis.recovery import Pair
from annotator.diagnosis.rescore import item_means, item_numbers
from annotator.slicing.outcomes import rounded

RISE = 0.10  # how much more frequent a sign must be than in the reference run
RECOVERED = 0.5  # the share of the drop that a cause must explain, at the lower end of its interval
FEWEST_ITEMS = 20
_OTHER_QUESTIONS = 0.01  # p below which the templates were not dealt out by lot
_EXAMPLES, _CLIP = 3, 240


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause looked at: whether it is there, what was seen, and what undoing it recovers."""

    cause: Cause
    triggered: bool
    evidence: dict[str, Any]
    recovered: dict[str, Any] | None = None
    marks: tuple[Marks, Marks] | None = None
    rule: str | None = None

    @property
    def explains(self) -> bool:
        low = (self.recovered or {}).get("low")
        return self.triggered and low is not None and low >= RECOVERED

    def as_json(self) -> dict[str, Any]:
        share = self.recovered and {key: rounded(value, 6) for key, value in self.recovered.items()}
        return {"id": self.cause.id, "triggered": self.triggered, "evidence": self.evidence, "recovered_share": share}


def look(cause: Cause, pair: Pair, compared: dict[str, Any], comparable: np.ndarray, drop: float) -> Finding:
    if cause.id in INCOMPARABLE:
        return _look_at_settings(cause, pair, compared, comparable)
    if cause.id == "prompt_format":
        return _look_at_templates(cause, pair)
    if cause.id == "noise":
        change = pair.interval()
        return Finding(cause, not change["low"] > 0, {"drop_p": rounded(change["p"], 6)})
    sign, rule = cause.sign, cause.rule
    if cause.mirrored and cause.mirrored[0](pair.here).sum() > sign(pair.here).sum():
        sign, rule = cause.mirrored
    marks = sign(pair.here), sign(pair.reference)
    rate, usual = (float(item_means(seen, mark).mean()) for seen, mark in zip((pair.here, pair.reference), marks))
    needed = min(RISE, max(0.02, drop / 2))
    found = {
        "rate": rounded(rate, 6),
        "reference_rate": rounded(usual, 6),
        "needed_rise": rounded(needed, 6),
        "outputs": int(marks[0].sum()),
        "remedy": rule or "leave out",
    }
    if cause.id == "end_marker" and compared["end_of_text"]:
        found["end_of_text"] = compared["end_of_text"]
    triggered = rate - usual >= needed
    if rule:
        recovered = pair.recovered_by_rule(rule)
        found |= {
            "score_re_scored": mean_score(pair.here, rule),
            "reference_re_scored": mean_score(pair.reference, rule),
        }
    else:
        recovered = pair.recovered_without(*marks) if marks[0].any() else {"estimate": 0.0, "low": 0.0, "high": 0.0}
        score = mean_score(pair.here)
        found |= {"score_at_most": rounded(min(1.0, score + rate), 6)}
    return Finding(cause, bool(triggered), found, recovered if drop > 0 else None, marks, rule)


def _look_at_settings(cause: Cause, pair: Pair, compared: dict[str, Any], comparable: np.ndarray) -> Finding:
    """Causes that make runs incomparable: believed only if the drop is gone on the items that can be compared."""
    differing = [setting for setting in compared["settings"] if setting["cause"] == cause.id]
    share = compared.get({"prompt_changed": "prompts_differ", "version_drift": "documents_differ"}.get(cause.id, ""))
    found: dict[str, Any] = {"settings": differing}
    if share is not None:
        found["items_that_differ"] = share
    if cause.id == "prompt_changed" and compared["prompt_layouts"]:
        found["layouts"] = compared["prompt_layouts"]
    forbidding = any(setting["forbids"] for setting in differing)
    triggered = forbidding or bool(share and share >= 0.02)
    enough = comparable.sum() >= FEWEST_ITEMS and not comparable.all()
    if not triggered or not enough or forbidding:
        return Finding(cause, triggered, found)
    unlike = ~comparable
    marks = tuple(unlike[item_numbers(seen)] for seen in (pair.here, pair.reference))
    return Finding(cause, True, found, pair.recovered_without(*marks), marks)


def _look_at_templates(cause: Cause, pair: Pair) -> Finding:
    """Whether leaving out the template that lost most, of several in both runs, leaves little of the drop."""
    known = [set(seen["template"].drop_nulls().unique().to_list()) for seen in (pair.here, pair.reference)]
    values = sorted(known[0] & known[1])
    if len(values) < 2:
        return Finding(cause, False, {"note": "neither a column nor the prompts tell several prompt templates apart"})
    drops = {}
    for value in values:
        means = [
            seen.filter(pl.col("template") == value)["as_logged"].to_numpy().mean()
            for seen in (pair.here, pair.reference)
        ]
        drops[value] = float(means[1] - means[0])
    worst = max(values, key=lambda value: (drops[value], value))
    found = {"drop_by_template": {value: rounded(drop, 6) for value, drop in drops.items()}, "worst": worst}
    if _asks_otherwise(pair.reference, worst):
        note = "the templates differ in what they ask, or how hard it is, so this may be a weakness as well"
        return Finding(cause, False, found | {"note": note})
    marks = tuple((seen["template"] == worst).fill_null(value=False).to_numpy() for seen in (pair.here, pair.reference))
    others = max(drop for value, drop in drops.items() if value != worst)
    return Finding(cause, drops[worst] >= max(RISE, 2 * others), found, pair.recovered_without(*marks), marks)


def _asks_otherwise(reference: pl.DataFrame, worst: str) -> bool:
    """Whether one template stands before other questions than the rest: another kind of answer, or another difficulty.

    Templates are blamed only if they could have been dealt out by lot: chi-squared tests over the items of the
    reference run, each at p < .01.
    """
    items = reference.drop_nulls("template").group_by("item_id", "template").agg(
        pl.col("asks").first(), pl.col("as_logged").mean() >= 0.5
    )  # fmt: skip
    inside = items["template"] == worst
    for column in ("asks", "as_logged"):
        table = [items.filter(side)[column].drop_nulls().value_counts() for side in (inside, ~inside)]
        counts = table[0].join(table[1], on=column, how="full", coalesce=True).sort(column).fill_null(0)
        seen = counts.select(pl.exclude(column)).to_numpy()
        if len(seen) > 1 and seen.sum(axis=0).all() and stats.chi2_contingency(seen).pvalue < _OTHER_QUESTIONS:
            return True
    return False


def examples(found: Finding, seen: pl.DataFrame) -> list[dict[str, Any]]:
    """The first outputs that show a cause, those it harmed first, with clipped text."""
    if found.marks is None or found.cause.id in INCOMPARABLE:
        return []
    rule = found.rule or "as_logged"
    marked = seen.filter(pl.Series(found.marks[0])).with_columns(gain=pl.col(rule) - pl.col("as_logged"))
    chosen = marked.sort("gain", "item_id", "sample_index", descending=[True, False, False]).head(_EXAMPLES)
    return [
        {
            "cause": found.cause.id,
            "item_id": row["item_id"],
            "sample_index": row["sample_index"],
            "text": _clipped(row["response"]),
            "score": row["as_logged"],
            "re_scored": row[rule] if found.rule else None,
        }
        for row in chosen.to_dicts()
    ]


def _clipped(text: str | None) -> str | None:
    if text is None or len(text) <= 2 * _CLIP:
        return text
    return f"{text[:_CLIP]} [... {len(text) - 2 * _CLIP} characters ...] {text[-_CLIP:]}"


def mean_score(seen: pl.DataFrame, rule: str = "as_logged") -> float | None:
    return rounded(float(item_means(seen, seen[rule].to_numpy()).mean()), 6)
