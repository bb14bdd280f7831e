"""The first thing on the page: one plain sentence, what follows from it, and the numbers behind."""

from __future__ import annotations

from typing import Any

import polars as pl

from annotator.diagnosis.causes import BY_ID, INCOMPARABLE
from annotator.report.artefacts import Folder
from annotator.report.wording import MISSING, amount, clip, count, number, percent, points, several

_TITLES = {
    "data": "Training data can be the cause",
    "not_data": "Not a data problem: do not change the training data for this",
    "inconclusive": "Not settled: the evidence does not separate data from other causes",
}


def headline(folder: Folder, slices: pl.DataFrame | None, chosen: dict[str, Any] | None) -> dict[str, Any]:
    """Title, sentences and key figures.

    Args:
        slices: the table of slices, or None.
        chosen: totals of the upsample list (`documents.totals`), or None.

    Returns:
        tone ("go", "stop", "unsure"), title str, sentences [str], figures [{value, label, note}].
    """
    diagnosis, summary = folder.records.get("diagnosis", {}), folder.summary("slices")
    verdict = diagnosis.get("verdict")
    spread_out = summary.get("question") == "worse_all_over"
    sentences = [_change(summary, diagnosis), _cause(diagnosis), _slices(slices, spread_out), _chosen(chosen, verdict)]
    sentences += _verified(folder.records.get("verification", {}))
    return {
        "tone": {"data": "go", "not_data": "stop"}.get(str(verdict), "unsure"),
        "title": _title(verdict, diagnosis.get("cause"), slices),
        "sentences": [sentence for sentence in sentences if sentence],
        "figures": _figures(summary, diagnosis, slices, chosen),
    }


def _title(verdict: Any, cause: Any, slices: pl.DataFrame | None) -> str:
    if verdict == "inconclusive" and cause == "noise":
        return "Not settled: the run is not below its reference beyond chance"
    if verdict == "inconclusive" and cause in INCOMPARABLE:
        return "Not settled: the two runs cannot be compared"
    if verdict == "data" and slices is not None and slices.is_empty():
        return "Data cannot be ruled out, but no slice fails beyond chance"
    if verdict in _TITLES:
        return _TITLES[verdict]
    if slices is None:
        return "Artefacts of an unfinished run"
    failing = several(slices.height, "slice fails", "slices fail") if slices.height else "No slice fails"
    return f"{failing} beyond chance"


def _change(summary: dict[str, Any], diagnosis: dict[str, Any]) -> str:
    score, reference, drop = summary.get("score"), summary.get("reference_score"), diagnosis.get("drop")
    runs = diagnosis.get("runs") or {}
    run, other = clip(runs.get("here") or "The run", 80), clip(runs.get("reference") or "its reference", 80)
    if score is not None and reference is not None:
        gap = reference - score
        beside = f"{points(abs(gap))} points {'below' if gap >= 0 else 'above'} {other} ({percent(reference)})"
        return f"{run} scores {percent(score)}, {beside}."
    if score is not None:
        return f"{run} scores {percent(score)}; there is no reference run to compare it with."
    return f"{run} scores {points(drop)} points below {other}." if drop is not None else ""


def _cause(diagnosis: dict[str, Any]) -> str:
    cause, share = diagnosis.get("cause"), interval(diagnosis.get("recovered_share"))
    if diagnosis.get("verdict") == "not_data" and cause:
        back = f" Undoing that brings back {percent(share['estimate'], 0)} of the drop." if share else ""
        return f"The cause: {meaning(cause)}.{back}"
    return clip(diagnosis.get("summary") or "", 400)


def meaning(cause: Any) -> str:
    """A cause in words; an id that this version does not know stays an id."""
    return BY_ID[cause].what if cause in BY_ID else clip(cause, 80)


def _slices(slices: pl.DataFrame | None, spread_out: bool) -> str:
    if slices is None:
        return ""
    if slices.is_empty():
        return "No combination of labels fails beyond chance, so there is nothing to aim at."
    recoverable = slices["recoverable_points"].sum()
    if spread_out:
        kinds = several(slices.height, "kind of item", "kinds of item")
        return f"The loss is spread over everything; most of it lies on {kinds}."
    failing = several(slices.height, "slice fails", "slices fail")
    return f"{failing} beyond chance; mending {_them(slices)} would recover about {number(recoverable, 1)} points."


def _them(slices: pl.DataFrame) -> str:
    return "it" if slices.height == 1 else "them"


def _chosen(chosen: dict[str, Any] | None, verdict: Any) -> str:
    if chosen is None or verdict == "not_data":
        return ""
    if not chosen["documents"]:
        return "No document could be chosen."
    listed = f"{several(chosen['documents'], 'document')} ({amount(chosen['tokens'])} tokens with repeats)"
    hedge = "" if verdict == "data" else ", if data turns out to be the cause"
    return f"{listed} are listed to be upsampled{hedge}."


def _verified(verification: dict[str, Any]) -> list[str]:
    said = {
        "confirmed": "Training on the list was confirmed to mend the slices.",
        "not_confirmed": "Training on the list did not mend the slices.",
        "harmful": "Training on the list did harm.",
        "inconclusive": "Whether training on the list helped is not settled.",
    }
    return [said[verification["verdict"]]] if verification.get("verdict") in said else []


def _figures(
    summary: dict[str, Any], diagnosis: dict[str, Any], slices: pl.DataFrame | None, chosen: dict[str, Any] | None
) -> list[dict[str, str]]:
    figures = []
    if summary.get("score") is not None:
        reference = summary.get("reference_score")
        note = f"reference {percent(reference)}" if reference is not None else "no reference run"
        figures.append({"value": percent(summary["score"]), "label": "score of the run", "note": note})
    share = interval(diagnosis.get("recovered_share"))
    if share:
        note = f"95 % interval {percent(share['low'], 0)} to {percent(share['high'], 0)}"
        figures.append(
            {"value": percent(share["estimate"], 0), "label": "of the drop undone by re-scoring", "note": note}
        )
    if slices is not None:
        tested = f"of {count(summary['candidates'])} tested" if summary.get("candidates") else ""
        figures.append({"value": count(slices.height), "label": "failing slices", "note": tested})
        points_back = number(slices["recoverable_points"].sum(), 1) if slices.height else MISSING
        figures.append({"value": points_back, "label": "recoverable points", "note": "of the whole benchmark's score"})
    if chosen is not None:
        note = f"{amount(chosen['tokens'])} tokens with repeats"
        figures.append({"value": count(chosen["documents"]), "label": "documents to upsample", "note": note})
    return figures


def interval(found: Any) -> dict[str, float] | None:
    """An {estimate, low, high} record, or None unless all three are numbers."""
    if not isinstance(found, dict):
        return None
    three = {key: found.get(key) for key in ("estimate", "low", "high")}
    return three if all(isinstance(value, int | float) for value in three.values()) else None  # type: ignore[return-value]
