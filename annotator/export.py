"""Turn a ranked list into what a trainer reads, with a manifest of what it was made from."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from annotator.decontaminate import text_batches
from annotator.errors import BadInput, did_you_mean
from annotator.exporting.place import digests_of, in_place_of, manifest_of
from annotator.fingerprint import fingerprint, unordered
from annotator.tables import write_json, write_table, write_text

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
Documents = Sequence[str | Path] | pl.DataFrame | None
_PLACEHOLDERS = ("{source}", "{group}")
_TEXTS = {"doc_id": pl.String, "text": pl.String}
MAX_BLENDS = 32767  # Megatron-LM counts blended data sets in 16 bits


def export(
    upsample: pl.DataFrame, path: str | Path, *, format: str, made_from: Mapping[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """Write `upsample` for a trainer.

    Args:
        upsample: UPSAMPLE rows.
        path: a file for jsonl and megatron; a folder for the others, which is empty or holds an earlier export alone.
            That one is replaced when the new one is whole.
        format: one of FORMATS.
        made_from: fingerprints and versions for the manifest, which is written beside the file or folder.
        options: those of the format. megatron: prefix, where the tokenised data of a source lies. olmo-core, streaming,
            hf: documents (files, folders, globs or a frame), whose texts the mixture holds, and columns (canonical name
            -> the documents' own).

    Returns:
        format, files, rows, tokens (with repeats), shares (of tokens, by group or source), manifest; JSON-ready. The
        manifest holds the same, `sha256` of each file, `upsample_fingerprint` and `made_from`.

    Raises:
        BadInput: an unknown format, an empty list, a list that the trainer would misread, a folder with other files in
            it, or a mixture without its texts.
    """
    if format not in _WRITERS:
        raise BadInput(f"{format!r} is not an export format", where="--format", remedy=did_you_mean(format, FORMATS))
    if not upsample.height:
        raise BadInput("there is nothing to export", where="upsample", remedy="Rank with a larger budget first.")
    path = Path(path)
    if format in FILES:
        return _traced(upsample, path, path, format, made_from or {}, options)
    with in_place_of(path) as partial:
        return _traced(upsample, partial, path, format, made_from or {}, options)


def _traced(
    upsample: pl.DataFrame,
    place: Path,
    path: Path,
    format: str,
    made_from: Mapping[str, Any],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Write one format to `place`, and its manifest beside it, both of which will lie at `path`."""
    written = _WRITERS[format](upsample, place, **options)

    def final(name: str) -> str:
        return str(path / Path(name).relative_to(place))

    summary = {
        "format": format,
        "rows": upsample.height,
        "tokens": int((upsample["tokens"] * upsample["repeats"]).sum()),
        **written,
        "files": [final(name) for name in written["files"]],
    }
    rows = unordered(fingerprint(row) for row in upsample.drop("shard", "row").iter_rows())
    digests = {final(name): digest for name, digest in digests_of(place).items()}
    traced = {"sha256": digests, "upsample_fingerprint": rows, "made_from": dict(made_from)}
    write_json(manifest_of(place), summary | traced)
    return {**summary, "manifest": str(manifest_of(path))}


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
    weights of its own making; so weights are plain decimals and prefixes hold no white space. Within a prefix it reads
    all documents equally often: name one a group ("books-x3") where passes differ within a source.

    Args:
        prefix: where the tokenised data of a source lies, "/data/{source}_text_document", or that of a group,
            "/data/{group}_text_document".
    """
    for placeholder in re.findall(r"\{[^{}]*\}", prefix):
        if placeholder not in _PLACEHOLDERS:
            remedy = f"Write {' or '.join(_PLACEHOLDERS)}, e.g. /data/{{source}}_text_document."
            raise BadInput(f"{placeholder} stands for nothing", where="--prefix", remedy=remedy)
    by_group = "{group}" in prefix
    shares = _group_shares(groups_of(upsample)) if by_group else token_shares(upsample)
    if len(shares) > MAX_BLENDS:
        raise BadInput(f"{len(shares)} data sets; Megatron-LM blends fewer than {MAX_BLENDS}", where=str(path))
    words: list[str] = []
    for name, share in shares.items():
        full = prefix.replace("{group}", name).replace("{source}", _file_name(name))
        if shlex.split(full) != [full] or _is_number(full):
            remedy = "Give one without white space that is no number, e.g. data/{source}_text_document."
            raise BadInput(f"{full!r} cannot be a Megatron-LM prefix", where="--prefix", remedy=remedy)
        words += [f"{max(share, 1e-8):.8f}", full]
    if len(set(words[1::2])) < len(shares):
        remedy = "Put {source} into it, e.g. /data/{source}_text_document."
        raise BadInput(f"{prefix!r} names two sources alike", where="--prefix", remedy=remedy)
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


@dataclass(frozen=True, slots=True)
class Group:
    """Documents of one source that are read equally often, so that a consumer's one number a group repeats the plan."""

    name: str
    source: str
    repeats: int
    rows: pl.DataFrame

    @property
    def unique_tokens(self) -> int:
        """Tokens of one pass."""
        return int(self.rows["tokens"].sum())

    @property
    def tokens(self) -> int:
        """Tokens of all passes."""
        return self.unique_tokens * self.repeats


def _file_name(source: str) -> str:
    """A source's name with letters and digits of any script, and _ for all else but . and -."""
    return re.sub(r"[^\w.-]+", "_", source)


def groups_of(upsample: pl.DataFrame) -> list[Group]:
    """The list by source and number of passes, in order of their names ("books-x3")."""
    named = upsample.with_columns(pl.col("source").fill_null("unknown"))
    groups = []
    for (source, repeats), rows in named.partition_by("source", "repeats", as_dict=True).items():
        safe = _file_name(str(source))
        groups.append(Group(f"{safe}-x{repeats}", str(source), int(repeats), rows.sort("rank")))
    groups.sort(key=lambda group: (group.name, group.source))
    names = [group.name for group in groups]
    if len(set(names)) < len(names):
        raise BadInput("two sources have names that differ in punctuation only", where="upsample", remedy="Rename one.")
    return groups


def _write_olmo_core(
    upsample: pl.DataFrame, path: Path, *, documents: Documents = None, columns: Mapping[str, str] = {}
) -> dict[str, Any]:
    """`mixture.yaml` for OLMo-core's source mixture, and data/GROUP.jsonl to tokenise into data/GROUP/*.npy.

    OLMo-core checks that ratios sum to 1 (to five digits) and that ratio x requested tokens is no more than population
    x repetition; so ratios are rounded down to 12 digits, and the repetition allowed is that of the plan. Populations
    are counted by its own tokeniser: where tokens of the list are estimates, it may ask for fewer of them.
    """
    groups = groups_of(upsample)
    texts = _texts(groups, documents, columns)
    total = sum(group.tokens for group in groups)
    ratios = [group.tokens * 10**12 // total / 10**12 for group in groups]
    lines = [f"requested_tokens: {total}", "sources:"]
    for group, ratio in zip(groups, ratios, strict=True):
        lines += [
            f"  - source_name: {json.dumps(group.name)}",
            f"    target_ratio: {ratio:.12f}",
            f"    paths: [{json.dumps(f'data/{group.name}/*.npy')}]",
            f"    max_repetition_ratio: {float(group.repeats)}",
            "    max_source_fraction: 1.0",
        ]
    write_text(path / "mixture.yaml", "\n".join(lines) + "\n")
    files = [str(path / "mixture.yaml"), *_write_groups(groups, path, texts)]
    return {"files": files, "shares": {group.name: ratio for group, ratio in zip(groups, ratios, strict=True)}}


def _write_streaming(
    upsample: pl.DataFrame, path: Path, *, documents: Documents = None, columns: Mapping[str, str] = {}
) -> dict[str, Any]:
    """`streams.json`: one MosaicML Stream a group with `repeat`, and the MDS shards themselves.

    StreamingDataset counts samples, and takes `proportion` for all streams or for none. `repeat` says exactly how often
    each document of a group is read, so the token shares of an epoch are those of the plan whatever the lengths.
    """
    groups = groups_of(upsample)
    texts = _texts(groups, documents, columns)
    _check_mds()
    streams = {group.name: {"local": group.name, "repeat": group.repeats} for group in groups}
    write_json(path / "streams.json", {"streams": streams, "epoch_size": None})
    files = [str(path / "streams.json"), *_write_groups(groups, path, None), *_write_mds(groups, path, texts)]
    return {"files": files, "shares": _group_shares(groups)}


def _write_hf(
    upsample: pl.DataFrame, path: Path, *, documents: Documents = None, columns: Mapping[str, str] = {}
) -> dict[str, Any]:
    """`interleave.json` for Hugging Face `interleave_datasets`, and data/GROUP.jsonl to load.

    interleave_datasets draws examples, not tokens, so the probability of a group is its share of the examples read. Its
    default `first_exhausted` stops at the smallest group and `all_exhausted` reads small groups again; without
    replacement, and with each group repeated first (`Dataset.repeat`), every document is read as often as planned.
    """
    groups = groups_of(upsample)
    texts = _texts(groups, documents, columns)
    reads = sum(group.rows.height * group.repeats for group in groups)
    entries = [
        {
            "name": group.name,
            "data_files": f"data/{group.name}.jsonl",
            "repeats": group.repeats,
            "probability": group.rows.height * group.repeats / reads,
            "token_share": share,
        }
        for group, share in zip(groups, _group_shares(groups).values(), strict=True)
    ]
    plan = {"datasets": entries, "stopping_strategy": "all_exhausted_without_replacement", "seed": 0, "examples": reads}
    write_json(path / "interleave.json", plan)
    files = [str(path / "interleave.json"), *_write_groups(groups, path, texts)]
    return {"files": files, "shares": _group_shares(groups)}


def _group_shares(groups: list[Group]) -> dict[str, float]:
    total = sum(group.tokens for group in groups)
    return {group.name: group.tokens / total for group in groups}


def _write_groups(groups: list[Group], path: Path, texts: pl.DataFrame | None) -> list[str]:
    """data/GROUP.jsonl: doc_id and reasons of each document, and its text unless that is written elsewhere."""
    columns = ["doc_id", "source", "tokens", "repeats", "score", "category_id", "slice_ids", "rule_ids"]
    files = []
    for group in groups:
        rows = group.rows.select(columns)
        if texts is not None:
            rows = rows.join(texts, on="doc_id", how="left", maintain_order="left")
        target = path / "data" / f"{group.name}.jsonl"
        write_table(rows, target)
        files.append(str(target))
    return files


def _texts(groups: list[Group], documents: Documents, columns: Mapping[str, str]) -> pl.DataFrame:
    """doc_id and text of all listed documents."""
    if documents is None:
        remedy = "Give the documents that were ranked, or write the list alone with --format jsonl."
        raise BadInput("are missing: a mixture in this format holds the texts", where="--documents", remedy=remedy)
    wanted = [doc_id for group in groups for doc_id in group.rows["doc_id"]]
    batches = list(text_batches(documents, only=wanted, columns=columns))
    texts = pl.concat(batches or [pl.DataFrame(schema=_TEXTS)])
    if texts.height < len(wanted):
        lost = sorted(set(wanted) - set(texts["doc_id"]))[0]
        raise BadInput(f"no document {lost!r}", where="--documents", remedy="Give the documents that were ranked.")
    return texts


def check_format(format: str) -> None:
    """Raise BadInput if a format cannot be written here, whatever the list."""
    if format == "streaming":
        _check_mds()


def _check_mds() -> None:
    try:
        import streaming  # noqa: F401
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit its torch
        remedy = "Install mosaicml-streaming, or write another format."
        what = f"MDS shards need mosaicml-streaming ({str(error).splitlines()[0]})"
        raise BadInput(what, where="--format streaming", remedy=remedy) from None


def _write_mds(groups: list[Group], path: Path, texts: pl.DataFrame) -> list[str]:
    """One folder of shards a group."""
    from streaming import MDSWriter

    by_id = dict(texts.iter_rows())
    for group in groups:
        with MDSWriter(out=str(path / group.name), columns={"doc_id": "str", "text": "str"}) as writer:
            for doc_id in group.rows["doc_id"]:
                writer.write({"doc_id": doc_id, "text": by_id[doc_id]})
    return [str(path / group.name) for group in groups]


_WRITERS: dict[str, Callable[..., dict[str, Any]]] = {
    "jsonl": _write_jsonl,
    "megatron": _write_megatron,
    "olmo-core": _write_olmo_core,
    "streaming": _write_streaming,
    "hf": _write_hf,
}
FORMATS = tuple(_WRITERS)
FILES = ("jsonl", "megatron")  # the formats that are one file
