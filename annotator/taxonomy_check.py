"""What an author should look at in a codebook: values twice, names undefined, definitions that say much the same."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from annotator.taxonomy import AXES, GRADES, KINDS, Taxonomy

OVERLAPPING = 0.5  # cosine of two definitions by their words, each weighed by how few definitions have it
_SIMILAR_NAME = 0.9
_NAME = re.compile(r"\b[a-z]+(?:[._][a-z]+)+\b")
_ABBREVIATIONS = {"e.g", "i.e"}
_WORD = re.compile(r"[a-z]{3,}")
_EMPTY_WORDS = {"and", "are", "but", "for", "from", "has", "have", "its", "not", "one", "than", "that", "the", "them"}
_EMPTY_WORDS |= {"then", "they", "this", "what", "which", "with"}


def taxonomy_check(
    taxonomy: Taxonomy, *, used: Mapping[str, Collection[str]] | None = None, rules: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Findings on a taxonomy that can be loaded; each is for a person to judge.

    Args:
        used: axis or grade -> the values that labels use.
        rules: further texts that speak of values, such as a prompt: name -> text.

    Returns:
        [{kind, axis, values, message}], sorted. kind: "duplicate" (two values of one axis with the same meaning, or
        names but for a letter the same), "overlap" (definitions of one axis with much the same words), "undefined" (a
        rule, tie-break or definition names a value that no axis has, or labels use it), "unused" (no label has it).
    """
    findings = [*_duplicates(taxonomy), *_overlaps(taxonomy), *_undefined_names(taxonomy, rules or {})]
    for axis, values in (used or {}).items():
        findings += _by_use(taxonomy, axis, values)
    order = ("duplicate", "undefined", "overlap", "unused")
    return sorted(findings, key=lambda found: (order.index(found["kind"]), found["axis"], found["values"]))


def _finding(kind: str, axis: str, values: list[str], message: str) -> dict[str, Any]:
    return {"kind": kind, "axis": axis, "values": values, "message": message}


def _definitions(taxonomy: Taxonomy) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(axis or grade, side, value -> meaning)."""
    for axis in AXES:
        for kind in KINDS:
            yield axis, kind, taxonomy.axes[axis].definitions[kind]
    for grade in GRADES:
        yield grade, "document", taxonomy.grades[grade]


def _duplicates(taxonomy: Taxonomy) -> list[dict[str, Any]]:
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for axis, side, meanings in _definitions(taxonomy):
        for one, other in itertools.combinations(sorted(meanings), 2):
            if _plain(meanings[one]) == _plain(meanings[other]):
                message = f"{one!r} and {other!r} mean the same on {side}s: keep one of them."
                found.setdefault((axis, one, other), _finding("duplicate", axis, [one, other], message))
            alike = difflib.SequenceMatcher(None, one, other).ratio() >= _SIMILAR_NAME
            if alike and axis not in GRADES:
                message = f"{one!r} and {other!r} can be mistaken for each other: rename one of them."
                found.setdefault((axis, one, other), _finding("duplicate", axis, [one, other], message))
    return list(found.values())


def _plain(meaning: str) -> str:
    return " ".join(meaning.casefold().split()).rstrip(".")


def _overlaps(taxonomy: Taxonomy) -> list[dict[str, Any]]:
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for axis, side, meanings in _definitions(taxonomy):
        if axis in GRADES:  # neighbouring grades are worded alike on purpose
            continue
        words = {value: Counter(_WORD.findall(text.casefold())) for value, text in meanings.items()}
        having = Counter(word for counts in words.values() for word in counts if word not in _EMPTY_WORDS)
        rarity = {word: math.log((1 + len(words)) / count) for word, count in having.items()}
        vectors = {
            value: {word: count * rarity[word] for word, count in counts.items() if word in rarity}
            for value, counts in words.items()
        }
        for one, other in itertools.combinations(sorted(vectors), 2):
            alike = _cosine(vectors[one], vectors[other])
            if alike >= OVERLAPPING and _plain(meanings[one]) != _plain(meanings[other]):
                message = f"on {side}s {one!r} and {other!r} are told apart by few words (similarity {alike:.2f})."
                found.setdefault((axis, one, other), _finding("overlap", axis, [one, other], message))
    return list(found.values())


def _cosine(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    length = math.sqrt(sum(x * x for x in one.values()) * sum(x * x for x in other.values()))
    return sum(one[word] * other[word] for word in sorted(one.keys() & other.keys())) / length if length else 0.0


def _undefined_names(taxonomy: Taxonomy, rules: Mapping[str, str]) -> list[dict[str, Any]]:
    """Names with a dot or an underscore are meant as values; plain words may be plain words."""
    known = {value for axis in AXES for value in taxonomy.all_values(axis)} | {*AXES, *GRADES}
    known |= {value for grade in GRADES for value in taxonomy.grades[grade]}
    texts = {(axis, f"the rule of {axis}"): " ".join(taxonomy.axes[axis].rule.values()) for axis in AXES}
    texts |= {("tiebreaks", f"a tie-break of {kind}s"): " ".join(taxonomy.tiebreaks[kind]) for kind in KINDS}
    for axis, _, meanings in _definitions(taxonomy):
        texts |= {(axis, f"the meaning of {value!r}"): text for value, text in meanings.items()}
    texts |= {("", name): text for name, text in rules.items()}
    findings = []
    for (axis, where), text in texts.items():
        for name in sorted(set(_NAME.findall(text)) - known - _ABBREVIATIONS):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            findings.append(_finding("undefined", axis, [name], f"{where} names {name!r}, which no axis has.{hint}"))
    return findings


def _by_use(taxonomy: Taxonomy, axis: str, used: Collection[str]) -> list[dict[str, Any]]:
    defined = taxonomy.all_values(axis) if axis in AXES else taxonomy.grade_values(axis)
    undefined = sorted(set(used) - set(defined))
    unused = sorted(set(defined) - set(used) - {"other"})
    return [
        *(_finding("undefined", axis, [value], f"labels use {value!r}, which {axis} lacks.") for value in undefined),
        *(_finding("unused", axis, [value], f"no label uses {value!r}.") for value in unused),
    ]
