"""The effect of training on the listed documents, as the page shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from annotator.report.artefacts import Folder
from annotator.report.headline import interval
from annotator.report.sections import Axis
from annotator.report.wording import chance, clip, count, percent, points

_LOST = 8


def verification_section(folder: Folder, names: Mapping[str, str]) -> dict[str, Any] | None:
    """Paired effects on the target slices, against controls and elsewhere, all on one axis; losses; pass@k."""
    found = folder.records.get("verification")
    if found is None:
        return None
    effects = [(name, span, note) for name, effect, note in _effects(found, names) if (span := interval(effect))]
    ends = [span[key] for _, span, _ in effects for key in ("low", "high")]
    axis = Axis(min([-0.05, *ends]), max([0.05, *ends]))
    advice = found.get("advice") or []
    regressions = _record(found.get("regressions"))
    return {
        "verdict": clip(str(found.get("verdict", "")), 40),
        "summary": clip(found.get("summary") or "", 600),
        "rows": [
            {
                "name": name,
                "note": note,
                "plot": axis.span(span),
                "written": f"{points(span['estimate'])} [{points(span['low'])}, {points(span['high'])}]",
            }
            for name, span, note in effects
        ],
        "ticks": axis.ticks(),
        "zero": axis.at(0.0),
        "advice": [clip(line, 600) for line in ([advice] if isinstance(advice, str) else advice)],
        "tested": count(regressions["tested"]) if regressions.get("tested") else "",
        "lost": [_lost(row) for row in (regressions.get("lost") or [])[:_LOST]],
        "pass_at_k": [_pass_row(row) for row in found.get("pass_at_k") or [] if isinstance(row, dict)],
    }


def _effects(found: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    """(what, effect, note) in the order in which they are read: the targets, their slices, controls, the rest."""
    yield "target slices", *_group(found.get("target"))
    for row in found.get("slices") or []:
        slice_id = str(_record(row).get("slice_id"))
        yield names.get(slice_id, clip(slice_id, 80)), *_group(row)
    for row in found.get("controls") or []:
        row = _record(row)
        yield f"target slices, more than {clip(row.get('name'), 60)}", row.get("over_control_target"), ""
    yield "target slices, half of the families", *_group(found.get("held_out"))
    yield "all other items", *_group(found.get("untouched"))
    yield "all items", *_group(found.get("overall"))
    yield "another benchmark", *_group(found.get("disjoint"))


def _group(row: Any) -> tuple[Any, str]:
    row = _record(row)
    flips = [row.get("gained"), row.get("lost")]
    note = f"{count(flips[0])} items up, {count(flips[1])} down" if all(isinstance(n, int) for n in flips) else ""
    return row.get("effect"), note


def _lost(row: Any) -> dict[str, str]:
    row = _record(row)
    return {
        "slice_id": clip(row.get("slice_id"), 200),
        "items": count(row.get("items")),
        "effect": points(row.get("effect")),
        "p": chance(row.get("p_adjusted")),
    }


def _pass_row(row: Mapping[str, Any]) -> dict[str, str]:
    shares = {key: percent(row.get(key)) for key in ("before", "after", "before_floor", "after_floor")}
    return {"k": count(row.get("k")), **shares}


def _record(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
