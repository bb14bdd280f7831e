"""The rule file: which documents teach or exercise what a failing slice demands.

A rule file speaks of axis values on the slice side, and of axis values, grades or any other column on the document
side. It is read and checked here as exactly as a taxonomy is; `annotator.match` applies it, and no model is asked then.
Packs are rule files for corpora that carry labels of their own: their columns take the place of ours.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from annotator.errors import BadInput, did_you_mean
from annotator.fingerprint import fingerprint
from annotator.resources import resource
from annotator.rule_table import CORE, GATE, Guard, Near, Predicate, Rule, Rules
from annotator.taxonomy import AXES, MAX_OPERATIONS, Kind, Taxonomy, load_taxonomy

DIRECTIONS = ("teaches", "exercises", "form_only")
STRENGTHS = (1.0, 0.5, 0.25)
PACKS = {"weborganizer": "mapping_weborganizer.toml", "essential-web": "mapping_essential_web.toml"}

_TOP_KEYS = {"version", "min_affinity", "weights", "unrelated", "position", "exercise", "quality"}
_PACK_KEYS = {"category", "columns", "names"}
_TABLES = {"rule", "guard", "near", "no_counterpart"}
_RULE_KEYS = {"id", "slice", "document", "strength", "direction", "reason", "bound"}
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def load_rules(path: str | Path | None = None, *, taxonomy: Taxonomy | None = None) -> Rules:
    """Read and validate a rule file (default: the shipped one) against a taxonomy (default: the shipped one).

    Args:
        path: a file, or the name of a shipped pack (PACKS) for a corpus that carries labels of its own.

    Raises:
        BadInput: the file is missing, is not TOML, or breaks the form; the message names file, rule id and remedy.
        UnknownValue: a rule names a value that its axis does not define on that side.
    """
    if path is None:
        return _load(resource("schemas", "mapping.toml"), taxonomy)
    return _load(resource("schemas", PACKS[str(path)]) if str(path) in PACKS else Path(path), taxonomy)


def renamed(rules: Rules, columns: Mapping[str, str]) -> tuple[Rules, dict[str, str]]:
    """Rules that look for their corpus's columns under a user's own names, and the renamings that are not for them.

    Args:
        columns: name that the rules or readers use -> the user's name ("topic" -> "domain_topic").
    """
    mine = {name: theirs for name, theirs in columns.items() if name in rules.columns}
    rest = {name: theirs for name, theirs in columns.items() if name not in mine}
    return replace(rules, columns={**rules.columns, **mine}), rest


def _load(path: Path, taxonomy: Taxonomy | None) -> Rules:
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        remedy = f"Give a file, or one of {', '.join(PACKS)}."
        raise BadInput("no such rule file", where=str(path), remedy=remedy) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the rules cannot be read ({error})", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"not valid TOML: {error}", where=str(path), remedy="Mend the file at that place.") from None
    return parse_rules(raw, taxonomy=taxonomy or load_taxonomy(), where=str(path))


def parse_rules(raw: Mapping[str, Any], *, taxonomy: Taxonomy, where: str) -> Rules:
    """Validate a parsed rule file; `where` names it in messages."""
    _only_keys(raw, _TOP_KEYS | _TABLES | _PACK_KEYS, where)
    version = raw.get("version")
    if not isinstance(version, str) or not version:
        raise BadInput('"version" must be a non-empty string', where=where, remedy='Write version = "1", say.')
    weights = _shares(raw, "weights", AXES, where)
    if weights[GATE] <= 0:
        raise BadInput(f"the weight of {GATE} must be above 0", where=f"{where} [weights]")
    corpus = _parse_corpus(raw, where)
    rules = tuple(_parse_rule(one, taxonomy, corpus, where) for one in _tables(raw, "rule", where))
    guards = tuple(_parse_guard(one, taxonomy, corpus, where) for one in _tables(raw, "guard", where))
    near = tuple(_parse_near(one, taxonomy, where) for one in _tables(raw, "near", where))
    _distinct_ids([*rules, *guards, *near], where)
    _codes_are_codes([*rules, *guards], where)
    exercise, quality = _parse_grades(raw, corpus["columns"], taxonomy, where)
    return Rules(
        version=version,
        min_affinity=float(_share(raw.get("min_affinity", 0.0), "min_affinity", where)),
        weights=weights,
        unrelated=_shares(raw, "unrelated", AXES[:2] + AXES[3:], where),
        position=_parse_position(raw, corpus, where),
        exercise=exercise,
        quality=quality,
        rules=rules,
        guards=guards,
        near=near,
        no_counterpart=dict(
            _parse_no_counterpart(one, taxonomy, where) for one in _tables(raw, "no_counterpart", where)
        ),
        where=where,
        fingerprint=fingerprint(raw),
        **corpus,
    )


def _parse_corpus(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """category, columns and names of a pack; those of our own labels where the file names none."""
    columns = raw.get("columns", {})
    if not isinstance(columns, Mapping) or not all(isinstance(path, str) and path for path in columns.values()):
        raise BadInput("[columns] must name columns", where=where, remedy='Write topic = "their_topic_column".')
    category = tuple(raw.get("category", CORE))
    for name in category:
        if name not in columns and category != CORE:
            raise BadInput(f"category names {name!r}", where=where, remedy=did_you_mean(str(name), columns))
    names = {name: _spellings(raw["names"][name], name, columns, where) for name in raw.get("names", {})}
    return {"category": category, "columns": dict(columns), "names": names}


def _spellings(raw: Any, name: str, columns: Mapping[str, str], where: str) -> tuple[tuple[str, ...], ...]:
    """Labels of a column in the order of their numbers; one that is spelt in several ways is a list."""
    found = [tuple(label) if isinstance(label, list) else (label,) for label in raw] if isinstance(raw, list) else []
    if name not in columns or not found or not all(isinstance(text, str) for label in found for text in label):
        raise BadInput(f"[names] {name} must list the labels of a column", where=where)
    return tuple(found)


def _parse_position(raw: Mapping[str, Any], corpus: Mapping[str, Any], where: str) -> tuple[float, ...]:
    position = raw.get("position", [] if GATE in corpus["category"] else [1.0])
    wanted = MAX_OPERATIONS if GATE in corpus["category"] else 1
    if len(position) != wanted or not all(_is_share(value) for value in position):
        raise BadInput(f'"position" must be {wanted} numbers in 0..1', where=where)
    return tuple(map(float, position))


def _parse_grades(
    raw: Mapping[str, Any], columns: Mapping[str, str], taxonomy: Taxonomy, where: str
) -> tuple[dict[str, float], dict[int, float]]:
    """Factors of exercise and quality: for the taxonomy's grades, or for the values of a pack's own columns."""
    own = {"exercise": "exercise" in columns, "quality": "quality" in columns}
    tables = {}
    for grade, has_own in own.items():
        if GATE not in raw.get("category", CORE) and not has_own:
            tables[grade] = {}
            continue
        values = tuple(raw.get(grade, ())) if has_own else taxonomy.grade_values(grade)
        tables[grade] = _shares(raw, grade, values, where)
    try:
        return tables["exercise"], {int(value): factor for value, factor in tables["quality"].items()}
    except ValueError:
        raise BadInput("the grades of quality must be whole numbers", where=f"{where} [quality]") from None


def _parse_rule(raw: Mapping[str, Any], taxonomy: Taxonomy, corpus: Mapping[str, Any], where: str) -> Rule:
    place = f"{where} rule {_id(raw, 'rule', where)!r}"
    _only_keys(raw, _RULE_KEYS, place)
    sides = raw.get("slice")
    if not isinstance(sides, Mapping) or not sides:
        raise BadInput(
            "the slice side is missing", where=place, remedy='Write slice = { solving_operation = ["..."] }.'
        )
    _only_keys(sides, set(AXES), f"{place} slice")
    slice_side = {axis: _values(values, axis, taxonomy, "item", f"{place} slice") for axis, values in sides.items()}
    strength, direction = raw.get("strength"), raw.get("direction")
    if strength not in STRENGTHS:
        allowed = ", ".join(f"{value:g}" for value in STRENGTHS)
        raise BadInput(f"strength {strength!r} is not one of {allowed}", where=place)
    if direction not in DIRECTIONS:
        raise BadInput(
            f"{direction!r} is not a direction", where=place, remedy=did_you_mean(str(direction), DIRECTIONS)
        )
    bound = tuple(raw.get("bound", ()))
    for axis in bound:
        if axis not in CORE[1:]:
            raise BadInput(f"bound names {axis!r}", where=place, remedy=did_you_mean(str(axis), CORE[1:]))
    return Rule(
        id=raw["id"],
        axis=next(axis for axis in (*CORE, *AXES) if axis in slice_side),
        slice=slice_side,
        document=_predicates(raw.get("document"), taxonomy, corpus, f"{place} document"),
        strength=float(strength),
        direction=direction,
        reason=_reason(raw, place),
        bound=bound,
    )


def _parse_guard(raw: Mapping[str, Any], taxonomy: Taxonomy, corpus: Mapping[str, Any], where: str) -> Guard:
    place = f"{where} guard {_id(raw, 'guard', where)!r}"
    _only_keys(raw, {"id", "document", "reason"}, place)
    document = _predicates(raw.get("document"), taxonomy, corpus, f"{place} document")
    return Guard(raw["id"], document, _reason(raw, place))


def _parse_near(raw: Mapping[str, Any], taxonomy: Taxonomy, where: str) -> Near:
    place = f"{where} near {_id(raw, 'near', where)!r}"
    _only_keys(raw, {"id", "axis", "values", "strength"}, place)
    axis = raw.get("axis")
    if axis not in AXES or axis == GATE:
        remedy = f"Near operations are written as rules. {did_you_mean(str(axis), [a for a in AXES if a != GATE])}"
        raise BadInput(f"{axis!r} is not an axis that can have near values", where=place, remedy=remedy)
    values = _values(raw.get("values"), axis, taxonomy, None, place)
    if len(values) < 2:
        raise BadInput("a near group needs two values or more", where=place)
    return Near(raw["id"], axis, values, _share(raw.get("strength"), "strength", place))


def _parse_no_counterpart(raw: Mapping[str, Any], taxonomy: Taxonomy, where: str) -> tuple[str, str]:
    place = f"{where} [[no_counterpart]]"
    _only_keys(raw, {GATE, "reason"}, place)
    operation = raw.get(GATE)
    taxonomy.check(GATE, str(operation), where=place)
    return str(operation), _reason(raw, f"{place} {operation}")


def _predicates(raw: Any, taxonomy: Taxonomy, corpus: Mapping[str, Any], place: str) -> tuple[Predicate, ...]:
    if not isinstance(raw, Mapping) or not raw:
        raise BadInput("the document side is missing", where=place, remedy='Write document = { task_type = ["..."] }.')
    return tuple(_predicate(column, wanted, taxonomy, corpus, place) for column, wanted in raw.items())


def _predicate(column: str, wanted: Any, taxonomy: Taxonomy, corpus: Mapping[str, Any], place: str) -> Predicate:
    own = column in corpus["columns"]  # a column of the corpus, whatever its name
    if isinstance(wanted, Mapping) and "prefix" in wanted:
        _only_keys(wanted, {"prefix"}, f"{place} {column}")
        return Predicate(column, prefixes=_texts(wanted["prefix"], column, place))
    if isinstance(wanted, Mapping):
        _only_keys(wanted, {"min", "max"}, f"{place} {column}")
        is_text = not own and (column in AXES or column == "exercise")
        if is_text or not wanted or not all(map(_is_number, wanted.values())):
            raise BadInput(f"{column} takes a list of values", where=place, remedy=f'Write {column} = ["..."].')
        return Predicate(column, (), wanted.get("min"), wanted.get("max"))
    if column in AXES:
        return Predicate(column, _values(wanted, column, taxonomy, "document", place))
    values = _texts(wanted, column, place)
    allowed = tuple(label[0] for label in corpus["names"].get(column, ()))
    if not own and column in ("exercise", "quality"):
        allowed = taxonomy.grade_values(column)
    for value in values:
        if allowed and value not in allowed:
            what = f"{value!r} is not a {'value' if own else 'grade'} of {column}"
            raise BadInput(what, where=place, remedy=did_you_mean(value, allowed))
    return Predicate(column, values)


def _texts(raw: Any, column: str, place: str) -> tuple[str, ...]:
    values = tuple(str(value) for value in raw) if isinstance(raw, list) else ()
    if not values:
        raise BadInput(f"{column} needs a list of values or min/max", where=place, remedy=f'Write {column} = ["..."].')
    return values


def _values(raw: Any, axis: str, taxonomy: Taxonomy, kind: Kind | None, place: str) -> tuple[str, ...]:
    if not isinstance(raw, list) or not raw or not all(isinstance(value, str) for value in raw):
        raise BadInput(f"{axis} needs a list of values", where=place, remedy=f'Write {axis} = ["..."].')
    for value in raw:
        taxonomy.check(axis, value, where=place, kind=kind)
    if len(set(raw)) < len(raw):
        raise BadInput(f"{axis} names a value twice", where=place)
    return tuple(raw)


def _shares(raw: Mapping[str, Any], table: str, names: tuple[str, ...], where: str) -> dict[str, float]:
    given = raw.get(table)
    if not isinstance(given, Mapping):
        raise BadInput(
            f"[{table}] is missing", where=where, remedy=f"It gives a number for each of {', '.join(names)}."
        )
    _only_keys(given, set(names), f"{where} [{table}]")
    return {name: _share(given.get(name), name, f"{where} [{table}]") for name in names}


def _share(value: Any, name: str, place: str) -> float:
    if not _is_share(value):
        raise BadInput(f"{name} must be a number in 0..1, not {value!r}", where=place)
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _tables(raw: Mapping[str, Any], name: str, where: str) -> list[Mapping[str, Any]]:
    given = raw.get(name, [])
    if not isinstance(given, list) or not all(isinstance(one, Mapping) for one in given):
        raise BadInput(f"{name} must be written as [[{name}]] tables", where=where)
    return given


def _id(raw: Mapping[str, Any], kind: str, where: str) -> str:
    name = raw.get("id")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        shown = f"{name!r} is not an id" if name is not None else f"a {kind} has no id"
        raise BadInput(shown, where=f"{where} [[{kind}]]", remedy="Use lower-case words joined by hyphens.")
    return name


def _reason(raw: Mapping[str, Any], place: str) -> str:
    reason = raw.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        raise BadInput("the reason is missing", where=place, remedy="Say in a sentence why the link holds.")
    return reason


def _distinct_ids(entries: list[Any], where: str) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise BadInput(f"id {entry.id!r} is used twice", where=where, remedy="Every rule needs its own id.")
        seen.add(entry.id)


def _codes_are_codes(entries: list[Any], where: str) -> None:
    """A column that one rule looks at by the beginning of its codes cannot be compared as a whole by another."""
    predicates = [(entry.id, predicate) for entry in entries for predicate in entry.document]
    codes = {predicate.column for _, predicate in predicates if predicate.prefixes}
    for name, predicate in predicates:
        if predicate.column in codes and not predicate.prefixes:
            remedy = f'Write {predicate.column} = {{ prefix = ["..."] }} here too.'
            raise BadInput(f"{predicate.column} is a column of codes", where=f"{where} rule {name!r}", remedy=remedy)


def _only_keys(table: Mapping[str, Any], allowed: set[str], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise BadInput(f"unknown key {key!r}", where=where, remedy=did_you_mean(str(key), allowed))
