"""The mapping rules as records: what a rule file says, once it is read (`annotator.mapping` reads it)."""

from __future__ import annotations

from dataclasses import dataclass, field

GATE = "solving_operation"
CORE = (GATE, "background_condition", "task_type")
UNGRADED = 0.6  # what a document without a grade of quality counts: as a usable one
SHORT = {GATE: "op", "background_condition": "bg", "task_type": "task", "output_constraint": "out"}


@dataclass(frozen=True, slots=True)
class Predicate:
    """What one document column must show: one of `values`, the start of a text, or a number within low..high.

    prefixes: beginnings of codes, as in a decimal classification ("512" holds for "512.7"). low, high: None = no bound.
    """

    column: str
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    prefixes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The predicate as part of a category id: "out=rule_bound_text", "fdc^=512.7", "quality>=4"."""
        name = SHORT.get(self.column, self.column)
        if self.values:
            return f"{name}={'|'.join(self.values)}"
        if self.prefixes:
            return f"{name}^={'|'.join(self.prefixes)}"
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
    category: the document columns whose values make a category; CORE for documents labelled with our taxonomy.
    columns: for a corpus that carries labels of its own, the name used in the rules -> where the column lies
    ("eai_taxonomy.reasoning_depth.primary.code"). names: column -> its labels in the order of their numbers, each with
    the other spellings in use, for columns that may hold numbers or either spelling.
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
    category: tuple[str, ...] = CORE
    columns: dict[str, str] = field(default_factory=dict)
    names: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)

    @property
    def needs_labels(self) -> bool:
        """Whether documents need labels of our taxonomy; packs for corpora that carry their own do not."""
        return GATE in self.category

    @property
    def places(self) -> int:
        """To how many categories a document may belong: one for each operation that its label may name."""
        return len(self.position) if self.needs_labels else 1

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Document columns besides those of the category that rules or guards look at."""
        named = {p.column for one in (*self.rules, *self.guards) for p in one.document}
        return tuple(sorted(named.difference(self.category)))

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
