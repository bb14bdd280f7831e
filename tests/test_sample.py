"""Sampling: which records an LLM should label next, the same whatever the order of rows and shards."""

from __future__ import annotations

import json
import random
from collections import Counter

import orjson
import polars as pl
import pytest
from click.testing import CliRunner

from annotator.cli import application
from annotator.errors import BadInput
from annotator.judges.columns import open_student
from annotator.judges.student import Student, embedded_path
from annotator.sample import sample
from annotator.taxonomy import load_taxonomy

TOPICS = (
    "Theorem {n}. Every prime above 2 is odd. Proof. Suppose that p is even; then 2 divides p.",
    "Mix {n} eggs with flour.\n1. Stir.\n2. Bake in the oven until golden brown.",
    "def total(values):\n    result = {n}\n    for value in values:\n        result += value\n    return result\n",
    "zyx {n} wvu tsr qpo",
)
STUDENT = open_student("embedded", kind="document", taxonomy=load_taxonomy())


def documents(count=60):
    """Four topics; a tenth of the documents come from a small source."""
    return [
        {
            "doc_id": f"d{n:03}",
            "text": TOPICS[n % 4].format(n=n) * (4 if n % 3 else 1),
            "source": "rare" if n % 10 == 0 else "common",
            "url": f"https://host{n % 2}.example/{n}",
        }
        for n in range(count)
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chosen(path, **options):
    options = {"kind": "document", "count": 12, "strategy": "stratified", "judge": STUDENT} | options
    return sample(path if isinstance(path, list) else [path], **options)


@pytest.mark.parametrize("strategy", ["uncertainty", "diverse", "stratified"])
def test_row_order_and_shard_split_change_nothing(tmp_path, strategy):
    """One shard in order, three shards shuffled: the same table, row by row."""
    rows = documents()
    whole = chosen(write(tmp_path / "whole.jsonl", rows), strategy=strategy)
    random.Random(3).shuffle(rows)
    shards = [write(tmp_path / f"part{k}.jsonl", rows[k::3]) for k in range(3)]

    assert whole.records.height == 12
    assert chosen(shards, strategy=strategy).records.equals(whole.records, null_equal=True)


def test_uncertainty_takes_half_of_those_that_the_student_is_least_sure_of(tmp_path):
    """Twelve of the 24 with the lowest confidence, spread; each with its confidence."""
    rows = documents()
    labels = Student.load(embedded_path()).predict([row["text"] for row in rows], "document")
    found = chosen(write(tmp_path / "d.jsonl", rows), strategy="uncertainty").records

    confidence = dict(zip((row["doc_id"] for row in rows), labels["confidence"], strict=True))
    assert found["confidence"].to_list() == [confidence[name] for name in found["doc_id"]]
    assert found["confidence"].max() <= sorted(confidence.values())[23]


def test_stratified_gives_every_stratum_its_turn(tmp_path):
    """A source with a tenth of the documents gets half of the sample, and strata are named."""
    path = write(tmp_path / "d.jsonl", documents(200))
    by_source = chosen(path, by=["source"]).records
    by_both = chosen(path, by=["host", "length"], count=40).records

    assert Counter(by_source["source"]) == {"rare": 6, "common": 6}
    assert by_source["stratum"].unique().sort().to_list() == ["source=common", "source=rare"]
    assert len(set(Counter(by_both["stratum"]).values())) <= 2
    assert by_both["stratum"][0].startswith("host=host")


def test_diverse_covers_what_is_rare(tmp_path):
    """Ninety-six recipes and four other texts: all five kinds are among the first ten."""
    rows = [{"doc_id": f"r{n:03}", "text": TOPICS[1].format(n=n), "source": "s"} for n in range(96)]
    rows += [
        {"doc_id": "proof", "text": TOPICS[0].format(n=1), "source": "s"},
        {"doc_id": "code", "text": TOPICS[2].format(n=1), "source": "s"},
        {"doc_id": "war", "text": "The army crossed the river at dawn, and the old king was taken.", "source": "s"},
        {"doc_id": "law", "text": "The licensee shall indemnify the licensor against all claims.", "source": "s"},
    ]
    found = chosen(write(tmp_path / "d.jsonl", rows), strategy="diverse", count=10).records

    assert {"proof", "code", "war", "law"} <= set(found["doc_id"])


def test_labelled_records_and_repeated_texts_are_not_chosen(tmp_path):
    """Each text is worth one label, and no label is bought twice."""
    rows = documents(20)
    rows += [row | {"doc_id": f"again-{row['doc_id']}"} for row in rows[:5]]
    path = write(tmp_path / "d.jsonl", rows)
    found = chosen(path, labelled=["d000", "again-d000", "d007"], count=99)

    ids = set(found.records["doc_id"])
    assert (found.read, found.labelled, found.repeated, found.candidates) == (25, 3, 4, 18)
    assert found.records.height == 18
    assert not {"d000", "again-d000", "d007"} & ids
    assert len({f"d{n:03}" for n in range(1, 5)} & {name.removeprefix("again-") for name in ids}) == 4
    with pytest.raises(BadInput, match="no record is left"):
        chosen(path, labelled=[row["doc_id"] for row in rows])


def test_items_keep_what_makes_their_text(tmp_path):
    """Prompt, options and answer go with the item, so `label` reads the same text again."""
    rows = [{"id": f"quiz/{n}", "prompt": f"What is {n}?", "choices": ["a", "b"], "answer": "A"} for n in range(9)]
    found = chosen(write(tmp_path / "i.jsonl", rows), kind="item", by=["source"], count=4).records

    assert found.columns[0] == "item_id"
    assert found["stratum"].unique().to_list() == ["source=quiz"]
    row = found.row(0, named=True)
    assert (row["choices"], row["target"]) == (["a", "b"], "A")


def test_what_cannot_be_sampled_is_named(tmp_path):
    """One line each."""
    path = write(tmp_path / "d.jsonl", documents(4))
    for options, message in (
        ({"strategy": "uncertain"}, "Did you mean 'uncertainty'"),
        ({"strategy": "uncertainty", "judge": None}, "needs a student"),
        ({"by": ["hosts"]}, "Did you mean 'host'"),
        ({"by": []}, "nothing to stratify by"),
    ):
        with pytest.raises(BadInput, match=message):
            chosen(path, **options)


def test_the_sample_is_labelled_at_once_and_not_sampled_again(tmp_path):
    """sample -> label -> sample --labelled: the second sample has none of the first."""
    path = str(write(tmp_path / "d.jsonl", documents(30)))

    def run(*arguments):
        result = CliRunner().invoke(application, [*map(str, arguments), "--json"], standalone_mode=False)
        assert result.exception is None, result.exception
        return orjson.loads(result.stdout)

    kind = ["--kind", "document"]
    first = run("sample", path, *kind, "-n", 10, "--strategy", "uncertainty", "-o", tmp_path / "first.parquet")
    run("label", tmp_path / "first.parquet", *kind, "-o", tmp_path / "labels.parquet")
    second = run("sample", path, *kind, "-n", 30, "--labelled", tmp_path / "labels.parquet", "-o", tmp_path / "s.jsonl")
    refused = CliRunner().invoke(application, ["sample", path, *kind, "-o", path])
    unsure = ["--strategy", "uncertainty", "--judge", "openai:x", "-o", str(tmp_path / "x.jsonl")]
    asked = CliRunner().invoke(application, ["sample", path, *kind, *unsure])

    assert first["sampled"] == 10
    assert (second["sampled"], second["labelled"]) == (20, 10)
    ids = [
        set(pl.read_parquet(tmp_path / "first.parquet")["doc_id"]),
        set(pl.read_ndjson(tmp_path / "s.jsonl")["doc_id"]),
    ]
    assert not ids[0] & ids[1]
    assert "is one of the inputs" in str(refused.exception)
    assert "no probabilities" in str(asked.exception)
