"""Corpus categories: operation x background x task (and what else the rules look at), and which document is in which.

A document belongs to the category of each of its operations. Documents with the same labels share a profile, so that
everything which follows is worked out once a profile, not once a document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from annotator.errors import BadInput
from annotator.mapping import CORE, SHORT, Predicate, Rules
from annotator.taxonomy import MAX_OPERATIONS

_OPERATIONS = [f"operation_{place}" for place in range(MAX_OPERATIONS)]
_KEY = [*_OPERATIONS, *CORE[1:], "exercise"]


class Category(NamedTuple):
    """A document-side combination. extras: the further predicates that some rule asks for and that hold."""

    operation: str
    background: str
    task: str
    extras: tuple[Predicate, ...] = ()

    @property
    def id(self) -> str:
        """Readable and stable: "op=deduction&bg=formal.logic&task=explain"."""
        parts = [f"{SHORT[axis]}={value}" for axis, value in zip(CORE, self[:3], strict=True)]
        return "&".join([*parts, *(extra.label for extra in self.extras)])


@dataclass(frozen=True, slots=True)
class Profiles:
    """Documents by profile.

    documents: doc_id str, profile u32 (null without usable labels), quality i64?, confidence f64?, tokens i64?,
        source str?; one row a document, in the order of the labels.
    categories: every category that occurs, by id.
    members: profile -> index into `categories` for the first, second and third operation; -1 for none.
    exercise: profile -> grade or None. guards: profile -> id of the guard that shuts it out, or None.
    """

    documents: pl.DataFrame
    categories: list[Category]
    members: np.ndarray
    exercise: list[str | None]
    guards: list[str | None]


def profiles(document_labels: pl.DataFrame, *, rules: Rules, documents: pl.DataFrame | None = None) -> Profiles:
    """Sort documents by what the rules can see of them.

    Args:
        document_labels: LABELS; rows with status "failed" get no profile.
        documents: doc_id and any of source, tokens, lang, url and the columns that rules name; joined to the labels.

    Raises:
        BadInput: two labels for one document, or a rule asks for a column that neither table has.
    """
    table = _joined(document_labels, rules, documents)
    asked = _asked(rules)
    holds = [_holds(table, predicate).alias(f"holds_{k}") for k, predicate in enumerate(asked)]
    keyed = table.lazy().with_columns(
        *(pl.col("solving_operation").list.get(k, null_on_oob=True).alias(name) for k, name in enumerate(_OPERATIONS)),
        *holds,
    )
    key = [*_KEY, *(f"holds_{k}" for k in range(len(asked)))]
    usable = pl.all_horizontal(pl.col(name).is_not_null() for name in (_OPERATIONS[0], *CORE[1:]))
    keyed = keyed.with_columns(usable.alias("usable")).collect()
    distinct = keyed.filter("usable").select(key).unique().sort(key, nulls_last=True).with_row_index("profile")
    placed = keyed.join(distinct, on=key, how="left", nulls_equal=True, maintain_order="left")
    columns = [
        "doc_id",
        pl.when("usable").then("profile").alias("profile"),
        "quality",
        "confidence",
        "tokens",
        "source",
    ]
    return _described(placed.select(columns), distinct, asked, rules)


def _joined(labels: pl.DataFrame, rules: Rules, documents: pl.DataFrame | None) -> pl.DataFrame:
    if labels["record_id"].is_duplicated().any():
        twice = labels.filter(pl.col("record_id").is_duplicated())["record_id"][0]
        raise BadInput(f"two labels for one document ({twice!r})", where="--document-labels", remedy="Label it once.")
    failed = pl.col("status") == "failed"
    wanted = [*CORE, "output_constraint", "exercise", "quality", "confidence"]
    table = labels.select(
        pl.col("record_id").alias("doc_id"),
        pl.when(~failed).then("solving_operation").alias("solving_operation"),
        *(name for name in wanted if name != CORE[0]),
        *(name for name in rules.extra_columns if name in labels.columns and name not in wanted),
    )
    if documents is not None:
        added = [name for name in documents.columns if name == "doc_id" or name not in table.columns]
        table = table.join(documents.select(added), on="doc_id", how="left", maintain_order="left")
    for name, dtype in (("tokens", pl.Int64), ("source", pl.String)):
        if name not in table.columns:
            table = table.with_columns(pl.lit(None, dtype=dtype).alias(name))
    missing = [name for name in rules.extra_columns if name not in table.columns]
    if missing:
        remedy = "Give --documents with that column, or use other rules."
        raise BadInput(f"a rule asks for column {missing[0]!r}, which no table has", where=rules.where, remedy=remedy)
    return table


def _asked(rules: Rules) -> list[Predicate]:
    found = {p: None for one in (*rules.rules, *rules.guards) for p in one.document if p.column not in CORE}
    return sorted(found, key=lambda predicate: predicate.label)


def _holds(table: pl.DataFrame, predicate: Predicate) -> pl.Expr:
    column = pl.col(predicate.column)
    if predicate.values:
        return column.cast(pl.String).is_in(list(predicate.values)).fill_null(False)
    if not table.schema[predicate.column].is_numeric():
        what = f"{predicate.label} compares numbers, but column {predicate.column!r} holds text"
        raise BadInput(what, where="rules", remedy="Write a list of values instead of min/max.")
    low = column >= predicate.low if predicate.low is not None else pl.lit(True)
    high = column <= predicate.high if predicate.high is not None else pl.lit(True)
    return (low & high).fill_null(False)


def _described(documents: pl.DataFrame, distinct: pl.DataFrame, asked: list[Predicate], rules: Rules) -> Profiles:
    index: dict[Category, int] = {}
    members = np.full((distinct.height, MAX_OPERATIONS), -1, dtype=np.int32)
    guards: list[str | None] = []
    for profile, row in enumerate(distinct.drop("profile").iter_rows(named=True)):
        true = frozenset(predicate for k, predicate in enumerate(asked) if row[f"holds_{k}"])
        core = [(row[name], row[CORE[1]], row[CORE[2]]) for name in _OPERATIONS if row[name] is not None]
        guards.append(
            next((guard.id for guard in rules.guards if any(_met(guard.document, c, true) for c in core)), None)
        )
        for place, triple in enumerate(core):
            category = Category(*triple, _extras(triple, true, rules))
            members[profile, place] = index.setdefault(category, len(index))
    by_id = sorted(index, key=lambda category: category.id)
    renumbered = np.full(len(by_id) + 1, -1, dtype=np.int32)  # the last entry keeps -1 at -1
    renumbered[[index[category] for category in by_id]] = np.arange(len(by_id), dtype=np.int32)
    return Profiles(documents, by_id, renumbered[members], distinct["exercise"].to_list(), guards)


def _extras(core: tuple[str, str, str], true: frozenset[Predicate], rules: Rules) -> tuple[Predicate, ...]:
    """The further predicates that tell this category from others: those of rules that hold for it as a whole."""
    found = {
        p for rule in rules.rules if _met(rule.document, core, true) for p in rule.document if p.column not in CORE
    }
    return tuple(sorted(found, key=lambda predicate: predicate.label))


def _met(document: tuple[Predicate, ...], core: tuple[str, str, str], true: frozenset[Predicate]) -> bool:
    value = dict(zip(CORE, core, strict=True))
    return all(p in true if p.column not in CORE else value[p.column] in p.values for p in document)


def covers(document: tuple[Predicate, ...], category: Category) -> bool:
    """Whether a category shows all that the document side of a rule asks for."""
    return _met(document, category[:3], frozenset(category.extras))


def category_sizes(found: Profiles) -> tuple[np.ndarray, np.ndarray | None]:
    """Documents and tokens (None where some are unknown) of each category, without guarded documents."""
    per_profile, tokens = profile_sizes(found)
    return _summed(found, per_profile), None if tokens is None else _summed(found, tokens)


def profile_sizes(found: Profiles) -> tuple[np.ndarray, np.ndarray | None]:
    """Documents and tokens (None where some are unknown) of each profile."""
    usable = found.documents.filter(pl.col("profile").is_not_null())
    count = len(found.guards)
    where = usable["profile"].to_numpy().astype(np.int64)
    documents = np.bincount(where, minlength=count).astype(np.int64)
    if usable["tokens"].null_count():
        return documents, None
    sums = usable.group_by("profile").agg(pl.col("tokens").sum()).sort("profile")
    tokens = np.zeros(count, dtype=np.int64)
    tokens[sums["profile"].to_numpy()] = sums["tokens"].to_numpy()
    return documents, tokens


def _summed(found: Profiles, per_profile: np.ndarray) -> np.ndarray:
    totals = np.zeros(len(found.categories) + 1, dtype=np.int64)  # the last one swallows -1
    free = np.array([guard is None for guard in found.guards], dtype=bool)
    for place in range(found.members.shape[1]):
        fresh = free & ~np.any(found.members[:, :place] == found.members[:, place : place + 1], axis=1)
        np.add.at(totals, found.members[fresh, place], per_profile[fresh])
    return totals[:-1]


def categories(
    document_labels: pl.DataFrame,
    *,
    rules: Rules,
    documents: pl.DataFrame | None = None,
    matches: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The corpus as a table of categories, the largest first.

    Args:
        document_labels: LABELS of documents.
        documents: doc_id and any of source, tokens and the columns that rules name.
        matches: MATCHES under the same rules, for the last two columns.

    Returns:
        category_id, documents, tokens? (null where some are unknown), mean_quality?, exercised_share (substantial or
        central), supply_gap? (the largest of the slices that match, null without one), slices (how many match).
        A document stands in the category of each of its operations; guarded ones are left out.
    """
    found = profiles(document_labels, rules=rules, documents=documents)
    counts, tokens = category_sizes(found)
    qualities = found.documents.filter(pl.col("quality").is_not_null() & pl.col("profile").is_not_null())
    graded, summed = np.zeros(len(found.guards), dtype=np.int64), np.zeros(len(found.guards), dtype=np.int64)
    np.add.at(graded, qualities["profile"].to_numpy(), 1)
    np.add.at(summed, qualities["profile"].to_numpy(), qualities["quality"].to_numpy())
    exercised = np.array([grade in ("substantial", "central") for grade in found.exercise], dtype=np.int64)
    table = pl.DataFrame(
        {
            "category_id": pl.Series([category.id for category in found.categories], dtype=pl.String),
            "documents": counts,
            "tokens": pl.Series([None] * len(counts) if tokens is None else tokens, dtype=pl.Int64),
            "graded": _summed(found, graded),
            "quality": _summed(found, summed),
            "exercised": _summed(found, exercised * profile_sizes(found)[0]),
        }
    ).filter(pl.col("documents") > 0)
    table = table.select(
        "category_id",
        "documents",
        "tokens",
        pl.when(pl.col("graded") > 0).then(pl.col("quality") / pl.col("graded")).round(3).alias("mean_quality"),
        (pl.col("exercised") / pl.col("documents")).round(3).alias("exercised_share"),
    )
    empty = pl.DataFrame(schema={"category_id": pl.String, "supply_gap": pl.Float64, "slices": pl.Int64})
    gaps = empty if matches is None else matches.group_by("category_id").agg(
        pl.col("supply_gap").max(), pl.len().cast(pl.Int64).alias("slices")
    )  # fmt: skip
    table = table.join(gaps, on="category_id", how="left").with_columns(pl.col("slices").fill_null(0))
    return table.sort(["documents", "category_id"], descending=[True, False])
