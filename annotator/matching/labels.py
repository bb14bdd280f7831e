"""Document labels as a lazy table: a corpus has many, and matching looks at few of their columns."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from annotator.errors import BadInput
from annotator.tables import LABELS, read_labels

_MADE_BY = "annotator label --kind document"


def scan_labels(path: Path) -> pl.LazyFrame:
    """Labels of documents; parquet is scanned, other formats are read.

    Raises:
        BadInput: a missing or unreadable file, a missing column, or labels of items.
    """
    if not path.name.endswith(".parquet") or not path.exists():
        return read_labels(path, "document").lazy()
    table = pl.scan_parquet(path, glob=False)
    try:
        present = table.collect_schema()
        missing = [name for name in LABELS if name not in present]
        if missing:
            remedy = f"Give a table written by `{_MADE_BY}`."
            raise BadInput(f"no column {missing[0]!r}", where=str(path), remedy=remedy)
        table = table.with_columns(pl.col(name).cast(dtype) for name, dtype in LABELS.items() if present[name] != dtype)
        kinds = table.select(pl.col("kind").unique()).collect(engine="streaming")["kind"].drop_nulls().sort()
    except (pl.exceptions.PolarsError, OSError) as error:
        first = (str(error).splitlines() or ["unreadable"])[0]
        raise BadInput(f"cannot be read as a table ({first})", where=str(path)) from None
    for kind in kinds:
        if kind != "document":
            remedy = "Give the labels made with --kind document."
            raise BadInput(f"these are labels of {kind}s", where=str(path), remedy=remedy)
    return table


def taxonomy_versions(labels: pl.LazyFrame) -> pl.DataFrame:
    """The distinct taxonomy versions of some labels, as a table with that one column."""
    return labels.select(pl.col("taxonomy_version").unique()).collect(engine="streaming")
