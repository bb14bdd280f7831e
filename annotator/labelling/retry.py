"""Failed rows of a label table: which they are, and how new rows take their places."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl

from annotator.errors import BadInput
from annotator.labelling.parts import failed_path_of
from annotator.tables import LABELS, read_made_from, read_table, write_table
from annotator.taxonomy import Taxonomy


def failed_ids(out: Path, taxonomy: Taxonomy) -> frozenset[str]:
    """The ids of the failed rows of a label table.

    Raises:
        BadInput: there is no such table, it was labelled with another taxonomy, or an id stands in it twice.
    """
    if not out.is_file():
        remedy = "Label first, without --retry-failed."
        raise BadInput("there is no label table to take failed rows from", where=str(out), remedy=remedy)
    labels = read_table(out, LABELS, made_by="annotator label")
    remedy = "Label again from the start, without --retry-failed."
    # Only parquet says what it was made from; the rows of the other formats name the version at least.
    versions = set(labels["taxonomy_version"].drop_nulls().unique().to_list())
    known = read_made_from(out).get("taxonomy", taxonomy.fingerprint)
    if known != taxonomy.fingerprint or versions - {taxonomy.version}:
        raise BadInput("this table was labelled with another taxonomy", where=str(out), remedy=remedy)
    twice = labels.filter(pl.col("record_id").is_duplicated())["record_id"]
    if len(twice):
        raise BadInput(f"id {twice[0]!r} stands in two rows", where=str(out), remedy=remedy)
    return frozenset(labels.filter(pl.col("status") == "failed")["record_id"].to_list())


def take_places(again: Path, out: Path) -> None:
    """Replace rows of `out` by the rows of `again` with the same record_id; all else stays, in its order.

    The dead-letter file of `again` becomes that of `out`.
    """
    before = read_table(out, LABELS, made_by="annotator label").with_row_index("place")
    after = read_table(again, LABELS, made_by="annotator label")
    kept = before.join(after.select("record_id"), on="record_id", how="anti")
    placed = after.join(before.select("record_id", "place"), on="record_id", how="inner")
    merged = pl.concat([kept, placed], how="diagonal_relaxed").sort("place").drop("place")
    letters = failed_path_of(again)
    if letters.exists():
        shutil.move(letters, failed_path_of(out))
    else:
        failed_path_of(out).unlink(missing_ok=True)
    write_table(merged, out, made_from=read_made_from(out))
