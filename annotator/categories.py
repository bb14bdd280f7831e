"""Corpus categories: operation x background x task (and what else the rules look at), and which document is in which.

A document belongs to the category of each of its operations. Documents with the same labels share a profile, so that
everything which follows is worked out once a profile, not once a document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from annotator.errors import BadInput
from annotator.mapping import CORE, GATE, SHORT, Predicate, Rules
from annotator.taxonomy import MAX_OPERATIONS

_OPERATIONS = [f"operation_{place}" for place in range(MAX_OPERATIONS)]
_KEY = [*_OPERATIONS, *CORE[1:], "exercise"]
_OPTIONAL = {"quality": pl.Int64, "confidence": pl.Float64, "tokens": pl.Int64, "source": pl.String}


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


def profiles(
    document_labels: pl.DataFrame | pl.LazyFrame, *, rules: Rules, documents: pl.DataFrame | None = None
) -> Profiles:
    """Sort documents by what the rules can see of them.

    Args:
        document_labels: LABELS, or a scan of them, of which only the columns needed are read; rows with status "failed"
            get no profile.
        documents: doc_id and any of source, tokens, lang, url and the columns that rules name; joined to the labels.

    Raises:
        BadInput: two labels for one document, or a rule asks for a column that neither table has.
    """
    table, dtypes = _joined(document_labels.lazy(), rules, documents)
    asked = _asked(rules)
    operations = [
        pl.col(GATE).list.get(k, null_on_oob=True).cast(pl.Categorical).alias(name)
        for k, name in enumerate(_OPERATIONS)
    ]
    values = [pl.col(name).cast(pl.Categorical) for name in _KEY if name not in _OPERATIONS]
    holds = [_holds(dtypes, predicate).alias(f"holds_{k}") for k, predicate in enumerate(asked)]
    rest = [name for name in ("quality", "confidence", "tokens", "source") if name in dtypes]
    coded = table.select("doc_id", *operations, *values, *holds, *rest, "failed").collect()
    if coded["doc_id"].n_unique() < coded.height:
        twice = coded.filter(pl.col("doc_id").is_duplicated())["doc_id"][0]
        raise BadInput(f"two labels for one document ({twice!r})", where="--document-labels", remedy="Label it once.")
    usable = ~pl.col("failed") & pl.all_horizontal(pl.col(n).is_not_null() for n in (_OPERATIONS[0], *CORE[1:]))
    placed, distinct = _numbered(coded, [*_KEY, *(f"holds_{k}" for k in range(len(asked)))], usable)
    documents = placed.select(
        "doc_id",
        "profile",
        *rest,
        *(pl.lit(None, dtype=dtype).alias(name) for name, dtype in _OPTIONAL.items() if name not in rest),
    )
    return _described(documents, distinct, asked, rules)


def _joined(labels: pl.LazyFrame, rules: Rules, documents: pl.DataFrame | None) -> tuple[pl.LazyFrame, dict[str, Any]]:
    """The columns that matter, with their types."""
    present = dict(labels.collect_schema())
    wanted = {GATE, *CORE[1:], "exercise", "quality", "confidence", *rules.extra_columns}
    table = labels.select(
        pl.col("record_id").alias("doc_id"),
        (pl.col("status") == "failed").alias("failed"),
        *(name for name in present if name in wanted),
    )
    if documents is not None:
        taken = {"failed", *(name for name in present if name in wanted)}
        useful = [n for n in documents.columns if n in {"doc_id", "tokens", "source", *rules.extra_columns} - taken]
        table = table.join(documents.lazy().select(useful), on="doc_id", how="left", maintain_order="left")
    dtypes = dict(table.collect_schema())
    missing = [name for name in rules.extra_columns if name not in dtypes]
    if missing:
        remedy = "Give --documents with that column, or use other rules."
        raise BadInput(f"a rule asks for column {missing[0]!r}, which no table has", where=rules.where, remedy=remedy)
    return table, dtypes


def _numbered(coded: pl.DataFrame, key: list[str], usable: pl.Expr) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`coded` with a column profile, and the distinct usable keys, in order of their values.

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
    rows = pl.DataFrame({"packed": packed, "usable": coded.select(usable.alias("usable"))["usable"]}).with_row_index()
    firsts = rows.filter("usable").group_by("packed").agg(pl.col("index").min())
    decoded = coded[firsts["index"]].select(
        pl.col(name).cast(pl.String) if coded.schema[name] == pl.Categorical else pl.col(name) for name in key
    )
    distinct = decoded.with_columns(firsts["packed"]).sort(key, nulls_last=True).with_row_index("profile")
    ordered = distinct.select("packed", "profile").sort("packed")
    found = np.searchsorted(ordered["packed"].to_numpy(), packed.to_numpy())
    profile = ordered["profile"].to_numpy()[np.minimum(found, max(ordered.height - 1, 0))] if ordered.height else found
    placed = coded.with_columns(pl.Series("profile", profile, dtype=pl.UInt32), rows["usable"])
    return placed.with_columns(pl.when("usable").then("profile").alias("profile")), distinct.drop("packed")


def _asked(rules: Rules) -> list[Predicate]:
    found = {p: None for one in (*rules.rules, *rules.guards) for p in one.document if p.column not in CORE}
    return sorted(found, key=lambda predicate: predicate.label)


def _holds(dtypes: dict[str, Any], predicate: Predicate) -> pl.Expr:
    column = pl.col(predicate.column)
    if predicate.values:
        return column.cast(pl.String).is_in(list(predicate.values)).fill_null(False)
    if not dtypes[predicate.column].is_numeric():
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
