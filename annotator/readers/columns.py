"""Which column of a table means what: the aliases of the contract, and a user's own names."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import polars as pl

from annotator.errors import BadInput, did_you_mean

ITEMS = {
    "item_id": ("item_id", "id", "doc_id", "question_id", "task_id"),
    "benchmark": ("benchmark",),
    "task": ("task", "subset", "category", "subject"),
    "prompt": ("prompt", "question", "problem", "input", "query"),
    "target": ("target", "answer", "gold", "label", "solution"),
    "choices": ("choices", "options"),
    "cluster_id": ("cluster_id",),
}
SAMPLES = {
    "item_id": ITEMS["item_id"],
    "run": ("run", "model", "checkpoint"),
    "sample_index": ("sample_index", "sample", "repeat", "epoch"),
    "response": ("response", "output", "completion", "generation"),
    "score": ("score", "correct", "exact_match", "acc"),
    "finish_reason": ("finish_reason", "stop_reason"),
    "max_tokens": ("max_tokens", "max_new_tokens", "max_gen_toks", "decoding.max_tokens"),
    "stop": ("stop", "until", "stop_sequences", "decoding.stop"),
    "temperature": ("temperature", "decoding.temperature"),
}
DOCUMENTS = {
    "doc_id": ("doc_id", "id", "uuid", "url"),
    "text": ("text", "content", "raw_content"),
    "source": ("source",),
    "lang": ("lang", "language"),
    "url": ("url",),
    "tokens": ("tokens", "token_count", "n_tokens"),
    "quality": ("quality",),
}


UNNAMED_RUN = "unnamed"  # the run of samples whose table does not name one
ITEM_TYPES = {
    "item_id": pl.String,
    "benchmark": pl.String,
    "task": pl.String,
    "prompt": pl.String,
    "target": pl.String,
    "choices": pl.List(pl.String),
    "cluster_id": pl.String,
}
SAMPLE_TYPES = {
    "item_id": pl.String,
    "run": pl.String,
    "sample_index": pl.Int64,
    "response": pl.String,
    "score": pl.Float64,
    "finish_reason": pl.String,
    "max_tokens": pl.Int64,
    "stop": pl.List(pl.String),
    "temperature": pl.Float64,
}


def check_overrides(overrides: Mapping[str, str], known: Mapping[str, tuple[str, ...]]) -> None:
    """Raise BadInput if a `canonical=theirs` pair names a canonical column that this kind of table does not have."""
    for canonical in overrides:
        if canonical not in known:
            remedy = did_you_mean(canonical, known)
            raise BadInput(f"{canonical!r} is not a column that can be set", where="--column", remedy=remedy)


def resolve(
    present: Collection[str],
    known: Mapping[str, tuple[str, ...]],
    overrides: Mapping[str, str],
    *,
    required: Collection[str],
    where: str,
) -> dict[str, str]:
    """Canonical name -> the table's own name; the first alias that is present wins, an override wins over all.

    Args:
        present: the table's column names; a field of a nested object counts as "outer.inner".
        known: canonical name -> aliases, in order (ITEMS, SAMPLES, DOCUMENTS).
        overrides: canonical name -> the user's name for it.
        required: canonical names that must be found.
        where: the file, for messages.

    Raises:
        BadInput: a required column is missing, or an override names a column that is not there.
    """
    check_overrides(overrides, known)
    found: dict[str, str] = {}
    for canonical, aliases in known.items():
        theirs = overrides.get(canonical)
        if theirs is not None:
            if theirs not in present:
                raise BadInput(
                    f"no column {theirs!r} (asked for as {canonical})",
                    where=where,
                    remedy=did_you_mean(theirs, present),
                )
            found[canonical] = theirs
            continue
        match = next((alias for alias in aliases if alias in present), None)
        if match is not None:
            found[canonical] = match
        elif canonical in required:
            shown = ", ".join(sorted(present)[:12])
            raise BadInput(
                f"no column {canonical!r} (nor {', '.join(aliases[1:])}); it has {shown}",
                where=where,
                remedy=f"Name it with --column {canonical}=YOURS.",
            )
    return found
