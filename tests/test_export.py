"""What trainers read: shares as planned, and none of the known traps."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import polars as pl
import pytest
import yaml
import zstandard
from click.testing import CliRunner
from command_line import annotator, refused
from made_rows import documents

from annotator.cli.export import command as export_command
from annotator.errors import BadInput
from annotator.export import export
from annotator.tables import UPSAMPLE, write_table


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
    digest = hashlib.sha256((tmp_path / "mix.jsonl").read_bytes()).hexdigest()
    assert manifest["sha256"] == {str(tmp_path / "mix.jsonl"): digest}
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


def texts_of(listed):
    """A text for each document of a list."""
    return documents({doc_id: f"text of {doc_id}" for doc_id in listed["doc_id"]})


def test_hugging_face_reads_the_planned_token_shares(tmp_path):
    """Examples are drawn by shares of examples; tokens come out as planned."""
    datasets = pytest.importorskip("datasets", reason="the consumer `datasets` is not installed")
    listed = upsample(*((f"a{k}", "books", 300, 2) for k in range(200)), *((f"b{k}", "web", 50, 1) for k in range(400)))
    summary = export(listed, tmp_path / "mix", format="hf", documents=texts_of(listed))
    plan = json.loads((tmp_path / "mix" / "interleave.json").read_text())
    parts = [
        datasets.Dataset.from_json(str(tmp_path / "mix" / one["data_files"]), cache_dir=str(tmp_path / "cache")).repeat(
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
    try:
        import streaming
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit its torch
        pytest.skip(f"mosaicml-streaming cannot be used, see scripts/test-exports: {str(error).splitlines()[0]}")
    export(LISTED, tmp_path, format="streaming", documents=TEXTS)
    plan = json.loads((tmp_path / "streams.json").read_text())["streams"]
    streams = [streaming.Stream(local=str(tmp_path / one["local"]), repeat=one["repeat"]) for one in plan.values()]

    read = [row["doc_id"] for row in streaming.StreamingDataset(streams=streams, batch_size=1, shuffle=False)]

    assert {doc_id: read.count(doc_id) for doc_id in "abc"} == {"a": 3, "b": 2, "c": 1}


MIXED = upsample(*((f"d{k}", f"source{k % 7}", 100 + 13 * k, 1 + k % 3) for k in range(600)))


def planned(by):
    """The shares of all tokens read that the list plans, by a key of its rows."""
    sums = {}
    for row in MIXED.iter_rows(named=True):
        sums[by(row)] = sums.get(by(row), 0) + row["tokens"] * row["repeats"]
    return {key: tokens / sum(sums.values()) for key, tokens in sums.items()}


def group(row):
    """The group of a row."""
    return f"{row['source']}-x{row['repeats']}"


def olmo_core_selection(path, populations, *, sequence_length, global_batch_size):
    """Instances a source, by the arithmetic of OLMo-core's `SourceMixtureDatasetConfig.build` for one file a source.

    Ratios must sum to 1 (numpy.allclose); int(requested x ratio) tokens of a source must not exceed int(population x
    fraction x repetition). Requested instances fill whole global batches; each file gets its whole instances, and what
    is left goes to those with room: evenly first, then by largest remainder.
    """
    plan = yaml.safe_load(path.read_text())
    assert np.allclose(sum(source["target_ratio"] for source in plan["sources"]), 1.0)
    wanted, room = {}, {}
    for source in plan["sources"]:
        name, population = source["source_name"], populations[source["source_name"]]
        wanted[name] = int(plan["requested_tokens"] * source["target_ratio"])
        most = int(population * source["max_source_fraction"] * source["max_repetition_ratio"])
        assert most >= wanted[name], f"insufficient tokens for {name}"
        room[name] = most // sequence_length
    instances = {name: min(tokens // sequence_length, room[name]) for name, tokens in wanted.items()}
    batches = math.ceil(plan["requested_tokens"] / global_batch_size)
    missing = batches * (global_batch_size // sequence_length) - sum(instances.values())
    open_to_more = [name for name in instances if instances[name] < room[name]]
    for name in open_to_more:
        instances[name] = min(room[name], instances[name] + missing // len(open_to_more))
    missing = batches * (global_batch_size // sequence_length) - sum(instances.values())
    by_remainder = sorted(open_to_more, key=lambda name: -(wanted[name] % sequence_length))
    for name in [name for name in by_remainder if instances[name] < room[name]][: max(missing, 0)]:
        instances[name] += 1
    return instances


def test_olmo_core_selects_the_planned_token_shares(tmp_path):
    """By its own arithmetic, within 1 %, and it asks for no more than there is."""
    export(MIXED, tmp_path, format="olmo-core", documents=texts_of(MIXED))
    populations = {}
    for row in MIXED.iter_rows(named=True):
        populations[group(row)] = populations.get(group(row), 0) + row["tokens"]

    chosen = olmo_core_selection(tmp_path / "mixture.yaml", populations, sequence_length=16, global_batch_size=256)

    shares = planned(group)
    assert set(chosen) == set(shares)
    for name, instances in chosen.items():
        assert instances / sum(chosen.values()) == pytest.approx(shares[name], rel=0.01)


def megatron_blend(words):
    """(prefix, weight) as Megatron-LM's `get_blend_from_list` reads words: pairs, or bare prefixes if that fails."""
    if len(words) % 2:
        return [(word, None) for word in words]
    weights = []
    for word in words[::2]:
        try:
            weights.append(float(word))
        except ValueError:
            return [(word, None) for word in words]
    return [(name, weight / sum(weights)) for name, weight in zip(words[1::2], weights, strict=True)]


