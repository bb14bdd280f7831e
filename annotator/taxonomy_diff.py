"""What changed between two versions of the codebook, and whether labels made with the first can be kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from annotator.taxonomy import AXES, GRADES, KINDS, Taxonomy


def taxonomy_diff(before: Taxonomy, after: Taxonomy) -> dict[str, Any]:
    """Every change of words between two taxonomies.

    Returns:
        before, after (versions), same (not a word differs),
        axes {axis: {added, removed [{value, kinds}], renamed [{before, after, kinds}], changed [{value, kind, before,
        after}], question? {before, after}, rule? {before, after: {kind: text}}}}, only axes with a change; a value is
        renamed when another with the same meaning took its place. grades: the same by grade, without kinds and rule.
        tiebreaks {kind: {added, removed}}.
        note: what to do about labels made with the first, a sentence.
    """
    axes = {axis: change for axis in AXES if (change := _axis(before, after, axis))}
    grades = {grade: change for grade in GRADES if (change := _grade(before, after, grade))}
    tiebreaks = {kind: change for kind in KINDS if (change := _tiebreaks(before, after, kind))}
    gone = sum(len(change.get(how, [])) for change in (axes | grades).values() for how in ("removed", "renamed"))
    redefined = sum(len(change.get("changed", [])) for change in (axes | grades).values())
    return {
        "before": before.version,
        "after": after.version,
        "same": not (axes or grades or tiebreaks),
        "axes": axes,
        "grades": grades,
        "tiebreaks": tiebreaks,
        "note": _note(before, after, gone, redefined, bool(axes or grades or tiebreaks)),
    }


def _axis(before: Taxonomy, after: Taxonomy, axis: str) -> dict[str, Any]:
    old, new = before.axes[axis], after.axes[axis]
    change = _values(
        {(value, kind): text for kind in KINDS for value, text in old.definitions[kind].items()},
        {(value, kind): text for kind in KINDS for value, text in new.definitions[kind].items()},
    )
    if old.question != new.question:
        change["question"] = {"before": old.question, "after": new.question}
    rules = {kind: (old.rule[kind], new.rule[kind]) for kind in KINDS if old.rule[kind] != new.rule[kind]}
    if rules:
        change["rule"] = {
            "before": {kind: rule for kind, (rule, _) in rules.items()},
            "after": {kind: rule for kind, (_, rule) in rules.items()},
        }
    return change


def _grade(before: Taxonomy, after: Taxonomy, grade: str) -> dict[str, Any]:
    change = _values(
        {(value, "document"): text for value, text in before.grades[grade].items()},
        {(value, "document"): text for value, text in after.grades[grade].items()},
    )
    if before.grade_questions[grade] != after.grade_questions[grade]:
        change["question"] = {"before": before.grade_questions[grade], "after": after.grade_questions[grade]}
    return change


def _values(old: Mapping[tuple[str, str], str], new: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    removed, added = _by_value(old.keys() - new.keys()), _by_value(new.keys() - old.keys())
    renamed = []
    for value, kinds in list(removed.items()):
        meaning = {kind: old[value, kind] for kind in kinds}
        heirs = [name for name, sides in added.items() if {kind: new[name, kind] for kind in sides} == meaning]
        if heirs:
            renamed.append({"before": value, "after": heirs[0], "kinds": kinds})
            del removed[value], added[heirs[0]]
    changed = [
        {"value": value, "kind": kind, "before": old[value, kind], "after": new[value, kind]}
        for value, kind in sorted(old.keys() & new.keys())
        if old[value, kind] != new[value, kind]
    ]
    found = {
        "added": [{"value": value, "kinds": kinds} for value, kinds in added.items()],
        "removed": [{"value": value, "kinds": kinds} for value, kinds in removed.items()],
        "renamed": renamed,
        "changed": changed,
    }
    return {how: rows for how, rows in found.items() if rows}


def _by_value(keys: set[tuple[str, str]]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for value, kind in sorted(keys):
        kinds.setdefault(value, []).append(kind)
    return kinds


def _tiebreaks(before: Taxonomy, after: Taxonomy, kind: str) -> dict[str, list[str]]:
    old, new = before.tiebreaks.get(kind, ()), after.tiebreaks.get(kind, ())
    change = {
        "added": [rule for rule in new if rule not in old],
        "removed": [rule for rule in old if rule not in new],
    }
    return {how: rules for how, rules in change.items() if rules}


def _note(before: Taxonomy, after: Taxonomy, gone: int, redefined: int, changed: bool) -> str:
    if not changed:
        return "The two are the same." if before.version == after.version else "Only the version differs."
    if before.version == after.version:
        return f"Give the second another version than {before.version!r}, or labels of both can be joined unnoticed."
    if gone:
        return "Labels made with the first use values that the second lacks: migrate them, or label again."
    if redefined:
        return "All old values still exist, but some mean something else now: label a sample again and compare."
    return "All old values still exist and mean the same; new ones are missing from old labels."
