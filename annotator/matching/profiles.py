"""Which document is in which corpus category, worked out once for all documents that carry the same labels.

A corpus has few distinct combinations of labels, however many documents it has. The documents are streamed once; each
keeps a number, its profile, in place of its labels, and all arithmetic that follows is done on profiles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from annotator.errors import BadInput
from annotator.matching.columns import own_column
from annotator.rule_table import GATE, SHORT, Predicate, Rules
from annotator.taxonomy import MAX_OPERATIONS

_OPERATIONS = [f"operation_{place}" for place in range(MAX_OPERATIONS)]
_KEYED = "key_"
_KNOWN = {"quality": pl.Int64, "confidence": pl.Float64, "tokens": pl.Int64, "source": pl.String}
_SHOWN = {"source": pl.Categorical(pl.Categories("annotator_source")), "lang": pl.Categorical(),
          "host": pl.Categorical(pl.Categories("annotator_host"))}  # fmt: skip


class Category(NamedTuple):
    """A document-side combination: (column, value) pairs, and the further predicates of rules that hold for it."""

    shown: tuple[tuple[str, str], ...]
    extras: tuple[Predicate, ...] = ()

    @property
    def id(self) -> str:
        """Readable and stable: "op=deduction&bg=formal.logic&task=explain"."""
        parts = [f"{SHORT.get(column, column)}={value}" for column, value in self.shown]
        return "&".join([*parts, *(extra.label for extra in self.extras)])

    def value(self, column: str) -> str | None:
        """What the category shows in one of its columns; None in others."""
        return next((value for name, value in self.shown if name == column), None)


@dataclass(frozen=True, slots=True)
class Profiles:
    """Documents by profile.

    documents: doc_id str, profile u32 (null without usable labels), quality i64?, confidence f64?, tokens i64?,
        source, and further columns asked for; one row a document.
    categories: every category that occurs, by id.
    members: profile -> index into `categories` for the first, second and third operation; -1 for none.
    exercise: profile -> grade or None. guards: profile -> id of the guard that shuts it out, or None.
    """

    documents: pl.DataFrame
    categories: list[Category]
    members: np.ndarray
    exercise: list[str | None]
    guards: list[str | None]


def profiles(
    document_labels: pl.DataFrame | pl.LazyFrame | None,
    *,
    rules: Rules,
    documents: pl.DataFrame | pl.LazyFrame | None = None,
    all_documents: bool = False,
    carry: tuple[str, ...] = ("tokens", "source"),
    by: tuple[str, ...] = (),
) -> Profiles:
    """Sort documents by what the rules can see of them.

    Args:
        document_labels: LABELS, or a scan of them, of which only the columns needed are read; rows with status "failed"
            get no profile. None for rules that read a corpus's own columns (`rules.needs_labels` is False).
        documents: doc_id and the columns that are carried or that rules name.
        all_documents: one row a document of `documents`, sorted by doc_id, and not one a label in their order.
        carry: columns of `documents` to keep; those that it lacks are null.
        by: further columns of either table to tell categories by, after those of the rules.

    Raises:
        BadInput: two labels for one document, a document twice, or a rule asks for a column that no table has.
    """
    asked = _asked(rules, by)
    wanted = _Wanted(rules, asked, carry, by)
    coded = wanted.coded(document_labels, documents, all_documents)
    if all_documents:
        coded = coded.sort("doc_id")
    _each_once(coded["doc_id"], is_sorted=all_documents)
    operations = _OPERATIONS if rules.needs_labels else []
    held = [f"holds_{k}" for k in range(len(asked))]
    key = [*operations, *(_KEYED + name for name in _key(rules, by)), *held]
    first = _OPERATIONS[:1] if rules.needs_labels else []
    needed = [*first, *(_KEYED + name for name in rules.category if name != GATE)]
    usable = ~pl.col("failed").fill_null(True) & pl.all_horizontal(pl.col(name).is_not_null() for name in needed)
    profile, distinct = _numbered(coded, key, usable)
    kept = dict.fromkeys(["doc_id", "quality", "confidence", *carry])
    frame = coded.select(
        pl.col(name) if name in coded.columns else pl.lit(None, dtype=_KNOWN.get(name, pl.String)).alias(name)
        for name in kept
    )
    return _described(frame.insert_column(1, profile), distinct, asked, rules, by)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is kept of a document: the values and predicates that tell its profile, its grades, and what is carried."""

    rules: Rules
    asked: list[Predicate]
    carry: tuple[str, ...]
    by: tuple[str, ...]

    def coded(
        self,
        labels: pl.DataFrame | pl.LazyFrame | None,
        documents: pl.DataFrame | pl.LazyFrame | None,
        all_documents: bool,
    ) -> pl.DataFrame:
        """One row a label (or a document): each column is taken from the labels if they have it."""
        if not self.rules.needs_labels:
            return self._from_corpus(documents)
        if labels is None:
            raise BadInput("these rules need labels of the documents", where="--document-labels")
        labels = labels.lazy()
        present = labels.collect_schema().names()
        key = _key(self.rules, self.by)
        ours, mine = [p for p in self.asked if p.column in present], [name for name in key if name in present]
        rest, other = [p for p in self.asked if p not in ours], [name for name in key if name not in mine]
        named = labels.select(
            pl.col("record_id").alias("doc_id"),
            (pl.col("status") == "failed").alias("failed"),
            *_operations(),
            *_coded(labels, mine, self.rules),
            *_grades(labels, self.rules),
            *_held(labels, ours, self.rules, self.asked),
        )
        if documents is None:
            _no_column([*(predicate.column for predicate in rest), *other], self.rules)
            return _read(named)
        theirs = documents.lazy()
        seen = [*_coded(theirs, other, self.rules), *_held(theirs, rest, self.rules, self.asked)]
        useful = theirs.select("doc_id", *seen, *_carried(theirs, self.carry))
        left, right = (useful, named) if all_documents else (named, useful)
        return _joined(_read(left), _read(right))

    def _from_corpus(self, documents: pl.DataFrame | pl.LazyFrame | None) -> pl.DataFrame:
        if documents is None:
            raise BadInput("these rules read the corpus's own columns", where="--documents", remedy="Give the corpus.")
        theirs = documents.lazy()
        return _read(
            theirs.select(
                "doc_id",
                pl.lit(False).alias("failed"),
                *_coded(theirs, _key(self.rules, self.by), self.rules),
                *_grades(theirs, self.rules),
                *_held(theirs, self.asked, self.rules, self.asked),
                *_carried(theirs, self.carry),
            )
        )