def megatron_order(weights, samples):
    """How often each data set is drawn, by the rule of `build_blending_indices`: always the one furthest behind."""
    drawn = [0] * len(weights)
    for k in range(samples):
        behind = [weight * max(k, 1) - count for weight, count in zip(weights, drawn, strict=True)]
        drawn[behind.index(max(behind))] += 1
    return drawn


@pytest.mark.parametrize(
    ("prefix", "by"),
    [("data/{source}_text_document", lambda row: row["source"]), ("data/{group}_text_document", group)],
    ids=["source", "group"],
)
def test_megatron_draws_the_planned_token_shares(tmp_path, prefix, by):
    """Its samples are all of one length, so shares of samples are shares of tokens."""
    export(MIXED, tmp_path / "blend.txt", format="megatron", prefix=prefix)

    blend = megatron_blend((tmp_path / "blend.txt").read_text().split())

    drawn = megatron_order([weight for _, weight in blend], 20_000)
    for (name, _), count in zip(blend, drawn, strict=True):
        key = name.removeprefix("data/").removesuffix("_text_document")
        assert count / 20_000 == pytest.approx(planned(by)[key], rel=0.01)


def test_jsonl_and_parquet_say_the_same_and_weights_are_the_planned_shares(tmp_path):
    """Read with polars, the consumer of both."""
    export(MIXED, tmp_path / "mix.jsonl.zst", format="jsonl")
    export(MIXED, tmp_path / "mix.parquet", format="jsonl")

    lines = pl.read_ndjson(zstandard.ZstdDecompressor().stream_reader((tmp_path / "mix.jsonl.zst").read_bytes()).read())
    table = pl.read_parquet(tmp_path / "mix.parquet")
    columns = ["doc_id", "repeats", "weight", "slice_ids", "rule_ids"]
    assert lines.select(columns).equals(table.select(columns))
    by_source = dict(table.group_by("source").agg(pl.col("weight").sum()).iter_rows())
    assert by_source == pytest.approx(planned(lambda row: row["source"]), rel=1e-9)


def test_nothing_is_written_where_a_text_is_missing(tmp_path):
    """A mixture without one of its documents would be another mixture."""
    for form in ("olmo-core", "hf", "streaming"):
        with pytest.raises(BadInput, match="no document 'b'"):
            export(LISTED, tmp_path / form, format=form, documents=TEXTS.filter(pl.col("doc_id") != "b"))
        assert not (tmp_path / form).exists()


def test_the_command_overwrites_none_of_its_inputs(tmp_path):
    """Neither the list, nor documents that lie in the folder to write."""
    write_table(LISTED, tmp_path / "up.parquet")
    (tmp_path / "mixture" / "data").mkdir(parents=True)
    TEXTS.write_ndjson(tmp_path / "mixture" / "data" / "books-x3.jsonl")

    def refused(*options):
        done = CliRunner().invoke(export_command, [str(tmp_path / "up.parquet"), *map(str, options)])
        return isinstance(done.exception, BadInput) and str(done.exception)

    assert "is one of the inputs" in refused("--format", "jsonl", "-o", tmp_path / "up.parquet")
    inside = ("--documents", tmp_path / "mixture" / "data" / "books-x3.jsonl")
    assert "lies in the folder to write" in refused("--format", "hf", "-o", tmp_path / "mixture", *inside)
    write_table(LISTED, tmp_path / "mixture" / "data" / "web-x1.jsonl")
    (tmp_path / "up.parquet").unlink()
    (tmp_path / "up.parquet").symlink_to(tmp_path / "mixture" / "data" / "web-x1.jsonl")
    assert "lies in the folder to write" in refused("--format", "hf", "-o", tmp_path / "mixture")


