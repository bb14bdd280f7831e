"""Documents chosen and left out, as the page shows them; counted lazily, so that a long list costs no memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from annotator.readers import read_documents
from annotator.report.artefacts import Folder
from annotator.report.wording import amount, clip, count, percent

SHOWN = 50
_SHARES = 8
_SPANS = 10
_REASONS = {
    "off_slice": "fits no failing slice",
    "over_budget": "fits, but the token budget was spent on better ones",
    "contaminated": "shares text with a benchmark item",
    "near_duplicate": "nearly the same as a chosen or better document",
    "low_quality": "below the quality gate",
    "source_cap": "its source or host already has its full share",
}


def totals(folder: Folder) -> dict[str, Any] | None:
    """documents and tokens (repeats counted) of the upsample list; None when there is no list."""
    if "upsample" not in folder.tables:
        return None
    spent = pl.col("tokens") * pl.col("repeats")
    found = folder.tables["upsample"].select(
        documents=pl.len(), tokens=spent.sum(), repeated=(pl.col("repeats") > 1).sum()
    )
    return found.collect().row(0, named=True)


def first_lines(
    folder: Folder, inputs: Sequence[str | Path], columns: Mapping[str, str], *, characters: int = 160
) -> dict[str, str]:
    """doc_id -> how its text begins, for the documents shown; stops reading the corpus when all are found."""
    if "upsample" not in folder.tables or not inputs:
        return {}
    wanted = set(_shown(folder)["doc_id"])
    found: dict[str, str] = {}
    for batch in read_documents(inputs, columns=columns):
        hits = batch.filter(pl.col("doc_id").is_in(sorted(wanted - set(found))))
        found |= {doc_id: clip(text[:2000], characters) for doc_id, text in hits.select("doc_id", "text").rows()}
        if len(found) == len(wanted):
            break
    return found


def _shown(folder: Folder) -> pl.DataFrame:
    return folder.tables["upsample"].sort("rank").head(SHOWN).collect()


def documents_section(folder: Folder, names: Mapping[str, str], lines: Mapping[str, str]) -> dict[str, Any] | None:
    """The first documents with their reasons, and where the token budget goes."""
    whole = totals(folder)
    if whole is None:
        return None
    shown = _shown(folder)
    best = shown["score"].max() or 1.0
    summary = folder.summary("upsample")
    budget = summary.get("budget_tokens")
    spent = [f"{amount(whole['tokens'])} tokens"]
    if isinstance(budget, int) and budget:
        spent.append(f"{percent(whole['tokens'] / budget, 0)} of the budget of {amount(budget)}")
    if whole["repeated"]:
        spent.append(f"{count(whole['repeated'])} documents more than once")
    return {
        "documents": count(whole["documents"]),
        "spent": ", ".join(spent),
        "note": clip(summary.get("note") or "", 600),
        "statement": clip((summary.get("decontamination") or {}).get("statement", ""), 400).rstrip("."),
        "rows": [_document(row, names, lines, best) for row in shown.rows(named=True)],
        "more": count(max(0, whole["documents"] - shown.height)),
        "all": whole["documents"] == shown.height,
        "by_source": _shares(folder, pl.col("source").fill_null("(no source)"), whole["tokens"]),
        "by_category": _shares(folder, pl.col("category_id").fill_null("(none)"), whole["tokens"]),
    }


def _document(row: dict[str, Any], names: Mapping[str, str], lines: Mapping[str, str], best: float) -> dict[str, Any]:
    return {
        "rank": count(row["rank"]),
        "doc_id": clip(row["doc_id"], 90),
        "line": lines.get(row["doc_id"], ""),
        "source": clip(row["source"] or "", 60),
        "category": clip(row["category_id"] or "", 120),
        "slices": [
            {"name": names.get(each, clip(each, 60)), "slice_id": clip(each, 200)} for each in row["slice_ids"] or []
        ],
        "rules": [clip(rule, 60) for rule in row["rule_ids"] or []],
        "score": f"{row['score']:#.3g}",
        "bar": round(100 * min(max(row["score"] / best, 0.0), 1.0), 2) if best > 0 else 0.0,
        "tokens": count(row["tokens"]),
        "repeats": f"×{row['repeats']}",
    }


def _shares(folder: Folder, group: pl.Expr, tokens: int) -> list[dict[str, Any]]:
    """The groups that get most tokens, largest first; the rest as one."""
    spent = (pl.col("tokens") * pl.col("repeats")).sum()
    found = folder.tables["upsample"].group_by(group.alias("group")).agg(tokens=spent, documents=pl.len()).collect()
    rows = found.sort(["tokens", "group"], descending=[True, False]).rows()
    if len(rows) > _SHARES + 1:
        rest = rows[_SHARES:]
        rows = [*rows[:_SHARES], (f"{len(rest)} more", sum(row[1] for row in rest), sum(row[2] for row in rest))]
    return [
        {
            "name": clip(name, 80),
            "bar": round(100 * spent / tokens, 2) if tokens else 0.0,
            "share": _rough(spent / tokens) if tokens else "",
            "tokens": amount(spent),
            "documents": count(documents),
        }
        for name, spent, documents in rows
    ]


def _rough(share: float) -> str:
    return "< 1 %" if 0 < share < 0.005 else percent(share, 0)


def dropped_section(folder: Folder) -> dict[str, Any] | None:
    """How many documents were left out for which reason, and spans of those that quote the benchmark."""
    if "dropped" not in folder.tables:
        return None
    table = folder.tables["dropped"]
    rows = (
        table.group_by("reason")
        .agg(documents=pl.len())
        .collect()
        .sort(["documents", "reason"], descending=[True, False])
    )
    whole = rows["documents"].sum()
    contaminated = table.filter(pl.col("reason") == "contaminated").sort("doc_id").head(_SPANS).collect()
    return {
        "documents": count(whole),
        "reasons": [
            {
                "name": clip(reason.replace("_", " "), 60),
                "meaning": _REASONS.get(reason, ""),
                "documents": count(documents),
                "bar": round(100 * documents / whole, 2),
                "share": percent(documents / whole),
            }
            for reason, documents in rows.rows()
        ],
        "contaminated": [
            {"doc_id": clip(doc_id, 90), "detail": clip(detail or "", 360)}
            for doc_id, detail in contaminated.select("doc_id", "detail").rows()
        ],
    }
