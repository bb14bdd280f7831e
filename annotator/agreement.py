"""How far label tables agree: two annotators, an annotator against gold, or many."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from annotator.coefficients import (
    MISSING,
    Codes,
    Floats,
    alpha,
    kappa,
    masi,
    ordinal,
    overlap_kappa,
    resampled,
    rounded,
)
from annotator.errors import BadInput
from annotator.fingerprint import fingerprint
from annotator.tables import same_taxonomy
from annotator.taxonomy import AXES, GRADES, Taxonomy, load_taxonomy

OPERATION = "solving_operation"
REQUIRED = {"record_id": pl.String, OPERATION: pl.List(pl.String)} | {
    axis: pl.String for axis in AXES if axis != OPERATION
}
"""Columns that a table of labels must have here; kind, status, taxonomy_version and grades are used where present."""

_EXAMPLES = 5
_CONFUSIONS = 12
_OTHER = "other"

Cells = tuple[tuple[str, ...], ...]


def agree(
    tables: Mapping[str, pl.DataFrame],
    *,
    taxonomy: Taxonomy | None = None,
    groups: pl.DataFrame | None = None,
    bootstraps: int = 1000,
) -> dict[str, Any]:
    """Agreement per axis and value between tables of labels of the same records.

    Args:
        tables: name -> labels, at least two. The last is the reference (gold) for precision, recall and confusions.
            Rows with a status other than "ok" count as no label.
        taxonomy: gives the grades their order (default: the shipped one).
        groups: record_id and further columns (benchmark, source, ...), to tell where agreement is low. Columns
            benchmark and source of the tables themselves are used too.
        bootstraps: resamples of records for the intervals.

    Returns:
        reference, tables {name: rows}, taxonomy_version, records (with a label in two tables or more),
        axes {axis: {records, agreement, kappa {estimate, low, high}, alpha, alpha_distance, overlap_kappa?, macro_f1,
        other_share {table: share}, values [{value, support, predicted, precision, recall, f1}], confusions [{label,
        reference, records, kappa_gain, record_ids}]}},
        by {column: {value: {axis: {records, agreement, kappa, alpha}}}}, with kind always among the columns,
        pairs [{tables, axes {axis: {records, agreement, kappa}}}] for more than two tables.

        On solving_operation, agreement and kappa are of the primary operation, alpha is of the whole sets by MASI
        distance, values count every operation named, and overlap_kappa takes the first two. With more than two tables,
        agreement and kappa are means over all pairs (Light 1971), and values and confusions pool all tables against the
        reference. A coefficient that is undefined is null.

    Raises:
        BadInput: fewer than two tables, different taxonomy versions, a record twice in one table, no common record.
    """
    if len(tables) < 2:
        raise BadInput(
            "only one table", where=next(iter(tables), "labels"), remedy="Give a second one, or gold labels."
        )
    version = same_taxonomy({name: frame for name, frame in tables.items() if "taxonomy_version" in frame.columns})
    good = {name: _labelled(frame, name) for name, frame in tables.items()}
    records = _common(good)
    columns = _columns(tables, groups, records)
    scales = {grade: (taxonomy or load_taxonomy()).grade_values(grade) for grade in GRADES}
    axes = [axis for axis in (*AXES, *GRADES) if all(axis in frame.columns for frame in good.values())]
    joined = {
        axis: _Joined(axis, list(good), records, _cells(axis, records, good), scales.get(axis, ())) for axis in axes
    }
    joined = {axis: each for axis, each in joined.items() if each.records}
    pairs = list(itertools.combinations(range(len(good)), 2))
    return {
        "reference": list(good)[-1],
        "tables": {name: frame.height for name, frame in good.items()},
        "taxonomy_version": version,
        "records": len(records),
        "axes": {axis: each.summary(bootstraps) | each.details() for axis, each in joined.items()},
        "by": _by(columns, joined),
        "pairs": [
            {
                "tables": [list(good)[one], list(good)[other]],
                "axes": {axis: each.between(one, other).brief() for axis, each in joined.items()},
            }
            for one, other in (pairs if len(good) > 2 else [])
        ],
    }


def _labelled(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    missing = [column for column in REQUIRED if column not in frame.columns]
    if missing:
        raise BadInput(
            f"no column {missing[0]!r}", where=name, remedy="Give labels made by `annotator label`, or gold."
        )
    good = frame.filter(pl.col("status") == "ok") if "status" in frame.columns else frame
    if good.is_empty() and len(frame):
        remedy = "Label the records first: the column `error` says why each failed."
        raise BadInput("no row has a label", where=name, remedy=remedy)
    twice = good.filter(pl.col("record_id").is_duplicated())
    if twice.height:
        remedy = "Keep one row a record; several annotators belong in several tables."
        raise BadInput(f"two labels for {twice['record_id'].min()!r}", where=name, remedy=remedy)
    return good


def _common(good: Mapping[str, pl.DataFrame]) -> list[str]:
    """Ids that at least two tables label, sorted."""
    ids = pl.concat([frame.select("record_id") for frame in good.values()])
    common = ids.filter(pl.col("record_id").is_duplicated())["record_id"].unique().sort().to_list()
    if not common:
        one, other = next(iter(good)), list(good)[-1]
        first, second = (good[name]["record_id"].min() for name in (one, other))
        remedy = f"{one} has ids like {first!r}, {other} like {second!r}: compare labels of the same records."
        raise BadInput("no record has a label in two tables", where=other, remedy=remedy)
    return common


class _Joined:
    """One axis over the common records, equal rows counted once.

    Args:
        names: of the tables. ids: of the records.
        cells: for each record and table the values told, in their order; empty where there is no label.
        scale: the values of a grade, lowest first; empty for axes without order.

    Attributes:
        told: the distinct rows with at least two labels, as value codes. rows: the first (primary) code of each cell,
        shape (distinct rows, tables). counts: how many records each row stands for. of_record: the row of each record,
        or -1 with fewer than two labels.
    """

    def __init__(
        self, axis: str, names: Sequence[str], ids: Sequence[str], cells: Sequence[Cells], scale: Sequence[str]
    ) -> None:
        self.axis, self.names, self.ids, self.cells, self.scale = axis, names, ids, cells, scale
        seen = {value for row in cells for cell in row for value in cell}
        # Values of a scale keep its order, which alpha of grades needs, even those that nobody used.
        self.values = [*scale, *sorted(seen - set(scale))]
        enough = [sum(bool(cell) for cell in row) >= 2 for row in cells]
        distinct = sorted({row for row, keep in zip(cells, enough, strict=True) if keep})
        position = {row: at for at, row in enumerate(distinct)}
        self.of_record = np.array([position[row] if keep else -1 for row, keep in zip(cells, enough, strict=True)])
        self.counts = np.bincount(self.of_record[self.of_record >= 0], minlength=len(distinct))
        code = {value: at for at, value in enumerate(self.values)}
        self.told = [tuple(tuple(code[value] for value in cell) for cell in row) for row in distinct]
        primary = [[cell[0] if cell else MISSING for cell in row] for row in self.told]
        self.rows = np.array(primary, dtype=np.int64).reshape(len(distinct), len(names))
        self.seed = int(fingerprint([axis, [list(map(list, row)) for row in distinct], self.counts.tolist()])[:16], 16)

    @property
    def records(self) -> int:
        """Records with a label in at least two tables."""
        return int(self.counts.sum())

    def between(self, one: int, other: int) -> _Joined:
        """The same records in two of the tables."""
        cells = [(row[one], row[other]) for row in self.cells]
        return _Joined(self.axis, [self.names[one], self.names[other]], self.ids, cells, self.scale)

    def within(self, positions: Sequence[int]) -> _Joined:
        """Some of the records in all tables."""
        ids, cells = [self.ids[at] for at in positions], [self.cells[at] for at in positions]
        return _Joined(self.axis, self.names, ids, cells, self.scale)

    # --------------------------------------------------------- coefficients

    def summary(self, bootstraps: int) -> dict[str, Any]:
        """Agreement, kappa with its interval, alpha, and overlap kappa for operations."""
        found = self.brief()
        found["kappa"] = resampled(self._kappa, self.counts, bootstraps=bootstraps, seed=self.seed)
        found["alpha_distance"] = "masi" if self.axis == OPERATION else "ordinal" if self.scale else "nominal"
        if self.axis == OPERATION:
            found["overlap_kappa"] = resampled(self._overlap, self.counts, bootstraps=bootstraps, seed=self.seed)
        return found

    def brief(self) -> dict[str, Any]:
        """Without intervals: cheap enough for every group."""
        if not self.records:
            return {"records": 0, "agreement": None, "kappa": None, "alpha": None}
        counts = self.counts.astype(np.float64)
        same = []
        for one, other in self._pairs():
            both = (self.rows[:, one] != MISSING) & (self.rows[:, other] != MISSING)
            if counts[both].sum():
                same.append(counts[both & (self.rows[:, one] == self.rows[:, other])].sum() / counts[both].sum())
        return {
            "records": self.records,
            "agreement": rounded(float(np.mean(same))) if same else None,
            "kappa": rounded(self._kappa(counts[None, :])[0]),
            "alpha": rounded(self._alpha()),
        }

    def _pairs(self) -> list[tuple[int, int]]:
        return list(itertools.combinations(range(len(self.names)), 2))

    def _kappa(self, weights: Floats) -> Floats:
        return _mean([kappa(self.rows[:, one], self.rows[:, other], weights) for one, other in self._pairs()])

    def _overlap(self, weights: Floats) -> Floats:
        found = []
        for one, other in self._pairs():
            both = [bool(row[one] and row[other]) for row in self.told]
            first, second = ([row[table][:2] for row, keep in zip(self.told, both, strict=True) if keep]
                             for table in (one, other))  # fmt: skip
            found.append(overlap_kappa(first, second, weights[:, np.array(both)]))
        return _mean(found)

    def _alpha(self) -> float:
        if self.axis != OPERATION:
            return alpha(self.rows[self._spread()], ordinal if self.scale else None)
        sets = sorted({frozenset(each) for row in self.told for each in row if each}, key=sorted)
        number = {each: code for code, each in enumerate(sets)}
        codes = np.array([[number[frozenset(each)] if each else MISSING for each in row] for row in self.told])
        return alpha(codes[self._spread()], masi(sets))

    def _spread(self) -> Codes:
        return np.repeat(np.arange(len(self.told)), self.counts)

    # -------------------------------------------------------------- details

    def details(self) -> dict[str, Any]:
        """Per value, per confusion, and how often "other" is used, against the last table."""
        values = self._per_value()
        scored = [value["f1"] for value in values if value["support"]]
        return {
            "macro_f1": rounded(float(np.mean(scored))) if scored else None,
            "other_share": self._other(),
            "values": values,
            "confusions": self._confusions(),
        }

    def _per_value(self) -> list[dict[str, Any]]:
        size = len(self.values)
        support, predicted, hits = np.zeros(size, int), np.zeros(size, int), np.zeros(size, int)
        for row, records in zip(self.told, self.counts, strict=True):
            for told in row[:-1]:
                if told and row[-1]:
                    support[list(row[-1])] += records
                    predicted[list(told)] += records
                    hits[list(set(told) & set(row[-1]))] += records
        found = []
        for code in np.argsort(-support, kind="stable"):
            if support[code] or predicted[code]:
                ratio = [hits[code] / of if of else None for of in (predicted[code], support[code])]
                f1 = 2 * hits[code] / (predicted[code] + support[code])
                found.append(
                    {
                        "value": self.values[code],
                        "support": int(support[code]),
                        "predicted": int(predicted[code]),
                        "precision": None if ratio[0] is None else rounded(ratio[0]),
                        "recall": None if ratio[1] is None else rounded(ratio[1]),
                        "f1": rounded(f1),
                    }
                )
        return found

    def _confusions(self) -> list[dict[str, Any]]:
        """(label, reference) pairs by what kappa would gain if only that confusion were put right."""
        told = [
            (row[table], row[-1], position)
            for position, row in enumerate(self.rows)
            for table in range(len(self.names) - 1)
            if row[table] != MISSING and row[-1] != MISSING
        ]
        first, second = (np.array([entry[side] for entry in told], dtype=np.int64) for side in (0, 1))
        weights = self.counts[[entry[2] for entry in told]].astype(np.float64)[None, :] if told else np.zeros((1, 0))
        now = kappa(first, second, weights)[0]
        found = []
        for label, truth in sorted({(a, b) for a, b, _ in told if a != b}):
            where = (first == label) & (second == truth)
            mended = kappa(np.where(where, second, first), second, weights)[0]
            rows = {told[entry][2] for entry in np.flatnonzero(where)}
            examples = [
                self.ids[record] for record in np.flatnonzero(np.isin(self.of_record, sorted(rows)))[:_EXAMPLES]
            ]
            found.append(
                {
                    "label": self.values[label],
                    "reference": self.values[truth],
                    "records": int(weights[0, where].sum()),
                    "kappa_gain": rounded(mended - now),
                    "record_ids": examples,
                }
            )
        found.sort(key=lambda entry: (-entry["records"], -(entry["kappa_gain"] or 0.0)))
        found.sort(key=lambda entry: -(entry["kappa_gain"] or 0.0))
        return found[:_CONFUSIONS]

    def _other(self) -> dict[str, float | None]:
        if _OTHER not in self.values:
            return dict.fromkeys(self.names, 0.0)
        code, shares = self.values.index(_OTHER), {}
        for table, name in enumerate(self.names):
            uses = self.rows[:, table]
            labelled = self.counts[uses != MISSING].sum()
            shares[name] = rounded(self.counts[uses == code].sum() / labelled) if labelled else None
        return shares


def _cells(axis: str, records: Sequence[str], good: Mapping[str, pl.DataFrame]) -> list[Cells]:
    wide = pl.DataFrame({"record_id": records})
    for number, frame in enumerate(good.values()):
        column = frame.select("record_id", pl.col(axis).alias(f"{number}"))
        wide = wide.join(column, on="record_id", how="left", maintain_order="left")
    return [tuple(_cell(value) for value in row) for row in wide.drop("record_id").rows()]


def _cell(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(value)
    return (f"{value:g}" if isinstance(value, float) else str(value),)  # grades read from csv may be floats


def _mean(found: list[Floats]) -> Floats:
    """Mean over pairs of tables, without the pairs where the coefficient is undefined."""
    stacked = np.vstack(found)
    defined = np.isfinite(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(defined, stacked, 0.0).sum(axis=0) / defined.sum(axis=0)


def _columns(
    tables: Mapping[str, pl.DataFrame], groups: pl.DataFrame | None, records: list[str]
) -> dict[str, list[str | None]]:
    """column -> the group of each record: kind, benchmark and source where tables have them, and those of `groups`."""
    found = pl.DataFrame({"record_id": records})
    sources = [
        frame.select("record_id", *({"kind", "benchmark", "source"} & set(frame.columns))) for frame in tables.values()
    ]
    for more in [*sources, *([groups] if groups is not None else [])]:
        unique = more.unique("record_id", keep="first", maintain_order=True)
        renamed = unique.rename({name: f"new {name}" for name in more.columns if name != "record_id"})
        found = found.join(renamed, on="record_id", how="left", maintain_order="left")
        for name in sorted(set(more.columns) - {"record_id"}):
            known = [pl.col(name)] if name in found.columns else []
            text = pl.coalesce(*known, pl.col(f"new {name}").cast(pl.String)).alias(name)
            found = found.with_columns(text).drop(f"new {name}")
    names = [name for name in found.columns if name != "record_id" and found[name].null_count() < found.height]
    return {name: found[name].to_list() for name in sorted(names, key=lambda name: (name != "kind", name))}


def _by(columns: Mapping[str, list[str | None]], joined: Mapping[str, _Joined]) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for column, groups in columns.items():
        found[column] = {}
        for value in sorted({group for group in groups if group is not None}):
            members = [position for position, group in enumerate(groups) if group == value]
            parts = {axis: each.within(members).brief() for axis, each in joined.items()}
            found[column][value] = {axis: part for axis, part in parts.items() if part["records"]}
    return found
