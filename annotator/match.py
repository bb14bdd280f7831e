"""Match failing slices to corpus categories by the mapping rules (`annotator.matching.affinity` has the arithmetic)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from annotator.errors import BadInput
from annotator.matching.affinity import Links, combined, mix_of, pooled, steps
from annotator.matching.dose import dose_response
from annotator.matching.profiles import Category, Profiles, category_sizes, profile_sizes, profiles
from annotator.matching.tracing import supply_fingerprint, table_fingerprint
from annotator.rule_table import CORE, GATE, UNGRADED, Rules
from annotator.tables import LABELS, MATCHES
from annotator.taxonomy import AXES, Taxonomy

SCARCE = 2.0


@dataclass(frozen=True, slots=True)
class Matches:
    """Slices against categories.

    table: MATCHES; slices in the order given, the highest weight first within one. weight is recoverable points x
        affinity. supply_gap is the slice's share of all recoverable points over its share of the corpus (tokens, or
        documents where tokens are unknown); above 2 the corpus is short of such text.
    unmatched: slice_id, reason (no_rule, no_documents, no_pull) and `wanted`, what such documents would look like.
    summary: counts and versions, JSON-ready.
    """

    table: pl.DataFrame
    unmatched: list[dict[str, str]]
    summary: dict[str, Any]


def match(
    slices: pl.DataFrame,
    document_labels: pl.DataFrame | pl.LazyFrame | None,
    *,
    rules: Rules,
    taxonomy: Taxonomy,
    documents: pl.DataFrame | pl.LazyFrame | None = None,
    item_labels: pl.DataFrame | None = None,
    mixtures: tuple[Mapping[str, float], Mapping[str, float]] | None = None,
) -> Matches:
    """Which categories of the corpus teach or exercise what each failing slice demands.

    Args:
        slices: SLICES; null axis values mean any.
        document_labels: LABELS of documents (a scan will do); None for rules that read a corpus's own columns.
        documents: doc_id and any of source, tokens and the columns that rules name.
        item_labels: LABELS of the items; with them, axes that a slice leaves open are judged by the mix of its items.
        mixtures: source -> share of the tokens trained on, before and after: adds the summary's `dose_response`.

    Raises:
        BadInput: a slice or label uses values that the taxonomy lacks, or a column that a rule asks for is missing.
    """
    _known(slices, taxonomy)
    found = profiles(document_labels, rules=rules, documents=documents)
    sizes, tokens = category_sizes(found)
    points = slices["recoverable_points"].fill_null(0.0).clip(lower_bound=0.0).to_list()
    gaps = _Supply(found, sum(points))
    links = Links(found.categories, rules)
    rows: list[dict[str, Any]] = []
    unmatched: list[dict[str, str]] = []
    scarce: list[str] = []
    for row, recoverable in zip(slices.iter_rows(named=True), points, strict=True):
        mix = {} if item_labels is None else mix_of(row, item_labels, rules)
        matched = {}
        for k in links.reached(row):
            trail = steps(row, found.categories[k], rules, covering=links.covering[k], mix=mix) if sizes[k] else []
            affinity, rule_ids = combined(trail)
            if affinity >= max(rules.min_affinity, 1e-6):
                matched[k] = (affinity, rule_ids)
        if not matched:
            unmatched.append(_unmatched(row, rules, taxonomy))
            continue
        gap = gaps.of({k: affinity for k, (affinity, _) in matched.items()}, rules, recoverable)
        if gap is not None and gap > SCARCE:
            scarce.append(row["slice_id"])
        ranked = sorted(matched, key=lambda k: (-matched[k][0], found.categories[k].id))
        rows += [
            {
                "slice_id": row["slice_id"],
                "category_id": found.categories[k].id,
                "affinity": matched[k][0],
                "weight": matched[k][0] * recoverable,
                "rule_ids": list(matched[k][1]),
                "documents": int(sizes[k]),
                "tokens": None if tokens is None else int(tokens[k]),
                "supply_gap": gap,
            }
            for k in ranked
        ]
    table = pl.DataFrame(rows, schema=MATCHES)
    summary = _summary(slices, found, table, unmatched, scarce, rules)
    summary["inputs"] = {"slices": table_fingerprint(slices), "corpus": supply_fingerprint(found)}
    if item_labels is not None:
        summary["inputs"]["item_labels"] = table_fingerprint(item_labels.select("record_id", *AXES))
    if mixtures is not None:
        summary["dose_response"] = dose_response(slices, table, found, rules, before=mixtures[0], after=mixtures[1])
    return Matches(table, unmatched, summary)


class _Supply:
    """Shares of the corpus, each document counted once however many of its operations match."""

    def __init__(self, found: Profiles, points: float) -> None:
        documents, tokens = profile_sizes(found)
        sizes = documents if tokens is None else tokens
        self.members, self.points = found.members, points
        self.sizes = np.where([guard is None for guard in found.guards], sizes, 0)

    def of(self, affinities: Mapping[int, float], rules: Rules, points: float) -> float | None:
        total = self.sizes.sum()
        if not total or not self.points:
            return None
        pulls = np.zeros(self.members.max(initial=-1) + 2)  # the last one stands for "no operation"
        pulls[list(affinities)] = list(affinities.values())
        supply = float((pooled(pulls[self.members], rules) * self.sizes).sum() / total)
        return round(points / self.points / supply, 6) if supply else None


def _known(slices: pl.DataFrame, taxonomy: Taxonomy) -> None:
    for row in slices.select("slice_id", *AXES).iter_rows(named=True):
        for axis in AXES:
            for value in row[axis] if isinstance(row[axis], list) else [row[axis]]:
                if value is not None:
                    taxonomy.check(axis, value, where=f"slice {row['slice_id']}", kind="item")


def _unmatched(row: Mapping[str, Any], rules: Rules, taxonomy: Taxonomy) -> dict[str, str]:
    operations = row[GATE] or []
    linked = [op for op in operations if any(r.axis == GATE and op in r.slice[GATE] for r in rules.rules)]
    if not any(row[axis] for axis in CORE):
        reason = "no_pull"
    else:
        reason = "no_documents" if linked or not operations else "no_rule"
    return {"slice_id": row["slice_id"], "reason": reason, "wanted": wanted(row, rules, taxonomy)}


def wanted(row: Mapping[str, Any], rules: Rules, taxonomy: Taxonomy) -> str:
    """What documents for a slice would look like, in the words of the taxonomy."""
    meanings = {axis: taxonomy.axes[axis].definitions["document"] for axis in AXES}
    moves = [meanings[GATE].get(op, op).rstrip(".") for op in row[GATE] or []]
    parts = [f"text that carries this out at length: {'; '.join(moves)}"] if moves else ["text"]
    if row["background_condition"]:
        subject = meanings["background_condition"].get(row["background_condition"], row["background_condition"])
        parts.append(f"on {row['background_condition']} ({subject.rstrip('.')})")
    if row["task_type"]:
        purpose = meanings["task_type"].get(row["task_type"], row["task_type"])
        parts.append(f"with the purpose {row['task_type']} ({purpose.rstrip('.')})")
    if not any(row[axis] for axis in CORE):
        return "The slice names an output form only, which pulls no text: look at the scorer and the prompt first."
    reasons = [rules.no_counterpart[op] for op in row[GATE] or [] if op in rules.no_counterpart]
    if not rules.needs_labels:
        sides = [rule.document for op in row[GATE] or [] for rule in rules.rules if op in rule.slice.get(GATE, ())]
        looked_for = dict.fromkeys("&".join(predicate.label for predicate in side) for side in sides)
        reasons += [f"The rules look for {'; '.join(looked_for)}."] if looked_for else []
    return " ".join([f"Nothing to upsample: collect or write {', '.join(parts)}.", *reasons])


def _summary(
    slices: pl.DataFrame, found: Profiles, table: pl.DataFrame, unmatched: list[dict[str, str]], scarce: list[str],
    rules: Rules,
) -> dict[str, Any]:  # fmt: skip
    usable = found.documents["profile"].is_not_null().sum()
    matched = set(table["category_id"].to_list())
    hit = [any(found.categories[k].id in matched for k in row if k >= 0) for row in found.members]
    free = np.array([is_hit and guard is None for is_hit, guard in zip(hit, found.guards, strict=True)], dtype=bool)
    documents, tokens = profile_sizes(found)
    note = "" if usable else "No document has usable labels."
    if unmatched:
        note = f"{len(unmatched)} of {slices.height} slices have no counterpart in this corpus."
    return {
        "slices": slices.height,
        "slices_matched": slices.height - len(unmatched),
        "slices_unmatched": len(unmatched),
        "unmatched": unmatched,
        "scarce_slices": scarce,
        "categories": len(found.categories),
        "categories_matched": len(matched),
        "documents": found.documents.height,
        "documents_matched": int(documents[free].sum()),
        "tokens": None if tokens is None else int(tokens.sum()),
        "rules_version": rules.version,
        "rules_fingerprint": rules.fingerprint,
        "note": note,
    }


def explain(slice_row: Mapping[str, Any], document: Mapping[str, Any], *, rules: Rules) -> dict[str, Any]:
    """The arithmetic between one slice and one document, axis by axis.

    Args:
        slice_row: the axes of a slice (a row of SLICES).
        document: the labels of a document (a row of LABELS) with any column that rules name; or, for rules that read a
            corpus's own columns, a row of those.

    Returns:
        affinity, guard (id or None), worth {product, arithmetic}: what exercise, quality and confidence leave of it;
        operations, one for each of the document: category_id, affinity, position (its weight), practised (exercise
        counts), steps [{axis, weight, slice, document, strength, rule_ids}], arithmetic (the formula with its numbers).
    """
    if rules.needs_labels and not document.get(GATE):
        raise BadInput("the document has no labels", where=str(document.get("record_id", "")))
    row = {"record_id": "document", "status": "ok", "exercise": None, "quality": None, "confidence": None, **document}
    table = pl.DataFrame([row], schema_overrides={name: dtype for name, dtype in LABELS.items() if name in row})
    if not rules.needs_labels:
        table = pl.DataFrame([{"doc_id": "document", **document}])
    labels, own = (table, None) if rules.needs_labels else (None, table)
    found = profiles(labels, rules=rules, documents=own)
    if found.documents["profile"].null_count():
        what = f"the document has no value in {', '.join(rules.category)}"
        raise BadInput(what, where=str(document.get("record_id") or document.get("doc_id") or ""))
    parts = [
        _explained(slice_row, found.categories[k], rules.position[place], rules)
        for place, k in enumerate(found.members[0])
        if k >= 0
    ]
    none = [0.0] * (found.members.shape[1] - len(parts))
    affinity = float(pooled(np.array([[part["affinity"] for part in parts] + none]), rules)[0])
    worth = _worth(found, parts, none, rules)
    if found.guards[0]:
        affinity = worth["product"] = 0.0
    return {"affinity": round(affinity, 6), "guard": found.guards[0], "worth": worth, "operations": parts}


def _worth(found: Profiles, parts: list[dict[str, Any]], none: list[float], rules: Rules) -> dict[str, Any]:
    """What ranking makes of the affinity: only as much as the text exercises it, by its quality and its label."""
    grade, quality, confidence = found.exercise[0], found.documents["quality"][0], found.documents["confidence"][0]
    exercise = rules.exercise.get(grade or "", 1.0)
    pulls = [part["affinity"] * (exercise if part["practised"] else 1.0) for part in parts]
    exercised = float(pooled(np.array([pulls + none]), rules)[0])
    factor = rules.quality.get(quality, UNGRADED)
    sure = 1.0 if confidence is None else min(max(confidence, 0.0), 1.0)
    product = round(exercised * factor * sure, 6)
    shown = f"{exercised:.3f} (exercise {grade}: {exercise:g}) x {factor:g} (quality {quality}) x {sure:g} (confidence)"
    return {"product": product, "arithmetic": f"{shown} = {product:.3f}"}


def _explained(slice_row: Mapping[str, Any], category: Category, position: float, rules: Rules) -> dict[str, Any]:
    trail = steps(slice_row, category, rules)
    affinity, rule_ids = combined(trail)
    sums = " + ".join(f"{step.weight:g} ln {step.strength:.3g}" for step in trail)
    shut = next((step.axis for step in trail if not step.open), None)
    formula = f"exp(({sums}) / {sum(step.weight for step in trail):g}) = {affinity:.3f}"
    return {
        "category_id": category.id,
        "affinity": affinity,
        "position": position,
        "practised": any(rule.id in rule_ids and rule.direction == "exercises" for rule in rules.rules),
        "rule_ids": list(rule_ids),
        "steps": [
            {
                "axis": step.axis,
                "weight": step.weight,
                "slice": slice_row[step.axis],
                "document": category.value(step.axis),
                "strength": step.strength,
                "rule_ids": list(step.rule_ids),
            }
            for step in trail
        ],
        "arithmetic": f"no rule opens the gate {shut}: 0" if shut else (formula if trail else "no axis pulls: 0"),
    }
