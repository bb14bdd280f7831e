"""Where a column that rules name lies in a user's table: under its own name, a pack's, or inside nested records."""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from annotator.errors import BadInput, did_you_mean
from annotator.rule_table import Rules

_NOT_PLAIN = r"[^a-z0-9]"


def own_column(table: pl.LazyFrame, name: str, rules: Rules, *, optional: bool = False) -> pl.Expr:
    """A column by the name that rules use for it; numbers become labels where the rule file lists those in order.

    Args:
        optional: a column that is not there is null.

    Raises:
        BadInput: the table lacks the column.
    """
    schema = table.collect_schema()
    found = nested_column(schema, name)
    if found is None and name in rules.columns:
        found = nested_column(schema, rules.columns[name])
    if found is None:
        if optional:
            return pl.lit(None, dtype=pl.String)
        path = rules.columns.get(name, name)
        what = f"a rule asks for column {path!r}, which no table has"
        remedy = f"{did_you_mean(path, schema.names())} Or name it with --column {name}=YOURS."
        raise BadInput(what, where=rules.where, remedy=remedy)
    column, dtype = found
    if name not in rules.names:
        return column
    labels = rules.names[name]
    if dtype.is_integer():
        known: dict[Any, str] = {number: label[0] for number, label in enumerate(labels)}
    else:
        known = {_plain(text): label[0] for label in labels for text in label}
        column = column.cast(pl.String).str.to_lowercase().str.replace_all("&", "and").str.replace_all(_NOT_PLAIN, "")
    return column.replace_strict(known, default=None, return_dtype=pl.String)


def _plain(text: str) -> str:
    """A label without case, spaces and punctuation: "Art & Design" and "art_and_design" are one."""
    return re.sub(_NOT_PLAIN, "", text.lower().replace("&", "and"))


def nested_column(schema: Any, path: str) -> tuple[pl.Expr, Any] | None:
    """The column "a.b.c" of a schema (b a field of the record a) and its type; None if there is none."""
    if path in schema:
        return pl.col(path), schema[path]
    outer, *inner = path.split(".")
    if outer not in schema:
        return None
    column, dtype = pl.col(outer), schema[outer]
    for field in inner:
        fields = {one.name: one.dtype for one in dtype.fields} if isinstance(dtype, pl.Struct) else {}
        if field not in fields:
            return None
        column, dtype = column.struct.field(field), fields[field]
    return column, dtype
