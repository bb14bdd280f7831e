"""Turn a ranked list into what a trainer reads, with a manifest of what it was made from."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from annotator.errors import BadInput, did_you_mean
from annotator.fingerprint import fingerprint, unordered
from annotator.tables import write_json, write_table, write_text

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
MAX_BLENDS = 32767  # Megatron-LM counts blended data sets in 16 bits


def export(
    upsample: pl.DataFrame, path: str | Path, *, format: str, made_from: Mapping[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """Write `upsample` for a trainer.

    Args:
        upsample: UPSAMPLE rows.
        path: a file for jsonl and megatron.
        format: one of FORMATS.
        made_from: fingerprints and versions for the manifest, which is written beside the file.
        options: those of the format; see its writer.

    Returns:
        format, files, rows, tokens (with repeats), shares, manifest; JSON-ready.

    Raises:
        BadInput: an unknown format, an empty list, or a list that the trainer would misread.
    """
    if format not in _WRITERS:
        raise BadInput(f"{format!r} is not an export format", where="--format", remedy=did_you_mean(format, FORMATS))
    if not upsample.height:
        raise BadInput("there is nothing to export", where="upsample", remedy="Rank with a larger budget first.")
    path = Path(path)
    written = _WRITERS[format](upsample, path, **options)
    total = int((upsample["tokens"] * upsample["repeats"]).sum())
    summary = {"format": format, "rows": upsample.height, "tokens": total, **written}
    manifest = path.with_name(f"{path.name}.manifest.json")
    rows = unordered(fingerprint(row) for row in upsample.drop("shard", "row").iter_rows())
    write_json(manifest, {**summary, "upsample_fingerprint": rows, "made_from": dict(made_from or {})})
    return {**summary, "manifest": str(manifest)}


def _write_jsonl(upsample: pl.DataFrame, path: Path) -> dict[str, Any]:
    """One row a document: doc_id, weight (share of the tokens read, repeats counted), repeats, reasons."""
    if not path.name.endswith(SUFFIXES):
        raise BadInput("the name has no known ending", where=str(path), remedy=f"Use {', '.join(SUFFIXES)}.")
    read = upsample["tokens"] * upsample["repeats"]
    columns = ["doc_id", "source", "shard", "row", "tokens", "repeats", "score", "category_id", "slice_ids", "rule_ids"]
    table = upsample.select(columns).with_columns((read / read.sum()).alias("weight"))
    write_table(table, path, made_from={"format": "jsonl"})
    return {"files": [str(path)]}


def _write_megatron(upsample: pl.DataFrame, path: Path, *, prefix: str = "{source}") -> dict[str, Any]:
    """`--data-args-path` file: weight and data-set prefix of each source, on one line.

    Megatron-LM reads an odd number of words, or words that are not numbers where weights belong, as bare prefixes with
    weights of its own making; so weights are plain decimals and prefixes hold no white space.

    Args:
        prefix: where the tokenised data of a source lies, e.g. "/data/{source}_text_document".
    """
    shares = token_shares(upsample)
    if len(shares) > MAX_BLENDS:
        raise BadInput(f"{len(shares)} data sets; Megatron-LM blends fewer than {MAX_BLENDS}", where=str(path))
    words: list[str] = []
    for source, share in shares.items():
        name = prefix.replace("{source}", source)
        if shlex.split(name) != [name] or _is_number(name):
            remedy = "Give --prefix without white space, e.g. data/{source}_text_document."
            raise BadInput(f"{name!r} cannot be a Megatron-LM prefix", where=str(path), remedy=remedy)
        words += [f"{share:.8f}", name]
    write_text(path, " ".join(words) + "\n")
    return {"files": [str(path)], "shares": shares}


def token_shares(upsample: pl.DataFrame) -> dict[str, float]:
    """Source -> share of all tokens read (repeats counted), above 0 and summing to 1 within rounding."""
    read = upsample.select(pl.col("source").fill_null("unknown"), (pl.col("tokens") * pl.col("repeats")).alias("read"))
    sums = dict(read.group_by("source").agg(pl.col("read").sum()).sort("source").iter_rows())
    total = sum(sums.values())
    return {source: max(round(tokens / total, 8), 1e-8) for source, tokens in sums.items()}


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


_WRITERS: dict[str, Callable[..., dict[str, Any]]] = {"jsonl": _write_jsonl, "megatron": _write_megatron}
FORMATS = tuple(_WRITERS)
