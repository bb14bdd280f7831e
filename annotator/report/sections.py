"""Diagnosis, slices, categories and verification as the page shows them: plain values, positions in per cent."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from annotator.report.artefacts import Folder
from annotator.report.headline import interval, meaning
from annotator.report.wording import MISSING, amount, chance, clip, count, number, percent, points, several
from annotator.taxonomy import AXES

_EXAMPLES = 5
_CATEGORIES_A_SLICE = 6
_SHORT = {"background_condition": "background", "task_type": "task", "output_constraint": "output"}


def names_of_slices(slices: pl.DataFrame | None) -> dict[str, str]:
    """slice_id -> "S1", "S2", ...: short enough to stand in every row of other tables."""
    return {} if slices is None else {slice_id: f"S{rank}" for rank, slice_id in enumerate(slices["slice_id"], 1)}


def diagnosis_section(folder: Folder) -> dict[str, Any] | None:
    """Causes looked for, with recovered shares on a common axis; advice; examples."""
    found = folder.records.get("diagnosis")
    if found is None:
        return None
    causes = [_cause(cause) for cause in found.get("causes", []) if isinstance(cause, dict)]
    spans = [cause["share"] for cause in causes if cause["triggered"] and cause["share"]]
    residual = interval(found.get("residual"))
    low = min([0.0, *(share["low"] for share in spans)])
    high = max([1.0, *(share["high"] for share in spans)])
    axis = Axis(max(low, -1.0), min(high, 2.0))
    for cause in causes:
        cause["plot"] = axis.span(cause["share"]) if cause["share"] else None
    advice = found.get("advice") or []
    return {
        "verdict": clip(found.get("verdict", ""), 40),
        "summary": clip(found.get("summary", ""), 600),
        "drop": points(found.get("drop")),
        "residual_drop": points(found.get("residual_drop")),
        "residual": residual and f"[{points(residual['low'])}, {points(residual['high'])}]",
        "triggered": [cause for cause in causes if cause["triggered"]],
        "quiet": [cause["name"] for cause in causes if not cause["triggered"]],
        "ticks": axis.ticks() if spans else [],
        "advice": [clip(line, 1000) for line in ([advice] if isinstance(advice, str) else advice)],
        "examples": [_example(example) for example in (found.get("examples") or [])[:_EXAMPLES]],
        "shape": _shape(found.get("axis_shape") or {}),
    }


def _cause(cause: dict[str, Any]) -> dict[str, Any]:
    share = interval(cause.get("recovered_share"))
    back = f"{percent(share['estimate'], 0)} [{percent(share['low'], 0)}, {percent(share['high'], 0)}]" if share else ""
    return {
        "name": clip(str(cause.get("id", "")).replace("_", " "), 80),
        "meaning": meaning(cause.get("id", "")),
        "triggered": bool(cause.get("triggered")),
        "share": share,
        "written": back or "not undone by re-scoring",
        "seen": _seen(cause.get("evidence") or {}),
    }


def _seen(evidence: dict[str, Any]) -> str:
    """How often the sign stands in the outputs of both runs, or which settings differ."""
    if evidence.get("rate") is not None:
        return f"in {percent(evidence['rate'])} of outputs; reference {percent(evidence.get('reference_rate'))}"
    settings = [setting for setting in evidence.get("settings") or [] if isinstance(setting, dict)]
    changes = [f"{each.get('name')}: {each.get('reference')} → {each.get('here')}" for each in settings[:4]]
    return clip("; ".join(changes), 240)


def _example(example: dict[str, Any]) -> dict[str, str]:
    scores = [example.get("score"), example.get("re_scored")]
    return {
        "item_id": clip(example.get("item_id", ""), 80),
        "cause": clip(str(example.get("cause") or "").replace("_", " "), 80),
        "text": clip(example.get("text") or "(no text)", 560),
        "scores": " → ".join(f"{score:g}" for score in scores if isinstance(score, int | float)),
    }


def _shape(shape: dict[str, Any]) -> list[dict[str, str]]:
    rows = []
    for axis in AXES:
        found = shape.get(axis)
        if isinstance(found, dict) and found.get("eta2") is not None:
            rows.append({"axis": axis.replace("_", " "), "eta2": percent(found["eta2"]), "p": chance(found.get("p"))})
    return rows


class Axis:
    """A straight scale from `low` to `high`, as per cent of the width of a plot."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high if high > low else low + 1.0

    def at(self, value: float) -> float:
        """The position of a value; values outside stand at the edge."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)

    def span(self, found: dict[str, float]) -> dict[str, float]:
        """Positions of {estimate, low, high}."""
        return {key: self.at(found[key]) for key in ("estimate", "low", "high")}

    def ticks(self) -> list[dict[str, Any]]:
        """Four to eight round values with their positions."""
        step = next(step for step in _STEPS if (self.high - self.low) / step <= 8)
        first = math.ceil(round(self.low / step, 6))
        values = [step * k for k in range(first, math.floor(round(self.high / step, 6)) + 1)]
        return [{"at": self.at(value), "text": percent(value, 0 if step >= 0.01 else 1)} for value in values]


_STEPS = [size * 10.0**power for power in range(-4, 6) for size in (1, 2, 2.5, 5)]


def slices_section(folder: Folder, slices: pl.DataFrame | None) -> dict[str, Any] | None:
    """Every slice against its reference on one axis, and the table beneath."""
    if slices is None:
        return None
    summary, names = folder.summary("slices"), names_of_slices(slices)
    rows = slices.rows(named=True)
    ends = [row[key] for row in rows for key in ("low", "high", "score", "reference_score") if row[key] is not None]
    axis = Axis(max(0.0, math.floor(10 * min(ends, default=0.0) - 0.2) / 10), 1.0)
    score, reference = summary.get("score"), summary.get("reference_score")
    overall = None
    if score is not None:
        at_reference = axis.at(reference) if reference is not None else None
        overall = {"score": axis.at(score), "reference": at_reference, "written": _against(score, reference)}
    return {
        "question": clip(summary.get("question_text", ""), 300),
        "note": clip(summary.get("note", ""), 600),
        "overall": overall,
        "ticks": axis.ticks(),
        "rows": [_slice(row, names[row["slice_id"]], axis) for row in rows],
        "has_reference": any(row["reference_score"] is not None for row in rows),
        "counts": _counts(summary),
    }


def _counts(summary: dict[str, Any]) -> str:
    parts = []
    if summary.get("items_used") is not None:
        parts.append(f"{count(summary['items_used'])} items")
    if summary.get("candidates") is not None:
        parts.append(f"{count(summary['candidates'])} candidates with at least {count(summary.get('min_items'))} items")
    if summary.get("alpha") is not None:
        parts.append(f"family-wise error {summary['alpha']:g}")
    return ", ".join(parts)


def _slice(row: dict[str, Any], name: str, axis: Axis) -> dict[str, Any]:
    items = row["item_ids"] or []
    return {
        "name": name,
        "slice_id": clip(row["slice_id"], 200),
        "parts": parts_of_slice(row),
        "plot": {
            "score": axis.at(row["score"]),
            "low": axis.at(row["low"]),
            "high": axis.at(row["high"]),
            "reference": None if row["reference_score"] is None else axis.at(row["reference_score"]),
        },
        "written": _against(row["score"], row["reference_score"]),
        "items": count(row["items"]),
        "score": percent(row["score"]),
        "interval": f"{number(100 * row['low'], 0)}, {number(100 * row['high'], 0)}",
        "reference": percent(row["reference_score"]),
        "deficit": points(row["deficit"]),
        "shrunk": points(row["deficit_shrunk"]),
        "p": chance(row["p_adjusted"]),
        "stability": percent(row["stability"], 0),
        "fragility": percent(row["label_fragility"], 0),
        "confirmed": {True: "yes", False: "no"}.get(row["confirmed"], MISSING),
        "recoverable": number(row["recoverable_points"]),
        "examples": [clip(item, 60) for item in items[:_EXAMPLES]],
        "more": max(0, len(items) - _EXAMPLES),
    }


def _against(score: float, reference: float | None) -> str:
    return percent(score) if reference is None else f"{percent(reference)} → {percent(score)}"


def parts_of_slice(row: dict[str, Any]) -> list[dict[str, str]]:
    """What a slice demands, in words: operations first, then background, task and output."""
    parts = [{"axis": "operation", "value": clip(value, 60)} for value in row["solving_operation"] or []]
    parts += [{"axis": short, "value": clip(row[axis], 60)} for axis, short in _SHORT.items() if row[axis] is not None]
    return parts


def matches_section(folder: Folder, slices: pl.DataFrame | None) -> dict[str, Any] | None:
    """For each slice the categories with the highest weight, and the slices without any."""
    matches, names = folder.read("matches"), names_of_slices(slices)
    if matches is None:
        return None
    ordered = [*names, *sorted(set(matches["slice_id"]) - set(names))]
    groups = []
    for slice_id in ordered:
        own = matches.filter(pl.col("slice_id") == slice_id).sort(
            "weight", "affinity", "documents", "category_id", descending=[True, True, True, False]
        )
        if own.height:
            rows = [_category(row) for row in own.head(_CATEGORIES_A_SLICE).rows(named=True)]
            left = own.height - _CATEGORIES_A_SLICE
            more = f"and {several(left, 'more category', 'more categories')}" if left > 0 else ""
            groups.append(
                {"name": names.get(slice_id, ""), "slice_id": clip(slice_id, 200), "rows": rows, "more": more}
            )
    summary = folder.summary("matches")
    found = set(matches["slice_id"])
    wanted = {entry.get("slice_id"): entry for entry in summary.get("unmatched") or [] if isinstance(entry, dict)}
    unmatched = [
        {
            "name": names[slice_id],
            "slice_id": clip(slice_id, 200),
            "wanted": clip(wanted.get(slice_id, {}).get("wanted", ""), 400),
        }
        for slice_id in names
        if slice_id not in found
    ]
    return {"groups": groups, "unmatched": unmatched, "note": clip(summary.get("note") or "", 600)}


def _category(row: dict[str, Any]) -> dict[str, Any]:
    gap = row["supply_gap"]
    return {
        "category": clip(row["category_id"], 120),
        "affinity": number(row["affinity"]),
        "bar": round(100 * min(max(row["affinity"] or 0.0, 0.0), 1.0), 2),
        "rules": [clip(rule, 60) for rule in row["rule_ids"] or []],
        "documents": count(row["documents"]),
        "tokens": amount(row["tokens"]),
        "gap": MISSING if gap is None else f"×{gap:.2g}" if gap < 100 else f"×{gap:,.0f}",
        "scarce": gap is not None and gap > 2,
    }
