"""What trainers read: shares as planned, and none of the known traps."""

from __future__ import annotations

import json

import polars as pl
import pytest
import zstandard

from annotator.errors import BadInput
from annotator.export import export
from annotator.tables import UPSAMPLE


def upsample(*rows):
    """UPSAMPLE of (doc_id, source, tokens, repeats)."""
    cells = [
        (k + 1, doc_id, None, None, source, "op=recall&bg=other&task=explain", ["s"], ["r"], 0.5, tokens, repeats)
        for k, (doc_id, source, tokens, repeats) in enumerate(rows)
    ]
    return pl.DataFrame(cells, schema=UPSAMPLE, orient="row")


LISTED = upsample(("a", "books", 100, 3), ("b", "web", 50, 2), ("c", "web", 100, 1))


def test_jsonl_holds_weight_repeats_and_reasons(tmp_path):
    """Weights are shares of the tokens read."""
    summary = export(LISTED, tmp_path / "mix.jsonl.zst", format="jsonl")

    raw = zstandard.ZstdDecompressor().decompressobj().decompress((tmp_path / "mix.jsonl.zst").read_bytes())
    rows = [json.loads(line) for line in raw.splitlines()]
    assert [(row["doc_id"], row["repeats"], row["weight"]) for row in rows] == [
        ("a", 3, 0.6),
        ("b", 2, 0.2),
        ("c", 1, 0.2),
    ]
    assert rows[0]["slice_ids"] == ["s"]
    assert rows[0]["rule_ids"] == ["r"]
    assert summary["tokens"] == 500


def test_megatron_gets_pairs_of_weight_and_prefix(tmp_path):
    """An even number of words, weights first, all above 0."""
    export(LISTED, tmp_path / "blend.txt", format="megatron", prefix="data/{source}_text_document")

    words = (tmp_path / "blend.txt").read_text().split()
    assert words[1::2] == ["data/books_text_document", "data/web_text_document"]
    assert [float(word) for word in words[::2]] == [0.6, 0.4]


def test_megatron_refuses_prefixes_that_it_would_misread(tmp_path):
    """White space splits a prefix; a number is taken for a weight."""
    for source in ("two words", "0.5"):
        with pytest.raises(BadInput, match="cannot be a Megatron-LM prefix"):
            export(upsample(("a", source, 1, 1)), tmp_path / "blend.txt", format="megatron")


def test_the_manifest_traces_the_mixture_to_what_made_it(tmp_path):
    """Fingerprints of the list and of all that it came from."""
    summary = export(LISTED, tmp_path / "mix.jsonl", format="jsonl", made_from={"rules": "abc", "items": "def"})

    manifest = json.loads((tmp_path / "mix.jsonl.manifest.json").read_text())
    assert summary["manifest"] == str(tmp_path / "mix.jsonl.manifest.json")
    assert manifest["made_from"] == {"rules": "abc", "items": "def"}
    assert len(manifest["upsample_fingerprint"]) == 64
    export(LISTED.reverse(), tmp_path / "other.jsonl", format="jsonl")
    other = json.loads((tmp_path / "other.jsonl.manifest.json").read_text())
    assert other["upsample_fingerprint"] == manifest["upsample_fingerprint"]


def test_an_unknown_format_and_an_empty_list_are_refused(tmp_path):
    """With the nearest format that exists."""
    with pytest.raises(BadInput, match="Did you mean 'megatron'"):
        export(LISTED, tmp_path / "x", format="megatrn")
    with pytest.raises(BadInput, match="nothing to export"):
        export(upsample(), tmp_path / "x.jsonl", format="jsonl")
