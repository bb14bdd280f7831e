"""What trainers read: shares as planned, and none of the known traps."""

from __future__ import annotations

import json

import polars as pl
import pytest
import zstandard
from made_rows import documents

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
    """White space splits a prefix; a number is taken for a weight. A source's own name is made into a file name."""
    for source, prefix in (("books", "two words/{source}"), ("0.5", "{source}")):
        with pytest.raises(BadInput, match="cannot be a Megatron-LM prefix"):
            export(upsample(("a", source, 1, 1)), tmp_path / "blend.txt", format="megatron", prefix=prefix)
    export(upsample(("a", "Stack Exchange", 1, 1)), tmp_path / "blend.txt", format="megatron")
    assert (tmp_path / "blend.txt").read_text().split()[1] == "Stack_Exchange"


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


TEXTS = documents({"a": "one", "b": "two", "c": "three"})


def test_hugging_face_reads_the_planned_token_shares(tmp_path):
    """Examples are drawn by shares of examples; tokens come out as planned."""
    datasets = pytest.importorskip("datasets", reason="the consumer `datasets` is not installed")
    listed = upsample(*((f"a{k}", "books", 300, 2) for k in range(200)), *((f"b{k}", "web", 50, 1) for k in range(400)))
    summary = export(listed, tmp_path, format="hf")
    plan = json.loads((tmp_path / "interleave.json").read_text())
    parts = [
        datasets.Dataset.from_json(str(tmp_path / one["data_files"]), cache_dir=str(tmp_path / "cache")).repeat(
            one["repeats"]
        )
        for one in plan["datasets"]
    ]

    mixed = datasets.interleave_datasets(
        [part.select_columns(["source", "tokens"]) for part in parts],
        probabilities=[one["probability"] for one in plan["datasets"]],
        seed=plan["seed"],
        stopping_strategy=plan["stopping_strategy"],
    )

    tokens = {"books": 0, "web": 0}
    for row in mixed:
        tokens[row["source"]] += row["tokens"]
    assert tokens["books"] / sum(tokens.values()) == pytest.approx(summary["shares"]["books-x2"], abs=1e-9)


def test_streaming_reads_each_document_as_often_as_planned(tmp_path):
    """One epoch over the exported streams."""
    streaming = pytest.importorskip("streaming", reason="the consumer `mosaicml-streaming` is not installed")
    export(LISTED, tmp_path, format="streaming", documents=TEXTS)
    plan = json.loads((tmp_path / "streams.json").read_text())["streams"]
    streams = [streaming.Stream(local=str(tmp_path / one["local"]), repeat=one["repeat"]) for one in plan.values()]

    read = [row["doc_id"] for row in streaming.StreamingDataset(streams=streams, batch_size=1, shuffle=False)]

    assert {doc_id: read.count(doc_id) for doc_id in "abc"} == {"a": 3, "b": 2, "c": 1}


def test_olmo_core_ratios_sum_to_one_and_ask_for_no_more_than_there_is(tmp_path):
    """ratio x requested tokens <= population x repetition, for each source."""
    rows = [(f"d{k}", f"source{k % 7}", 100 + 13 * k, 1 + k % 3) for k in range(60)]
    export(upsample(*rows), tmp_path, format="olmo-core")

    lines = [line.strip().split(": ", 1) for line in (tmp_path / "mixture.yaml").read_text().splitlines()]
    requested = int(lines[0][1])
    ratios = [float(line[1]) for line in lines if line[0] == "target_ratio"]
    repeats = [float(line[1]) for line in lines if line[0] == "max_repetition_ratio"]
    names = [json.loads(line[1]) for line in lines if line[0] == "- source_name"]
    assert sum(ratios) == pytest.approx(1.0, abs=1e-12)
    for name, ratio, repeat in zip(names, ratios, repeats, strict=True):
        population = sum(t for _, source, t, r in rows if f"{source}-x{r}" == name)
        assert ratio * requested <= population * repeat * (1 + 1e-6)


def test_chosen_texts_can_be_written_as_shards(tmp_path):
    """With the reasons beside each text; a document that is not there is named."""
    export(LISTED, tmp_path, format="olmo-core", documents=TEXTS)

    rows = [json.loads(line) for line in (tmp_path / "data" / "web-x2.jsonl").read_text().splitlines()]
    assert [(row["doc_id"], row["text"], row["rule_ids"]) for row in rows] == [("b", "two", ["r"])]
    with pytest.raises(BadInput, match="no document 'b'"):
        export(LISTED, tmp_path, format="olmo-core", documents=TEXTS.filter(pl.col("doc_id") != "b"))
