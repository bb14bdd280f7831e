"""What a folder of artefacts holds, read without ever loading a table of documents whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from annotator.errors import BadInput
from annotator.tables import DROPPED, LABELS, MATCHES, SLICES, UPSAMPLE, read_made_from


@dataclass(frozen=True, slots=True)
class Artefact:
    """One file of a run: its name, what is in it, the command that makes it, and its columns if it is a table.

    `also` is another name that it may have.
    """

    file: str
    holds: str
    command: str
    columns: Mapping[str, Any] | None = None
    also: str = ""

    def find(self, folder: Path) -> Path | None:
        """Where it is in a folder, or None."""
        names = [name for name in (self.file, self.also) if name and (folder / name).exists()]
        return folder / names[0] if names else None


ARTEFACTS = {
    "diagnosis": Artefact("diagnosis.json", "whether data can be the cause", "annotator diagnose"),
    "item_labels": Artefact("item_labels.parquet", "labels of the items", "annotator label --kind item", LABELS),
    "document_labels": Artefact(
        "document_labels.parquet", "labels of the documents", "annotator label --kind document", LABELS
    ),
    "slices": Artefact("slices.parquet", "failing slices", "annotator slices", SLICES),
    "matches": Artefact("matches.parquet", "corpus categories for the slices", "annotator match", MATCHES),
    "upsample": Artefact("upsample.parquet", "documents to upsample", "annotator rank", UPSAMPLE),
    "dropped": Artefact(
        "upsample.parquet.dropped.parquet",
        "documents left out, with reasons",
        "annotator rank",
        DROPPED,
        also="upsample.dropped.parquet",
    ),
    "verification": Artefact("verification.json", "the effect of training on them", "annotator verify"),
}
_NEEDS_DATA_VERDICT = ("matches", "upsample", "dropped")


@dataclass(frozen=True, slots=True)
class Folder:
    """The artefacts that are there.

    tables: name -> lazy table with its columns checked. records: name -> parsed JSON file. made_from: name -> metadata.
    steps: what `annotator run` noted in steps.json, or empty. missing: names of artefacts that are not there.
    outdated: names of those that an earlier run left behind and that contradict this one; they are not read.
    """

    tables: dict[str, pl.LazyFrame]
    records: dict[str, dict[str, Any]]
    made_from: dict[str, dict[str, Any]]
    steps: dict[str, Any]
    missing: list[str]
    outdated: list[str]

    def read(self, name: str) -> pl.DataFrame | None:
        """A small table whole, or None when it is not there."""
        return self.tables[name].collect() if name in self.tables else None

    def summary(self, name: str) -> dict[str, Any]:
        """What the step reported: from steps.json, else from the table's metadata, else empty."""
        noted = self.steps.get(name, {})
        found = noted.get("summary") if isinstance(noted, dict) else None
        return found if isinstance(found, dict) else self.made_from.get(name, {})


def open_folder(folder: Path) -> Folder:
    """Look through a folder of artefacts.

    Raises:
        BadInput: no such folder, nothing of a run in it, or a file in it is damaged or lacks a column.
    """
    if not folder.is_dir():
        raise BadInput("no such folder", where=str(folder), remedy="Give the folder that `annotator run` writes to.")
    there = {name: path for name, artefact in ARTEFACTS.items() if (path := artefact.find(folder))}
    if not there:
        remedy = f"Expected files such as {', '.join(artefact.file for artefact in ARTEFACTS.values())}."
        raise BadInput("no artefact of a run is in this folder", where=str(folder), remedy=remedy)
    records = {name: _record(path) for name, path in there.items() if path.suffix == ".json"}
    steps = _record(folder / "steps.json") if (folder / "steps.json").exists() else {}
    outdated = _outdated(there, records, steps)
    tables = {
        name: _scan(path, ARTEFACTS[name])
        for name, path in there.items()
        if name not in records and name not in outdated
    }
    made_from = {name: read_made_from(there[name]) for name in tables}
    return Folder(tables, records, made_from, steps, [name for name in ARTEFACTS if name not in there], outdated)


def _outdated(there: Mapping[str, Path], records: Mapping[str, Any], steps: Mapping[str, Any]) -> list[str]:
    """When the diagnosis is not_data, `annotator run` stops before matching, but deletes no file of an earlier run."""
    if not steps or records.get("diagnosis", {}).get("verdict") != "not_data" or "matches" in steps:
        return []
    return [name for name in _NEEDS_DATA_VERDICT if name in there]


def _record(path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise BadInput(f"cannot be read as JSON ({error})", where=str(path), remedy="Run its step again.") from None
    if not isinstance(found, dict):
        raise BadInput("is not a JSON object", where=str(path), remedy="Run its step again.")
    return found


def _scan(path: Path, artefact: Artefact) -> pl.LazyFrame:
    columns = artefact.columns or {}
    try:
        table = pl.scan_parquet(path, glob=False)
        schema = table.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        first = (str(error).splitlines() or ["unreadable"])[0]
        raise BadInput(f"cannot be read as a table ({first})", where=str(path), remedy="Run its step again.") from None
    remedy = f"Make it with `{artefact.command}`."
    for name, dtype in columns.items():
        if name not in schema:
            raise BadInput(f"no column {name!r}", where=str(path), remedy=remedy)
        if not _holds(schema[name], dtype):
            raise BadInput(f"column {name!r} is {schema[name]}, not {dtype}", where=str(path), remedy=remedy)
    return table.select(pl.col(name).cast(dtype) for name, dtype in columns.items())


def _holds(theirs: pl.DataType, ours: Any) -> bool:
    """Whether a column can be taken as `ours` without loss; a column of nulls can be anything."""
    return theirs in (ours, pl.Null, pl.List(pl.Null)) or (theirs.is_numeric() and ours.is_numeric())
