"""Fingerprints of inputs, so that a mixture can be traced to what made it: of content, never of files or row order."""

from __future__ import annotations

import hashlib

import polars as pl

from annotator.fingerprint import fingerprint
from annotator.matching.profiles import Profiles, profile_sizes

_ROWS = 1 << 20


def table_fingerprint(table: pl.DataFrame) -> str:
    """The fingerprint of a small table, whatever the order of its rows."""
    return fingerprint(sorted(fingerprint(row) for row in table.iter_rows(named=True)))


def supply_fingerprint(found: Profiles) -> str:
    """The fingerprint of what matching sees of a corpus: its categories, and how much there is of each combination."""
    documents, tokens = profile_sizes(found)
    names = [category.id for category in found.categories]
    sizes = [documents.tolist(), None if tokens is None else tokens.tolist()]
    return fingerprint([names, found.members.tolist(), found.exercise, found.guards, *sizes])


def corpus_fingerprint(found: Profiles) -> str:
    """The fingerprint of what ranking sees of a corpus: every document with its labels, grades, tokens and source.

    Args:
        found: profiles of all documents, in order of doc_id.
    """
    digest = hashlib.blake2b(supply_fingerprint(found).encode(), digest_size=32)
    source = found.documents["source"]
    names = source.unique().cast(pl.String).drop_nulls().sort()
    digest.update("\n".join(names).encode("utf-8", "replace"))
    numbers = pl.Series(range(names.len()), dtype=pl.Int64)
    for part in found.documents.iter_slices(_ROWS):
        digest.update((part["doc_id"].str.join("\n").item() or "").encode("utf-8", "replace"))
        for name in ("profile", "quality", "confidence", "tokens"):
            digest.update(part[name].fill_null(-1).to_numpy().tobytes())
        coded = part["source"].replace_strict(names.cast(source.dtype), numbers, default=-1, return_dtype=pl.Int64)
        digest.update(coded.to_numpy().tobytes())
    return digest.hexdigest()
