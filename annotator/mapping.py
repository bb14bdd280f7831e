"""The mapping rules: which documents teach or exercise what a failing slice demands.

A rule file speaks of axis values on the slice side, and of axis values, grades or any other column on the document
side. It is read and checked here as exactly as a taxonomy is; `annotator.match` applies it, and no model is asked then.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotator.errors import BadInput, did_you_mean
from annotator.fingerprint import fingerprint
from annotator.resources import resource
from annotator.taxonomy import AXES, MAX_OPERATIONS, Kind, Taxonomy, load_taxonomy

DIRECTIONS = ("teaches", "exercises", "form_only")
STRENGTHS = (1.0, 0.5, 0.25)
GATE = "solving_operation"
CORE = (GATE, "background_condition", "task_type")
SHORT = {GATE: "op", "background_condition": "bg", "task_type": "task", "output_constraint": "out"}

_TOP_KEYS = {"version", "min_affinity", "weights", "unrelated", "position", "exercise", "quality"}
_TABLES = {"rule", "guard", "near", "no_counterpart"}
_RULE_KEYS = {"id", "slice", "document", "strength", "direction", "reason", "bound"}
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Predicate:
    """What one document column must show: one of `values`, or a number within low..high (None = no bound)."""

    column: str
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    @property
    def label(self) -> str:
        """The predicate as part of a category id: "out=rule_bound_text", "quality>=4"."""
        name = SHORT.get(self.column, self.column)
        if self.values:
            return f"{name}={'|'.join(self.values)}"
        bounds = [f"{name}>={self.low:g}"] if self.low is not None else []
        return "&".join(bounds + ([f"{name}<={self.high:g}"] if self.high is not None else []))


@dataclass(frozen=True, slots=True)
class Rule:
    """A link from slices to documents.

    axis: the axis whose strength it gives: the operation where the slice side names one, else the first axis named.
    slice: axis -> values, all of which must hold. bound: axes on which the document must have the slice's own value for
    the rule to hold at all (where the slice names one).
    """

    id: str
    axis: str
    slice: dict[str, tuple[str, ...]]
    document: tuple[Predicate, ...]
    strength: float
    direction: str
    reason: str
    bound: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Guard:
    """Documents that are never chosen, whatever the rules say."""

    id: str
    document: tuple[Predicate, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Near:
    """Values of one axis of which any two count `strength` for each other."""

    id: str
    axis: str
    values: tuple[str, ...]
    strength: float


@dataclass(frozen=True, slots=True)
class Rules:
    """A loaded rule file. `fingerprint` changes with any word of it; `version` is the author's own.

    weights: axis -> weight in the affinity. unrelated: axis -> strength of two values that nothing joins.
    position: weight of a document's first, second and third operation. exercise, quality: grade -> factor in the score
    (quality 0 = never chosen). no_counterpart: operation -> why no document is looked for.
    """

    version: str
    min_affinity: float
    weights: dict[str, float]
    unrelated: dict[str, float]
    position: tuple[float, ...]
    exercise: dict[str, float]
    quality: dict[int, float]
    rules: tuple[Rule, ...]
    guards: tuple[Guard, ...]
    near: tuple[Near, ...]
    no_counterpart: dict[str, str]
    where: str
    fingerprint: str = field(repr=False)

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Document columns other than operation, background and task that rules or guards look at."""
        named = {p.column for one in (*self.rules, *self.guards) for p in one.document}
        return tuple(sorted(named.difference(CORE)))

    def by_id(self, rule_id: str) -> Rule | None:
        """The rule of that id; None for a near group or an id that is not of this file."""
        return next((rule for rule in self.rules if rule.id == rule_id), None)

    def likeness(self, axis: str, ours: str, theirs: str | None) -> tuple[float, str | None]:
        """Strength between two values of one axis, and the id of the near group that gives it (None if none does)."""
        if ours == theirs:
            return 1.0, None
        groups = [g for g in self.near if g.axis == axis and ours in g.values and theirs in g.values]
        best = max(groups, key=lambda group: (group.strength, group.id), default=None)
        floor = self.unrelated[axis]
        return (best.strength, best.id) if best is not None and best.strength > floor else (floor, None)


def load_rules(path: str | Path | None = None, *, taxonomy: Taxonomy | None = None) -> Rules:
    """Read and validate a rule file (default: the shipped one) against a taxonomy (default: the shipped one).

    Raises:
        BadInput: the file is missing, is not TOML, or breaks the form; the message names file, rule id and remedy.
        UnknownValue: a rule names a value that its axis does not define on that side.
    """
    return _load(Path(path) if path is not None else resource("schemas", "mapping.toml"), taxonomy)