def _read(table: pl.LazyFrame) -> pl.DataFrame:
    return table.collect(engine="streaming")


def _joined(left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
    """A left join by doc_id; where both are in one order, as labels are with their documents, without any hashing."""
    if left.height == right.height and left["doc_id"].eq_missing(right["doc_id"]).all():
        return left.hstack(right.drop("doc_id").get_columns())
    return _read(left.lazy().join(right.lazy(), on="doc_id", how="left"))


def _key(rules: Rules, by: tuple[str, ...]) -> list[str]:
    """The columns, besides the operations, that documents of one profile have in common."""
    columns = [*(name for name in rules.category if name != GATE), *_prefixes(rules), *by]
    return [*dict.fromkeys(columns), "exercise"]


def _prefixes(rules: Rules) -> dict[str, list[str]]:
    """Columns of codes besides those of the category, with all beginnings that rules name, the longest first.

    A code is told by the longest of them that it begins with, for that one decides about all the others.
    """
    found: dict[str, set[str]] = {}
    for predicate in (p for one in (*rules.rules, *rules.guards) for p in one.document if p.prefixes):
        if predicate.column not in rules.category:
            found.setdefault(predicate.column, set()).update(predicate.prefixes)
    return {column: sorted(found[column], key=lambda text: (-len(text), text)) for column in sorted(found)}


def _operations() -> list[pl.Expr]:
    first = pl.col(GATE).list
    return [first.get(k, null_on_oob=True).cast(pl.Categorical()).alias(name) for k, name in enumerate(_OPERATIONS)]


def _coded(table: pl.LazyFrame, names: list[str], rules: Rules) -> list[pl.Expr]:
    """Columns as categories; exercise may be missing in a corpus with labels of its own."""
    codes = _prefixes(rules)
    columns = []
    for name in names:
        column = own_column(table, name, rules, optional=name == "exercise").cast(pl.String)
        if name in codes:
            column = column.str.extract(f"^({'|'.join(map(re.escape, codes[name]))})")
        columns.append(column.cast(pl.Categorical()).alias(_KEYED + name))
    return columns


def _grades(table: pl.LazyFrame, rules: Rules) -> list[pl.Expr]:
    return [
        own_column(table, name, rules, optional=True).cast(_KNOWN[name], strict=False).alias(name)
        for name in ("quality", "confidence")
    ]


def _carried(table: pl.LazyFrame, carry: tuple[str, ...]) -> list[pl.Expr]:
    present = table.collect_schema().names()
    return [pl.col(name).cast(_SHOWN[name]) if name in _SHOWN else pl.col(name) for name in carry if name in present]


def _held(table: pl.LazyFrame, predicates: list[Predicate], rules: Rules, asked: list[Predicate]) -> list[pl.Expr]:
    """Whether predicates hold, under names by their places among all that are asked for."""
    return [_holds(table, predicate, rules).alias(f"holds_{asked.index(predicate)}") for predicate in predicates]


def _holds(table: pl.LazyFrame, predicate: Predicate, rules: Rules) -> pl.Expr:
    column = own_column(table, predicate.column, rules)
    if predicate.values:
        return column.cast(pl.String).is_in(list(predicate.values)).fill_null(False)
    if not table.select(column).collect_schema().dtypes()[0].is_numeric():
        what = f"{predicate.label} compares numbers, but column {predicate.column!r} holds text"
        raise BadInput(what, where="rules", remedy="Write a list of values instead of min/max.")
    low = column >= predicate.low if predicate.low is not None else pl.lit(True)
    high = column <= predicate.high if predicate.high is not None else pl.lit(True)
    return (low & high).fill_null(False)


def _asked(rules: Rules, by: tuple[str, ...]) -> list[Predicate]:
    told = {*rules.category, *_prefixes(rules), *by}
    found = {p: None for one in (*rules.rules, *rules.guards) for p in one.document if p.column not in told}
    return sorted(found, key=lambda predicate: predicate.label)


def _no_column(columns: list[str], rules: Rules) -> None:
    if columns:
        what = f"a rule asks for column {columns[0]!r}, which no table has"
        raise BadInput(what, where=rules.where, remedy="Give --documents with that column, or use other rules.")


def _each_once(ids: pl.Series, *, is_sorted: bool) -> None:
    if is_sorted:
        again = ids.filter(ids == ids.shift(1))
        if again.len():
            what = f"two labels for one document, or two documents of one id ({again[0]!r})"
            raise BadInput(what, where="--documents", remedy="Ids must be unique, and each labelled once.")
        return
    hashes = np.sort(ids.hash().to_numpy())  # equal ids have equal hashes; sorting numbers is quicker than ids
    if (hashes[1:] == hashes[:-1]).any() and ids.n_unique() < ids.len():
        twice = ids.filter(ids.is_duplicated()).sort()[0]
        raise BadInput(f"two labels for one document ({twice!r})", where="--document-labels", remedy="Label it once.")


def _numbered(coded: pl.DataFrame, key: list[str], usable: pl.Expr) -> tuple[pl.Series, pl.DataFrame]:
    """The profile of each row (null if not usable), and the distinct usable keys, in order of their values.

    Keys are packed into one integer each (mixed radix), which is many times faster than grouping by nine columns.
    """
    packed, room = pl.Series("packed", np.zeros(coded.height, dtype=np.uint64)), 1
    for name in key:
        codes = coded[name].to_physical() if coded.schema[name] == pl.Categorical else coded[name]
        codes = codes.cast(pl.UInt64)
        size = int(codes.max() or 0) + 2
        if room * size >= 1 << 63:
            packed = packed.rank("dense").cast(pl.UInt64)
            room = int(packed.max() or 0) + 1
        packed, room = packed * size + codes.fill_null(size - 1), room * size
    rows = pl.DataFrame({"packed": packed, "usable": coded.select(usable.alias("usable"))["usable"]})
    firsts = rows.lazy().with_row_index().filter("usable").group_by("packed").agg(pl.col("index").min()).collect()
    decoded = coded.select(key)[firsts["index"]].with_columns(pl.col(pl.Categorical).cast(pl.String))
    distinct = decoded.with_columns(firsts["packed"]).sort(key, nulls_last=True).with_row_index("profile")
    numbers = distinct.select("packed", "profile", pl.lit(True).alias("usable"))
    placed = rows.join(numbers, on=["packed", "usable"], how="left", maintain_order="left")
    return placed["profile"].cast(pl.UInt32), distinct.drop("packed")


def _described(
    documents: pl.DataFrame, distinct: pl.DataFrame, asked: list[Predicate], rules: Rules, by: tuple[str, ...]
) -> Profiles:
    index: dict[Category, int] = {}
    members = np.full((distinct.height, rules.places), -1, dtype=np.int32)
    guards: list[str | None] = []
    known: dict[Any, tuple[int, str | None]] = {}
    rest = _key(rules, by)[:-1]
    operations = _OPERATIONS if rules.needs_labels else [None]
    for profile, row in enumerate(distinct.drop("profile").iter_rows(named=True)):
        true = tuple(k for k in range(len(asked)) if row[f"holds_{k}"])
        shown = tuple((name, row[_KEYED + name]) for name in rest if row[_KEYED + name] is not None)
        shut = None
        for place, name in enumerate(operations):
            if name is not None and row[name] is None:
                continue
            core = shown if name is None else ((GATE, row[name]), *shown)
            if (core, true) not in known:
                holding = frozenset(asked[k] for k in true)
                category = Category(core, _extras(dict(core), holding, rules))
                number = index.setdefault(category, len(index))
                known[core, true] = number, _guard(dict(core), holding, rules)
            members[profile, place], guard = known[core, true]
            shut = shut or guard
        guards.append(shut)
    by_id = sorted(index, key=lambda category: category.id)
    renumbered = np.full(len(by_id) + 1, -1, dtype=np.int32)  # the last entry keeps -1 at -1
    renumbered[[index[category] for category in by_id]] = np.arange(len(by_id), dtype=np.int32)
    return Profiles(documents, by_id, renumbered[members], distinct[_KEYED + "exercise"].to_list(), guards)


def _guard(core: dict[str, str], holding: frozenset[Predicate], rules: Rules) -> str | None:
    return next((guard.id for guard in rules.guards if _met(guard.document, core, holding)), None)


def _extras(core: dict[str, str], holding: frozenset[Predicate], rules: Rules) -> tuple[Predicate, ...]:
    """The further predicates that tell this category from others: those of rules that hold for it as a whole."""
    found = {
        p for rule in rules.rules if _met(rule.document, core, holding) for p in rule.document if p.column not in core
    }
    return tuple(sorted(found, key=lambda predicate: predicate.label))


def _met(document: tuple[Predicate, ...], core: dict[str, str], holding: frozenset[Predicate]) -> bool:
    return all(_shown(p, core[p.column]) if p.column in core else p in holding for p in document)


def _shown(predicate: Predicate, value: str) -> bool:
    return value in predicate.values or (bool(predicate.prefixes) and value.startswith(predicate.prefixes))


def covers(document: tuple[Predicate, ...], category: Category) -> bool:
    """Whether a category shows all that the document side of a rule asks for."""
    return _met(document, dict(category.shown), frozenset(category.extras))


def profile_sizes(found: Profiles) -> tuple[np.ndarray, np.ndarray | None]:
    """Documents and tokens (None where some are unknown) of each profile."""
    sums = (
        found.documents.lazy()
        .filter(pl.col("profile").is_not_null())
        .group_by("profile")
        .agg(pl.len().alias("documents"), pl.col("tokens").sum(), pl.col("tokens").null_count().alias("unknown"))
        .collect()
    )
    documents, tokens = np.zeros(len(found.guards), dtype=np.int64), np.zeros(len(found.guards), dtype=np.int64)
    where = sums["profile"].to_numpy()
    documents[where], tokens[where] = sums["documents"].to_numpy(), sums["tokens"].to_numpy()
    return documents, None if sums["unknown"].sum() else tokens


def category_sizes(found: Profiles) -> tuple[np.ndarray, np.ndarray | None]:
    """Documents and tokens (None where some are unknown) of each category, without guarded documents."""
    per_profile, tokens = profile_sizes(found)
    return summed(found, per_profile), None if tokens is None else summed(found, tokens)


def summed(found: Profiles, per_profile: np.ndarray) -> np.ndarray:
    """Sums by category of numbers by profile; a document counts once in each of its categories, a guarded one never."""
    totals = np.zeros(len(found.categories) + 1, dtype=np.int64)  # the last one swallows -1
    free = np.array([guard is None for guard in found.guards], dtype=bool)
    for place in range(found.members.shape[1]):
        fresh = free & ~np.any(found.members[:, :place] == found.members[:, place : place + 1], axis=1)
        np.add.at(totals, found.members[fresh, place], per_profile[fresh])
    return totals[:-1]
