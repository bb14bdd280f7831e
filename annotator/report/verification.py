"""The effect of training on the listed documents, as the page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from annotator.report.artefacts import Folder
from annotator.report.headline import interval
from annotator.report.sections import Axis
from annotator.report.wording import clip, points


def verification_section(folder: Folder, names: Mapping[str, str]) -> dict[str, Any] | None:
    """Paired effects on the target slices, on controls and elsewhere, all on one axis."""
    found = folder.records.get("verification")
    if found is None:
        return None
    effects = [effect for effect in _effects(found, "", names) if effect["span"]]
    ends = [effect["span"][key] for effect in effects for key in ("low", "high")]
    axis = Axis(min([-0.05, *ends]), max([0.05, *ends]))
    return {
        "verdict": clip(str(found.get("verdict", "")).replace("_", " "), 40),
        "summary": clip(found.get("summary") or found.get("note") or "", 600),
        "rows": [
            {
                "name": effect["name"],
                "plot": axis.span(effect["span"]),
                "written": f"{points(effect['span']['estimate'])} [{points(effect['span']['low'])}, "
                f"{points(effect['span']['high'])}]",
            }
            for effect in effects
        ],
        "ticks": axis.ticks(),
        "zero": axis.at(0.0),
    }


def _effects(found: Any, trail: str, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every {estimate, low, high} of the record, named by where it stands."""
    if isinstance(found, list):
        return [effect for entry in found for effect in _effects(entry, trail, names)]
    if not isinstance(found, dict):
        return []
    own = found.get("slice_id") or found.get("name")
    if own:
        trail = f"{trail} {names.get(own, clip(own, 80))}".strip()
    if interval(found):
        return [{"name": trail.replace("_", " "), "span": interval(found)}]
    return [
        effect
        for key, inner in found.items()
        if isinstance(inner, dict | list)
        for effect in _effects(inner, f"{trail} {clip(key, 60)}".strip(), names)
    ]