def test_chosen_texts_can_be_written_as_shards(tmp_path):
    """With the reasons beside each text; a document that is not there is named."""
    export(LISTED, tmp_path, format="olmo-core", documents=TEXTS)

    rows = [json.loads(line) for line in (tmp_path / "data" / "web-x2.jsonl").read_text().splitlines()]
    assert [(row["doc_id"], row["text"], row["rule_ids"]) for row in rows] == [("b", "two", ["r"])]
    with pytest.raises(BadInput, match="no document 'b'"):
        export(LISTED, tmp_path, format="olmo-core", documents=TEXTS.filter(pl.col("doc_id") != "b"))


def exporting(folder, form, *more):
    """The real command on the list and the texts in a folder."""
    if not (folder / "up.parquet").exists():
        write_table(LISTED, folder / "up.parquet")
        TEXTS.rename({"doc_id": "page", "text": "body"}).write_ndjson(folder / "corpus.jsonl")
    given = ("--documents", "corpus.jsonl", "--column", "doc_id=page", "--column", "text=body")
    return annotator("export", "up.parquet", "--format", form, *given, *more, cwd=folder)


def contents(folder):
    """The files of a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_mixture_is_written_to_a_folder_of_its_own(tmp_path):
    """A folder with other files in it is left as it is; so is a file."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "notes.txt").write_text("mine")

    refused(exporting(tmp_path, "hf", "-o", "home"), "home: is neither empty nor an export of ours: notes.txt")
    refused(exporting(tmp_path, "hf", "-o", "home/notes.txt"), "home/notes.txt: is a file")
    refused(exporting(tmp_path, "hf", "-o", "."), ".: cannot be replaced. Name")

    assert contents(tmp_path) == ["corpus.jsonl", "home/notes.txt", "up.parquet"]


def test_an_earlier_mixture_is_replaced_whole(tmp_path):
    """By its manifest: groups that are gone leave no file, an added file stops it, and a failed export changes none."""
    assert exporting(tmp_path, "hf", "-o", "mix").returncode == 0
    first = ["data/books-x3.jsonl", "data/web-x1.jsonl", "data/web-x2.jsonl", "interleave.json"]
    assert contents(tmp_path / "mix") == first
    write_table(LISTED.head(2), tmp_path / "up.parquet")
    TEXTS.tail(2).rename({"doc_id": "page", "text": "body"}).write_ndjson(tmp_path / "corpus.jsonl")
    refused(exporting(tmp_path, "olmo-core", "-o", "mix"), "no document 'a'")
    assert contents(tmp_path / "mix") == first
    assert (tmp_path / "mix.manifest.json").exists()

    TEXTS.rename({"doc_id": "page", "text": "body"}).write_ndjson(tmp_path / "corpus.jsonl")
    done = exporting(tmp_path, "olmo-core", "-o", "mix", "--json")

    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "mix") == ["data/books-x3.jsonl", "data/web-x2.jsonl", "mixture.yaml"]
    manifest = json.loads((tmp_path / "mix.manifest.json").read_text())
    assert sorted(manifest["sha256"]) == [f"mix/{name}" for name in contents(tmp_path / "mix")]
    assert json.loads((tmp_path / "mix" / "data" / "web-x2.jsonl").read_text())["text"] == "two"
    (tmp_path / "mix" / "data" / "web-x2.npy").write_bytes(b"tokens")
    refused(exporting(tmp_path, "hf", "-o", str(tmp_path / "mix")), "holds files that no export wrote: data/web-x2.npy")


@pytest.mark.parametrize("form", ["olmo-core", "streaming", "hf"])
def test_a_mixture_without_its_texts_is_refused(tmp_path, form):
    """A trainer reads texts: a mixture of ids alone would train on nothing."""
    write_table(LISTED, tmp_path / "up.parquet")

    done = annotator("export", "up.parquet", "--format", form, "-o", "mix", cwd=tmp_path)

    refused(done, "--documents: are missing", "--format jsonl")
    assert contents(tmp_path) == ["up.parquet"]
