"""What is odd about a rule file, for `annotator rules check`: nothing here is an error, all of it is worth a look."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

import polars as pl

from annotator.matching.profiles import covers, profiles
from annotator.rule_table import CORE, GATE, Rule, Rules
from annotator.taxonomy import AXES, Taxonomy

# Names under which evaluation sets are known; a rule that needs one is training on the test.
_NAMES = re.compile(
    r"(?<![a-z0-9])(aime|amc|agieval|alpacaeval|arc-c|arc-challenge|arc-easy|bbeh|bbh|big-bench|bigbench|boolq|c-?eval|cmmlu"
    r"|commonsenseqa|cruxeval|drop|ds-1000|gpqa|gsm-?8k|hellaswag|helm|hmmt|human-?eval|ifeval|lambada|livebench"
    r"|livecodebench|logiqa|math-?500|mbpp|mgsm|mmlu|mmlu-pro|musr|openbookqa|piqa|quac|race|simpleqa|squad|svamp"
    r"|swe-bench|triviaqa|truthfulqa|winogrande|wsc)(?![a-z0-9])",
    re.IGNORECASE,
)
_STRONG = 0.8  # from here on, near values are nearly one value, and such ties must close
_PROSE = {"drop", "race", "helm"}  # also plain words: named only where they stand in capitals


@dataclass(frozen=True, slots=True)
class Finding:
    """kind: no_rule, dead_rule, overlap, near_cycle or benchmark_name. rule: its id, or the value meant."""

    kind: str
    rule: str
    message: str


def check_rules(
    rules: Rules,
    *,
    taxonomy: Taxonomy,
    document_labels: pl.DataFrame | pl.LazyFrame | None = None,
    documents: pl.DataFrame | pl.LazyFrame | None = None,
) -> list[Finding]:
    """Findings about a rule file; with labels (for packs: documents) also the rules that none of these meets."""
    found = [
        *_operations_without_rule(rules, taxonomy),
        *_values_without_rule(rules, taxonomy),
        *_dead(rules, document_labels, documents),
        *_overlaps(rules),
        *_near_cycles(rules),
        *_benchmark_names(rules),
    ]
    return sorted(found, key=lambda finding: (finding.kind, finding.rule, finding.message))


def _operations_without_rule(rules: Rules, taxonomy: Taxonomy) -> Iterator[Finding]:
    ruled = {operation for rule in rules.rules for operation in rule.slice.get(GATE, ())}
    for operation in taxonomy.values(GATE, "item"):
        if operation not in ruled and operation not in rules.no_counterpart:
            yield Finding("no_rule", operation, f"no rule and no [[no_counterpart]] entry for operation {operation!r}")
        if operation in ruled and operation in rules.no_counterpart:
            yield Finding("overlap", operation, f"operation {operation!r} has rules and a [[no_counterpart]] entry")


def _values_without_rule(rules: Rules, taxonomy: Taxonomy) -> Iterator[Finding]:
    """Values of the other axes that nothing links to a corpus with labels of its own."""
    for axis in (axis for axis in AXES if axis != GATE and axis not in rules.category and rules.weights[axis] > 0):
        ruled = {value for rule in rules.rules if rule.axis == axis for value in rule.slice[axis]}
        for value in taxonomy.values(axis, "item"):
            if value not in ruled and value != "other":
                yield Finding("no_rule", value, f"no rule for {axis} {value!r}")


def _dead(
    rules: Rules, labels: pl.DataFrame | pl.LazyFrame | None, documents: pl.DataFrame | pl.LazyFrame | None
) -> Iterator[Finding]:
    """Rules whose every match a guard or a rule without their narrowing already gives at the same strength or more."""
    for rule in rules.rules:
        if any(all(p in rule.document for p in guard.document) for guard in rules.guards):
            yield Finding("dead_rule", rule.id, f"rule {rule.id!r} only meets documents that a guard shuts out")
        wider = next((other for other in rules.rules if other is not rule and _contains(other, rule)), None)
        if wider is not None:
            yield Finding("dead_rule", rule.id, f"rule {rule.id!r} adds nothing to {wider.id!r}, which is wider")
    if labels is not None or (documents is not None and not rules.needs_labels):
        met = profiles(labels, rules=rules, documents=documents).categories
        for rule in rules.rules:
            if not any(covers(rule.document, category) for category in met):
                yield Finding("dead_rule", rule.id, f"rule {rule.id!r} meets no document of these labels")


def _contains(wide: Rule, narrow: Rule) -> bool:
    """Whether `wide` holds wherever `narrow` does, at no less strength (of two equal rules the first contains)."""
    if wide.axis != narrow.axis or wide.strength < narrow.strength or not set(wide.bound) <= set(narrow.bound):
        return False
    theirs = {p.column: p for p in narrow.document}
    same_slice = all(axis in narrow.slice and set(narrow.slice[axis]) <= set(v) for axis, v in wide.slice.items())
    same_document = all(
        p == theirs.get(p.column)
        or (p.values and p.column in theirs and set(theirs[p.column].values or "?") <= set(p.values))
        or (p.prefixes and p.column in theirs and _starts_within(theirs[p.column].prefixes, p.prefixes))
        for p in wide.document
    )
    return same_slice and same_document


def _starts_within(narrow: tuple[str, ...], wide: tuple[str, ...]) -> bool:
    return bool(narrow) and all(prefix.startswith(wide) for prefix in narrow)


def _overlaps(rules: Rules) -> Iterator[Finding]:
    """Two rules that link the same slice value to the same document values, differing in strength or direction."""
    seen: dict[tuple[object, ...], Rule] = {}
    for rule in rules.rules:
        core = {p.column: p.values for p in rule.document if p.column in CORE}
        rest = tuple(p.label for p in rule.document if p.column not in CORE)
        sides = (rule.slice[rule.axis], *(core.get(axis, ("any",)) for axis in CORE))
        others = tuple(sorted((axis, values) for axis, values in rule.slice.items() if axis != rule.axis))
        for key in product(*sides, [rule.axis], [others], [rest], [rule.bound]):
            first = seen.setdefault(key, rule)
            if first is not rule and (first.strength, first.direction) != (rule.strength, rule.direction):
                yield Finding("overlap", rule.id, f"rules {first.id!r} and {rule.id!r} both link {key[0]} to {key[1]}")


def _near_cycles(rules: Rules) -> Iterator[Finding]:
    """Three values of which two count less for each other than they do by way of the third."""
    for axis in {group.axis for group in rules.near}:
        values = sorted({value for group in rules.near if group.axis == axis for value in group.values})
        for a, b, c in combinations(values, 3):
            links = sorted((rules.likeness(axis, x, y)[0], x, y) for x, y in ((a, b), (b, c), (a, c)))
            (weak, x, y), (second, *_), (first, *_) = links
            if second >= _STRONG and weak < first * second:
                by_way = f"{first:g} and {second:g} for a third"
                yield Finding(
                    "near_cycle", f"{a}, {b}, {c}", f"{x} and {y} count {weak:g} for each other, but {by_way}"
                )


def _benchmark_names(rules: Rules) -> Iterator[Finding]:
    entries = [*rules.rules, *rules.guards, *rules.near]
    for entry in entries:
        values = [value for predicate in getattr(entry, "document", ()) for value in predicate.values]
        for match in _NAMES.finditer(" ".join([entry.id.replace("_", "-"), getattr(entry, "reason", ""), *values])):
            if match[0].lower() not in _PROSE or match[0].isupper():
                yield Finding("benchmark_name", entry.id, f"rule {entry.id!r} names the benchmark {match[0]!r}")
