"""Labels carried from one version of the codebook to the next, along a mapping that somebody wrote."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from annotator.errors import BadInput, UnknownValue, did_you_mean
from annotator.fingerprint import fingerprint
from annotator.taxonomy import AXES, GRADES, MAX_OPERATIONS, Taxonomy

RELABEL = "value_split"
"""The error code of rows whose old value was split: no mapping can say which part they are."""

_OPERATION = "solving_operation"
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class ValueMapping:
    """A written mapping. values: axis or grade -> old value -> the new one, or several: then the old one was split."""

    before: str
    after: str
    values: dict[str, dict[str, tuple[str, ...]]]
    fingerprint: str


def read_mapping(path: str | Path, taxonomy: Taxonomy) -> ValueMapping:
    """Read a mapping file and hold it against the taxonomy that it leads to.

        from = "1"
        to = "2"
        [task_type]
        calculate = "compute"            # renamed, or merged into another
        order = ["sort", "rank"]         # split: such rows are marked for re-labelling

    Raises:
        BadInput: unreadable, of another form, or to another version. UnknownValue: a new value that does not exist.
    """
    where = str(path)
    try:
        raw = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the mapping cannot be read ({error})", where=where) from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"not valid TOML: {error}", where=where, remedy="Mend the file at that place.") from None
    for key in raw:
        if key not in ("from", "to", *AXES, *GRADES):
            raise BadInput(f"unknown key {key!r}", where=where, remedy=did_you_mean(key, [*AXES, *GRADES]))
    for key in ("from", "to"):
        if not isinstance(raw.get(key), str):
            remedy = 'Write from = "1" and to = "2", the versions of the two taxonomies.'
            raise BadInput(f'no version "{key}"', where=where, remedy=remedy)
    if raw["to"] != taxonomy.version:
        remedy = "Give the taxonomy that the mapping leads to (--taxonomy FILE)."
        raise BadInput(
            f"leads to version {raw['to']!r}, the taxonomy is {taxonomy.version!r}", where=where, remedy=remedy
        )
    values = {name: _targets(name, raw[name], taxonomy, where) for name in (*AXES, *GRADES) if name in raw}
    return ValueMapping(raw["from"], raw["to"], values, fingerprint(raw))


def _targets(name: str, table: Any, taxonomy: Taxonomy, where: str) -> dict[str, tuple[str, ...]]:
    place = f"{where} [{name}]"
    if not isinstance(table, dict):
        raise BadInput("not a table of values", where=place, remedy='Write old = "new" lines.')
    allowed = taxonomy.all_values(name) if name in AXES else taxonomy.grade_values(name)
    found = {}
    for old, new in table.items():
        targets = (new,) if isinstance(new, str) else tuple(new) if isinstance(new, list) else ()
        if not targets or not all(isinstance(target, str) for target in targets):
            raise BadInput(f"{old!r} leads nowhere", where=place, remedy="Write the new value, or a list of several.")
        for target in targets:
            if target not in allowed:
                raise UnknownValue(name, target, allowed, place)
        found[old] = targets
    return found


@dataclass(frozen=True, slots=True)
class Migration:
    """labels: the table under the new version. moved: axis -> rows whose value changed. relabel: rows marked for it."""

    labels: pl.DataFrame
    moved: dict[str, int]
    relabel: int

    def as_dict(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {"rows": self.labels.height, "moved": self.moved, "relabel": self.relabel}


def migrate(labels: pl.DataFrame, mapping: ValueMapping, taxonomy: Taxonomy) -> Migration:
    """Labels of the old version as labels of the new one.

    Values that the mapping does not name stay if the new taxonomy has them on that side. Two operations that became one
    are named once. A row with a value that was split becomes a failed row with error "value_split", as `label
    --retry-failed` takes it up; the old table still has its old label.

    Args:
        labels: LABELS columns; failed rows stay as they are.
        taxonomy: the one that the mapping leads to.

    Raises:
        BadInput: labels of another version than the mapping's, or values that neither the mapping nor the new taxonomy
            has: all of them are listed.
    """
    versions = labels["taxonomy_version"].drop_nulls().unique().sort().to_list()
    if versions != [mapping.before]:
        what = f"these labels are of version {', '.join(map(repr, versions)) or 'unknown'}, not {mapping.before!r}"
        raise BadInput(what, where="labels", remedy="Give labels of the version that the mapping starts from.")
    _refuse_unmapped(labels, mapping, taxonomy)
    names = [name for name in (*AXES, *GRADES) if name in labels.columns]
    columns = {name: [_moved(name, value, mapping) for value in labels[name]] for name in names}
    is_split = [any(each == RELABEL for each in row) for row in zip(*columns.values(), strict=True)]
    moved, series = {}, []
    for name, values in columns.items():
        new = pl.Series(name, [None if split else value for split, value in zip(is_split, values, strict=True)],
                        dtype=labels.schema[name], strict=True)  # fmt: skip
        kept = [not split and value != old for split, value, old in zip(is_split, values, labels[name].to_list())]
        moved[name] = sum(kept)
        series.append(new)
    split = pl.Series(is_split, dtype=pl.Boolean)
    marks = [pl.when(split).then(pl.lit("failed")).otherwise("status").alias("status"),
             pl.when(split).then(pl.lit(RELABEL)).otherwise("error").alias("error"),
             pl.lit(taxonomy.version).alias("taxonomy_version")]  # fmt: skip
    told = [name for name in ("evidence", "confidence") if name in labels.columns]
    cleared = [pl.when(split).then(None).otherwise(name).alias(name) for name in told]
    table = labels.with_columns(series).with_columns(*marks, *cleared)
    return Migration(table, {name: count for name, count in moved.items() if count}, sum(is_split))


def _moved(name: str, value: Any, mapping: ValueMapping) -> Any:
    """The new value, RELABEL where the old one was split, None where there is none."""
    table = mapping.values.get(name, {})
    if value is None:
        return None
    if name == _OPERATION:
        targets = [table.get(operation, (operation,)) for operation in value]
        if any(len(each) > 1 for each in targets):
            return RELABEL
        return list(dict.fromkeys(each[0] for each in targets))[:MAX_OPERATIONS]
    targets = table.get(str(value), (str(value),))
    if len(targets) > 1:
        return RELABEL
    return type(value)(targets[0])


def _refuse_unmapped(labels: pl.DataFrame, mapping: ValueMapping, taxonomy: Taxonomy) -> None:
    lost: dict[str, int] = {}
    for kind in labels["kind"].drop_nulls().unique().sort().to_list():
        side = labels.filter(pl.col("kind") == kind)
        for name in (*AXES, *GRADES):
            if name not in side.columns:
                continue
            allowed = taxonomy.values(name, kind) if name in AXES else taxonomy.grade_values(name)
            column = pl.col(name).explode() if name == _OPERATION else pl.col(name).cast(pl.String)
            uses = side.select(column.alias("value")).drop_nulls().group_by("value").len().sort("value")
            for value, rows in uses.iter_rows():
                for target in mapping.values.get(name, {}).get(value, (value,)):
                    if target not in allowed:
                        told = value if target == value else f"{value} -> {target}"
                        lost[f"{name} {told} ({kind}s, {rows:,})"] = rows
    if lost:
        shown = ", ".join(list(lost)[:_SHOWN]) + (f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else "")
        remedy = "Map each to a value that exists on that side, or to several if it was split."
        raise BadInput(f"no place in version {taxonomy.version!r} for {shown}", where="labels", remedy=remedy)
