"""The four-axis slice taxonomy: which values exist, what they mean, on which side they may be used."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from annotator.errors import BadInput, UnknownValue, did_you_mean
from annotator.fingerprint import fingerprint
from annotator.resources import resource

Kind = Literal["item", "document"]
KINDS: tuple[Kind, ...] = ("item", "document")
AXES = ("background_condition", "task_type", "solving_operation", "output_constraint")
GRADES = ("exercise", "quality")
MAX_OPERATIONS = 3

_TOP_KEYS = {"version", *AXES, "grades", "tiebreaks"}
_AXIS_KEYS = {"question", "cardinality", "rule", "values"}
_VALUE_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: `definitions` maps kind -> value -> meaning, in the order of the file; `rule` maps kind -> text."""

    name: str
    question: str
    rule: dict[str, str]
    definitions: dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """A loaded taxonomy. `fingerprint` changes with any word of it; `version` is the author's own."""

    version: str
    axes: dict[str, Axis]
    grades: dict[str, dict[str, str]]
    grade_questions: dict[str, str]
    tiebreaks: dict[str, tuple[str, ...]]
    fingerprint: str = field(repr=False)

    def values(self, axis: str, kind: Kind) -> tuple[str, ...]:
        """The values of an axis that may be used on one side, in the order of the file."""
        return tuple(self.axes[axis].definitions[kind])

    def all_values(self, axis: str) -> tuple[str, ...]:
        """The values of an axis that exist on either side."""
        return tuple(dict.fromkeys(value for kind in KINDS for value in self.axes[axis].definitions[kind]))

    def grade_values(self, grade: str) -> tuple[str, ...]:
        """The values of `exercise` or `quality`, lowest first (quality as "1".."5")."""
        return tuple(self.grades[grade])

    def check(self, axis: str, value: str, *, where: str, kind: Kind | None = None) -> None:
        """Raise UnknownValue unless `value` belongs to `axis` (on the given side, or on either)."""
        allowed = self.values(axis, kind) if kind else self.all_values(axis)
        if value not in allowed:
            raise UnknownValue(axis, value, allowed, where)


def load_taxonomy(path: str | Path | None = None) -> Taxonomy:
    """Read and validate a taxonomy file (default: the shipped one).

    Raises:
        BadInput: if the file is missing, is not TOML, or breaks the form; the message names key and remedy.
    """
    return _load(Path(path) if path is not None else resource("schemas", "taxonomy.toml"))


@lru_cache(maxsize=8)
def _load(path: Path) -> Taxonomy:
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInput(
            "no such taxonomy file", where=str(path), remedy="Check the path given with --taxonomy."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the taxonomy cannot be read ({error})", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"not valid TOML: {error}", where=str(path), remedy="Mend the file at that place.") from None
    return parse_taxonomy(raw, where=str(path))


def parse_taxonomy(raw: dict[str, Any], *, where: str) -> Taxonomy:
    """Validate a parsed TOML document; `where` names its file in messages."""
    _only_keys(raw, _TOP_KEYS, where)
    version = raw.get("version")
    if not isinstance(version, str) or not version:
        raise BadInput('"version" must be a non-empty string', where=where, remedy='Write version = "1", say.')
    missing = [axis for axis in AXES if axis not in raw]
    if missing:
        raise BadInput(f"axis [{missing[0]}] is missing", where=where, remedy=f"The four axes are {', '.join(AXES)}.")
    axes = {name: _parse_axis(name, raw[name], where) for name in AXES}
    grades, questions = _parse_grades(raw.get("grades"), where)
    return Taxonomy(
        version=version,
        axes=axes,
        grades=grades,
        grade_questions=questions,
        tiebreaks=_parse_tiebreaks(raw.get("tiebreaks", {}), where),
        fingerprint=fingerprint(raw),
    )


def _parse_axis(name: str, raw: Any, where: str) -> Axis:
    if not isinstance(raw, dict):
        raise BadInput(f"[{name}] must be a table", where=where)
    _only_keys(raw, _AXIS_KEYS, f"{where} [{name}]")
    if not isinstance(raw.get("question"), str):
        raise BadInput(f'[{name}] needs a text "question"', where=where, remedy="It is shown to the judge.")
    rule = raw.get("rule")
    rule = dict.fromkeys(KINDS, rule) if isinstance(rule, str) else rule
    if not isinstance(rule, dict) or set(rule) != set(KINDS) or not all(isinstance(rule[kind], str) for kind in KINDS):
        remedy = 'Write a text, or rule.item = "..." and rule.document = "...". It is shown to the judge.'
        raise BadInput(f'[{name}] needs a "rule"', where=where, remedy=remedy)
    values = raw.get("values")
    if not isinstance(values, dict) or len(values) < 2:
        raise BadInput(f"[{name}.values] needs at least two values", where=where)
    definitions: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    for value, meaning in values.items():
        place = f"{where} [{name}.values]"
        if not _VALUE_NAME.fullmatch(value):
            remedy = "Use lower-case letters, digits and _, with dots between levels, and quote names with dots."
            raise BadInput(f"{value!r} is not a valid value name", where=place, remedy=remedy)
        for kind, text in _sides(value, meaning, place).items():
            definitions[kind][value] = text
    for kind in KINDS:
        if not definitions[kind]:
            raise BadInput(f"[{name}] has no value for the {kind} side", where=where)
    return Axis(name=name, question=raw["question"], rule=rule, definitions=definitions)


def _sides(value: str, meaning: Any, where: str) -> dict[str, str]:
    """kind -> meaning: a plain text holds on both sides; a table holds on the sides it names."""
    if isinstance(meaning, str) and meaning.strip():
        return dict.fromkeys(KINDS, meaning)
    if isinstance(meaning, dict) and meaning:
        _only_keys(meaning, set(KINDS), f"{where} {value}")
        if all(isinstance(text, str) and text.strip() for text in meaning.values()):
            return meaning
    remedy = 'Write a sentence, or { item = "...", document = "..." }.'
    raise BadInput(f"the meaning of {value!r} is missing", where=where, remedy=remedy)


def _parse_grades(raw: Any, where: str) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    if not isinstance(raw, dict):
        raise BadInput("[grades.exercise] and [grades.quality] are missing", where=where)
    _only_keys(raw, set(GRADES), f"{where} [grades]")
    grades, questions = {}, {}
    for grade in GRADES:
        table = raw.get(grade)
        if not isinstance(table, dict) or not isinstance(table.get("values"), dict):
            raise BadInput(f"[grades.{grade}] needs a question and values", where=where)
        _only_keys(table, {"question", "values"}, f"{where} [grades.{grade}]")
        grades[grade] = dict(table["values"])
        questions[grade] = str(table.get("question", ""))
    if list(grades["quality"]) != [str(level) for level in range(1, len(grades["quality"]) + 1)]:
        raise BadInput('[grades.quality.values] must be "1", "2", ... in order', where=where)
    return grades, questions


def _parse_tiebreaks(raw: Any, where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(raw, dict):
        raise BadInput("[tiebreaks] must be a table", where=where)
    _only_keys(raw, set(KINDS), f"{where} [tiebreaks]")
    return {kind: tuple(raw.get(kind, ())) for kind in KINDS}


def _only_keys(table: dict[str, Any], allowed: set[str], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise BadInput(f"unknown key {key!r}", where=where, remedy=did_you_mean(key, allowed))