def _load(path: Path, taxonomy: Taxonomy | None) -> Rules:
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInput("no such rule file", where=str(path), remedy="Check the path given with --rules.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the rules cannot be read ({error})", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"not valid TOML: {error}", where=str(path), remedy="Mend the file at that place.") from None
    return parse_rules(raw, taxonomy=taxonomy or load_taxonomy(), where=str(path))


def parse_rules(raw: Mapping[str, Any], *, taxonomy: Taxonomy, where: str) -> Rules:
    """Validate a parsed rule file; `where` names it in messages."""
    _only_keys(raw, _TOP_KEYS | _TABLES, where)
    version = raw.get("version")
    if not isinstance(version, str) or not version:
        raise BadInput('"version" must be a non-empty string', where=where, remedy='Write version = "1", say.')
    weights = _shares(raw, "weights", AXES, where)
    if weights[GATE] <= 0:
        raise BadInput(f"the weight of {GATE} must be above 0", where=f"{where} [weights]")
    position = raw.get("position", [])
    if len(position) != MAX_OPERATIONS or not all(_is_share(value) for value in position):
        raise BadInput(f'"position" must be {MAX_OPERATIONS} numbers in 0..1', where=where)
    qualities = _shares(raw, "quality", taxonomy.grade_values("quality"), where)
    rules = tuple(_parse_rule(one, taxonomy, where) for one in _tables(raw, "rule", where))
    guards = tuple(_parse_guard(one, taxonomy, where) for one in _tables(raw, "guard", where))
    near = tuple(_parse_near(one, taxonomy, where) for one in _tables(raw, "near", where))
    _distinct_ids([*rules, *guards, *near], where)
    return Rules(
        version=version,
        min_affinity=float(_share(raw.get("min_affinity", 0.0), "min_affinity", where)),
        weights=weights,
        unrelated=_shares(raw, "unrelated", AXES[:2] + AXES[3:], where),
        position=tuple(map(float, position)),
        exercise=_shares(raw, "exercise", taxonomy.grade_values("exercise"), where),
        quality={int(grade): factor for grade, factor in qualities.items()},
        rules=rules,
        guards=guards,
        near=near,
        no_counterpart=dict(
            _parse_no_counterpart(one, taxonomy, where) for one in _tables(raw, "no_counterpart", where)
        ),
        where=where,
        fingerprint=fingerprint(raw),
    )


def _parse_rule(raw: Mapping[str, Any], taxonomy: Taxonomy, where: str) -> Rule:
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
        document=_predicates(raw.get("document"), taxonomy, f"{place} document"),
        strength=float(strength),
        direction=direction,
        reason=_reason(raw, place),
        bound=bound,
    )


def _parse_guard(raw: Mapping[str, Any], taxonomy: Taxonomy, where: str) -> Guard:
    place = f"{where} guard {_id(raw, 'guard', where)!r}"
    _only_keys(raw, {"id", "document", "reason"}, place)
    return Guard(raw["id"], _predicates(raw.get("document"), taxonomy, f"{place} document"), _reason(raw, place))


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


def _predicates(raw: Any, taxonomy: Taxonomy, place: str) -> tuple[Predicate, ...]:
    if not isinstance(raw, Mapping) or not raw:
        raise BadInput("the document side is missing", where=place, remedy='Write document = { task_type = ["..."] }.')
    return tuple(_predicate(column, wanted, taxonomy, place) for column, wanted in raw.items())


def _predicate(column: str, wanted: Any, taxonomy: Taxonomy, place: str) -> Predicate:
    if isinstance(wanted, Mapping):
        _only_keys(wanted, {"min", "max"}, f"{place} {column}")
        if column in AXES or column == "exercise" or not wanted or not all(map(_is_number, wanted.values())):
            raise BadInput(f"{column} takes a list of values", where=place, remedy=f'Write {column} = ["..."].')
        return Predicate(column, (), wanted.get("min"), wanted.get("max"))
    if column in AXES:
        return Predicate(column, _values(wanted, column, taxonomy, "document", place))
    values = tuple(str(value) for value in wanted) if isinstance(wanted, list) else ()
    if not values:
        raise BadInput(f"{column} needs a list of values or min/max", where=place, remedy=f'Write {column} = ["..."].')
    if column in ("exercise", "quality"):
        for value in values:
            if value not in taxonomy.grade_values(column):
                remedy = did_you_mean(value, taxonomy.grade_values(column))
                raise BadInput(f"{value!r} is not a grade of {column}", where=place, remedy=remedy)
    return Predicate(column, values)


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


def _only_keys(table: Mapping[str, Any], allowed: set[str], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise BadInput(f"unknown key {key!r}", where=where, remedy=did_you_mean(str(key), allowed))
