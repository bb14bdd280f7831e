"""What the labels look like on both sides, and what the artefacts were made from."""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from annotator.report.artefacts import ARTEFACTS, Folder
from annotator.report.wording import clip, count, percent
from annotator.taxonomy import AXES, GRADES, load_taxonomy

_VALUES = 12
_LONGEST_FACT = 72  # sentences stand elsewhere on the page
_SIDES = (("item_labels", "items"), ("document_labels", "documents"))
_DIGEST = re.compile(r"[0-9a-f]{40,}")


def labels_section(folder: Folder) -> dict[str, Any] | None:
    """Shares of records per value, items beside documents; a record counts once for each operation it names."""
    sides = {side: folder.tables[name] for name, side in _SIDES if name in folder.tables}
    if not sides:
        return None
    counts = {side: _totals(table) for side, table in sides.items()}
    return {
        "sides": [_side(side, counts[side]) for side in sides],
        "has": {side: side in sides for _, side in _SIDES},
        "axes": [_axis(axis, sides, counts) for axis in (*AXES, *GRADES) if axis not in GRADES or "documents" in sides],
    }


def _good(table: pl.LazyFrame) -> pl.LazyFrame:
    return table.filter(pl.col("status") == "ok")


def _totals(table: pl.LazyFrame) -> dict[str, Any]:
    ok = pl.col("status") == "ok"
    names = ("judge", "model", "taxonomy_version", "prompt_version")
    found = table.select(
        labelled=ok.sum(),
        failed=(~ok).sum(),
        truncated=pl.col("truncated").sum(),
        confidence=pl.col("confidence").mean(),
    )
    distinct = table.select(pl.col(name).drop_nulls().unique().sort().implode() for name in names)
    return found.collect().row(0, named=True) | distinct.collect().row(0, named=True)


def _side(side: str, found: dict[str, Any]) -> dict[str, str]:
    parts = [f"{count(found['labelled'])} labelled"]
    parts += [f"{count(found['failed'])} failed"] if found["failed"] else []
    parts += [f"{count(found['truncated'])} read only in part"] if found["truncated"] else []
    parts += [f"mean confidence {found['confidence']:.2f}"] if found["confidence"] is not None else []
    return {
        "name": side,
        "counts": ", ".join(parts),
        "judge": clip(", ".join(found["judge"]), 200),
        "model": clip(", ".join(found["model"]), 200),
        "taxonomy": clip(", ".join(found["taxonomy_version"]), 80),
        "prompt": clip(", ".join(found["prompt_version"]), 200),
    }


def _axis(axis: str, sides: dict[str, pl.LazyFrame], counts: dict[str, Any]) -> dict[str, Any]:
    if axis in GRADES:
        sides = {"documents": sides["documents"]}
    shares = {side: _shares(axis, table, counts[side]["labelled"]) for side, table in sides.items()}
    values = {value for found in shares.values() for value in found}
    scale = load_taxonomy().grade_values(axis) if axis in GRADES else ()
    if values <= set(scale):
        ordered = [value for value in scale if value in values]
    else:
        ordered = sorted(values, key=lambda value: (-max(found.get(value, 0.0) for found in shares.values()), value))
    rows = [
        {
            "value": clip(value, 60),
            "bars": [
                {"side": side, "bar": round(100 * found.get(value, 0.0), 2), "share": percent(found.get(value, 0.0))}
                for side, found in shares.items()
            ],
        }
        for value in ordered[:_VALUES]
    ]
    return {"name": axis.replace("_", " "), "rows": rows, "more": max(0, len(ordered) - _VALUES)}


def _shares(axis: str, table: pl.LazyFrame, labelled: int) -> dict[str, float]:
    column = pl.col(axis).explode() if axis == "solving_operation" else pl.col(axis)
    found = _good(table).select(column.cast(pl.String).alias("value")).drop_nulls().group_by("value").len().collect()
    return {value: rows / labelled for value, rows in found.rows()} if labelled else {}


def provenance_section(folder: Folder) -> dict[str, Any]:
    """For each artefact the versions, settings and fingerprints that it carries."""
    rows = []
    for name, artefact in ARTEFACTS.items():
        if name in folder.tables:
            rows_there = folder.tables[name].select(pl.len()).collect().item()
            facts = sorted(_flat(folder.made_from[name]))
            rows.append({"file": artefact.file, "rows": count(rows_there), "facts": facts})
        elif name in folder.records:
            rows.append({"file": artefact.file, "rows": "", "facts": sorted(_flat(_settings(folder.records[name])))})
    keys = [
        {"step": step.replace("_", " "), "key": noted["key"][:16]}
        for step, noted in sorted(folder.steps.items())
        if isinstance(noted, dict) and isinstance(noted.get("key"), str) and step != "report"
    ]
    return {"rows": rows, "steps": keys}


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    known = ("annotator", "version", "runs", "items_used", "taxonomy", "made_from")
    return {key: record[key] for key in known if key in record}


def _flat(facts: Any, trail: str = "") -> list[tuple[str, str]]:
    """Nested metadata as (dotted name, short value); long digests cut to 16 digits, sentences left out."""
    if isinstance(facts, dict):
        return [pair for key, inner in facts.items() for pair in _flat(inner, f"{trail}.{key}" if trail else str(key))]
    if isinstance(facts, list):
        text = ", ".join(str(inner) for inner in facts[:6]) + (", …" if len(facts) > 6 else "")
    else:
        text = f"{facts:.4g}" if isinstance(facts, float) else str(facts)
    text = _DIGEST.sub(lambda match: match[0][:16], text)
    return [] if facts is None or len(text) > _LONGEST_FACT else [(clip(trail, 80), clip(text, _LONGEST_FACT))]
