"""Planted quotations: failing items go into real documents, and lists that bring these up are counted."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import relevance_planted
from bench_relevance import labelled, slice_row
from relevance_planted import (
    FILTERED,
    UNPLANTED,
    Plant,
    carriers_of,
    choose,
    count_planted,
    described,
    inserted,
    planted_corpus,
    quotation,
    show,
    table_of,
)
from relevance_rankings import Corpus

from annotator.mapping import load_rules
from annotator.readers import document_frame, read_items
from annotator.taxonomy import load_taxonomy

LESSON = (
    "To find the greatest common divisor of {a} and {b}, divide and keep the remainder: {a} mod {b} is what is left, "
    "and the number divides both if every remainder vanishes. So {a} is divisible by {c} if the sum works.\n\n"
)
RECIPE = "Peel {a} onions, fry them in butter for {b} minutes, add {c} spoons of flour and let the sauce simmer.\n\n"
QUESTIONS = (
    "What is the smallest positive multiple of thirteen that leaves remainder four when divided by seventeen?",
    "How many integers between one and four hundred are divisible by six but by neither eight nor nine?",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Eight lessons on divisors and eight recipes of over 300 words, two short notes, and two items."""
    folder = tmp_path_factory.mktemp("made")
    rows = [
        {
            "doc_id": f"{kind}{k}",
            "source": kind,
            "lang": "en",
            "tokens": 500,
            "text": "".join(form.format(a=12 + k + 7 * n, b=4 + n, c=2 + k) for n in range(times)),
        }
        for kind, form, times in (("lesson", LESSON, 12), ("recipe", RECIPE, 25))
        for k in range(8)
    ] + [{"doc_id": f"note{k}", "source": "note", "lang": "en", "tokens": 3, "text": "Back soon."} for k in range(2)]
    (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    items = [
        {"id": f"made/{k}", "question": text, "answer": "52", "benchmark": "made"} for k, text in enumerate(QUESTIONS)
    ]
    (folder / "items.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    taxonomy = load_taxonomy()
    known = document_frame([folder / "corpus.jsonl"]).select("doc_id", "source", "lang", "tokens")
    return Corpus(
        documents=known.join(pl.DataFrame(rows).select("doc_id", "text"), on="doc_id").sort("doc_id"),
        labels=labelled("document", folder / "corpus.jsonl", folder, taxonomy),
        items=read_items([folder / "items.jsonl"]),
        item_labels=labelled("item", folder / "items.jsonl", folder, taxonomy),
        rules=load_rules(None, taxonomy=taxonomy),
        taxonomy=taxonomy,
    )


def told(corpus):
    """The corpus with labels that need no judge: lessons are about divisibility, and nothing else is."""
    lesson = pl.col("record_id").str.starts_with("lesson")
    operation = pl.when(lesson).then(pl.lit("divisibility_modular")).otherwise(pl.lit("recall"))
    labels = corpus.labels.with_columns(
        solving_operation=pl.concat_list(operation),
        exercise=pl.lit("central"),
        quality=pl.lit(4, pl.Int64),
    )
    return replace(corpus, labels=labels)


def test_a_paragraph_goes_between_others_and_changes_none():
    """Wherever the seed puts it, the others stay as they are; it does not break a text that is one paragraph."""
    texts = {inserted("one\n\n  two\n \nthree", "QUOTED", f"seed {k}") for k in range(40)}

    assert texts == {
        "QUOTED\n\none\n\n  two\n \nthree",
        "one\n\nQUOTED\n\n  two\n \nthree",
        "one\n\n  two\n \n\nQUOTED\n\nthree",
        "one\n\n  two\n \nthree\n\nQUOTED",
    }
    assert inserted("one line", "QUOTED", "seed") in ("QUOTED\n\none line", "one line\n\nQUOTED")


def test_half_of_the_quotations_have_options_and_answer():
    """The rest are the bare question; an item without options or answer has none to give."""
    item = {"prompt": "Which is even?", "choices": ["3", "4"], "target": "B"}

    assert quotation(item, answered=False) == "Which is even?"
    assert quotation(item, answered=True) == "Which is even?\nA. 3\nB. 4\nAnswer: B"
    assert quotation({"prompt": "Write a poem.", "choices": None, "target": None}, answered=True) == "Write a poem."


def test_each_plant_has_a_carrier_of_its_own():
    """Two slices that share items share no carrier, whatever order the carriers come in; too few are refused."""
    queries = {"logic": [f"i{k}" for k in range(9)], "code": ["i1", "i2"]}
    carriers = [f"d{k}" for k in range(20)]

    plants = choose(queries, carriers, count=4)

    assert [plant.slice_name for plant in plants] == ["logic"] * 4 + ["code"] * 2
    assert [plant.answered for plant in plants] == [True, False, True, False, True, False]
    assert len({plant.carrier for plant in plants}) == 6
    assert choose(queries, carriers[::-1], count=4) == plants
    with pytest.raises(ValueError, match="6 quotations need as many carriers, and there are 5"):
        choose(queries, carriers[:5], count=4)


def test_carriers_are_long_documents_that_quote_nothing(made):
    """The two notes are too short, and lesson0 is said to quote an item already."""
    assert carriers_of(made.documents, {"lesson0": "made/0"}) == [
        *(f"lesson{k}" for k in range(1, 8)),
        *(f"recipe{k}" for k in range(8)),
    ]


def test_planted_documents_take_the_place_of_their_carriers(made):
    """As many documents and labels as before, in order of id; the rest are untouched."""
    planted = planted_corpus(made, [Plant("divisors", "made/0", "recipe3", answered=True)])

    ids = planted.documents["doc_id"].to_list()
    text = dict(planted.documents.select("doc_id", "text").iter_rows())["recipe3+planted"]
    assert ids == sorted(ids)
    assert set(ids) == set(made.documents["doc_id"]) - {"recipe3"} | {"recipe3+planted"}
    assert planted.labels["record_id"].to_list() == ids
    assert text.count(f"{QUESTIONS[0]}\nAnswer: 52") == 1
    rest = pl.col("doc_id").ne("recipe3+planted")
    assert planted.documents.filter(rest).equals(made.documents.filter(pl.col("doc_id") != "recipe3"))


def test_labels_by_another_judge_are_refused(made):
    """Planted documents labelled by one judge among documents labelled by another would stand apart for that alone."""
    other = replace(made, labels=made.labels.with_columns(pl.col("confidence") / 2))

    with pytest.raises(ValueError, match=r"document_labels\.parquet is not by embedded:accurate"):
        planted_corpus(other, [Plant("divisors", "made/0", "recipe3", answered=True)])


def test_planted_documents_are_counted_in_all_lists_and_decontamination_leaves_none(made, monkeypatch, capsys):
    """Of a lesson and a recipe with a quotation each, ours lists the lesson, and neither with the filter on."""
    monkeypatch.setattr(relevance_planted, "METHODS", ("ours", "all"))
    plants = [
        Plant("divisors", "made/0", "lesson3", answered=True),
        Plant("recipes", "made/1", "recipe3", answered=False),
    ]
    planted = told(planted_corpus(made, plants))
    rows = {
        name: slice_row(slice_id, ["made/0", "made/1"])
        for name, slice_id in (("divisors", "op=divisibility_modular"), ("recipes", "op=causal_reasoning"))
    }
    everything = SimpleNamespace(ranked=lambda queries, seed: {"all": planted.doc_ids.tolist()})

    queries = {name: ["made/0", "made/1"] for name in rows}
    slices = count_planted(rows, queries, told(made), planted, plants, everything)
    study = {"documents": made.documents.height, "slices": slices, "plants": described(told(made), planted, plants)}

    at_50 = (
        table_of(study)
        .filter(pl.col("depth") == 50, pl.col("slice") == "divisors")
        .rows_by_key("method", named=True, unique=True)
    )
    assert [at_50["all"][count] for count in ("listed", "planted", "own", "even")] == [18, 2, 1, 1]
    assert [at_50["ours"][count] for count in ("listed", "planted", "own", "even")] == [8, 1, 1, 1]
    assert at_50[UNPLANTED]["planted"] == 1
    assert [at_50[FILTERED][count] for count in ("listed", "planted")] == [7, 0]
    assert study["slices"]["divisors"]["lists"]["ours"]["50"]["ranks"].keys() == {"lesson3+planted"}
    assert [plant["flagged"] for plant in study["plants"].values()] == [True, True]

    show(study)

    printed = capsys.readouterr().out
    assert "2 planted in 18 documents" in printed
    assert "lesson3+planted, quotes an item of divisors; divisibility_modular -> divisibility_modular" in printed
    assert "not flagged by decontaminate: 0" in printed
