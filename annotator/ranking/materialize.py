"""The chosen documents written out with their texts: shards that any reader of parquet takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from annotator.errors import BadInput
from annotator.readers import read_documents
from annotator.tables import write_probe, write_table

SHARD_BYTES = 256 << 20  # of text
_KEPT = ("source", "category_id", "slice_ids", "rule_ids", "score", "tokens", "repeats")


def check_empty(folder: Path) -> None:
    """Raise BadInput if shards cannot be written to a folder of their own; makes it if it is missing."""
    if folder.is_dir() and any(folder.iterdir()):
        raise BadInput("is not empty", where=str(folder), remedy="Name a new folder: old shards must not mix with new.")
    write_probe(folder)


def materialize(
    chosen: pl.DataFrame,
    documents: Sequence[str | Path],
    folder: Path,
    *,
    columns: Mapping[str, str] = {},
    made_from: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write the texts of chosen documents as part-00000.parquet, ... in the order of the corpus.

    The corpus is read once, batch by batch; memory follows the shard that is written. A document that is to be read
    several times stands there once: the column `repeats` says how often.

    Args:
        chosen: UPSAMPLE. documents: the files, folders or globs that it was made from.
        shard_bytes: bytes of text in a shard, about.

    Returns:
        the files written, with columns doc_id, text, source, category_id, slice_ids, rule_ids, score, tokens, repeats.

    Raises:
        BadInput: the folder holds files already, or some chosen documents are not in the corpus.
    """
    check_empty(folder)
    wanted = chosen.select("doc_id", *_KEPT)
    written: list[Path] = []
    waiting: list[pl.DataFrame] = []
    size = found = 0

    def flush() -> None:
        nonlocal size
        path = folder / f"part-{len(written):05d}.parquet"
        write_table(pl.concat(waiting), path, made_from=made_from)
        written.append(path)
        waiting.clear()
        size = 0

    for batch in read_documents(documents, columns=columns):
        mine = batch.select("doc_id", "text").join(wanted, on="doc_id", how="inner", maintain_order="left")
        if mine.height:
            waiting.append(mine)
            size += int(mine["text"].str.len_bytes().sum())
            found += mine.height
        if size >= shard_bytes:
            flush()
    if waiting:
        flush()
    if found < chosen.height:
        what = f"{chosen.height - found:,} of {chosen.height:,} chosen documents are not in the corpus"
        raise BadInput(what, where=", ".join(map(str, documents)), remedy="Give the documents that were ranked.")
    return written
