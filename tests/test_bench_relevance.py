"""The arithmetic of the relevance study: grades of documents become precision, with short lists and missing grades."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from bench_relevance import DEPTHS, HEAD, METHODS, MIDDLE, excerpt, interval, precisions, quotations, show
from relevance_nearest import Nearest, NearestMiniLM, passages
from relevance_rankings import by_chance


def lists(**changed):
    """One list of 50 documents for every method, but for those given."""
    usual = [f"d{k}" for k in range(50)]
    return {name: changed.get(name, usual) for name in METHODS}


def test_precision_counts_clear_and_partial_grades_and_sets_contaminated_ones_apart():
    """20 of 50 clear, 5 partial, 3 of the clear ones quote an item."""
    grades = {f"d{k}": 2 for k in range(20)} | {f"d{k}": 1 for k in range(20, 25)} | {f"d{k}": 0 for k in range(25, 50)}

    row = precisions(lists(), grades, ["d0", "d1", "d2", "elsewhere"]).row(0, named=True)

    assert row["clearly"] == pytest.approx(0.40)
    assert row["partly"] == pytest.approx(0.50)
    assert row["clean"] == pytest.approx(0.34)
    assert row["contaminated"] == 3
    assert row["ungraded"] == 0


def test_what_a_short_list_lacks_counts_as_a_miss():
    """Four documents, all clear, are a precision at 50 of 0.08, and their list is seen to be short."""
    table = precisions(lists(ours=["d0", "d1", "d2", "d3"]), {f"d{k}": 2 for k in range(50)}, [])

    row = table.row(0, named=True)

    assert (row["listed"], row["clearly"]) == (4, pytest.approx(0.08))


def test_a_document_without_a_grade_is_a_miss_that_is_counted():
    """Nobody graded d49."""
    row = precisions(lists(), {f"d{k}": 2 for k in range(49)}, []).row(1, named=True)

    assert (row["ungraded"], row["clearly"]) == (1, pytest.approx(0.98))


def test_slices_that_agree_leave_no_doubt():
    """The bootstrap over equal values has no width."""
    assert interval(np.full(12, 0.25)) == (0.25, 0.25)


def test_an_excerpt_is_the_head_and_a_window_from_the_middle():
    """Short texts stay whole."""
    text = "a" * HEAD + "b" * 5000 + "c" * 5000

    shown = excerpt(text)

    assert excerpt("short") == "short"
    assert shown.startswith("a" * HEAD + "\n[...]\nb")
    assert len(shown) == HEAD + MIDDLE + len("\n[...]\n")


def test_chance_depends_on_ids_and_seed_only():
    """The order in which documents are read does not matter."""
    assert by_chance(["a", "b", "c", "d"], "seed") == by_chance(["d", "c", "b", "a"], "seed")


def study(**changed):
    """lists.json of two slices, each list quoting an item once in d0."""
    cut = quotations({depth: [f"d{k}" for k in range(depth)] for depth in DEPTHS}, {"d0": "bbh/x/1"})
    entry = {
        "slice_id": "op=deduction",
        "items": 40,
        "lists": lists(**changed),
        "unfiltered": dict.fromkeys(METHODS, cut),
    }
    return {"slices": {"logic": entry, "code": entry}, "contaminated": {"d0": "bbh/x/1"}, "quoted_whole": []}


def test_grades_in_a_folder_are_printed_as_a_table(tmp_path, capsys):
    """lists.json and one file of grades a slice; slices without one are named; quotations are counted of all slices."""
    (tmp_path / "lists.json").write_text(json.dumps(study()))
    rows = [json.dumps({"id": f"d{k}", "grade": 2, "why": "proof"}) for k in range(50)]
    (tmp_path / "logic.jsonl").write_text("\n".join(rows))

    show(tmp_path)

    printed = capsys.readouterr().out
    assert "code: not judged" in printed
    assert "logic: op=deduction, 40 items" in printed
    assert "means over 1 slices" in printed
    assert "50:   2,  0 /  100   200:   2,  0 /  400" in printed


def test_a_list_that_is_not_graded_yet_has_no_mean(tmp_path, capsys):
    """Missing grades are said instead of being counted as misses in a mean."""
    (tmp_path / "lists.json").write_text(json.dumps(study(**{"nearest passage": ["d0", "new"]})))
    rows = [json.dumps({"id": f"d{k}", "grade": 2}) for k in range(50)]
    (tmp_path / "logic.jsonl").write_text("\n".join(rows))

    show(tmp_path)

    printed = capsys.readouterr().out
    assert "clearly  nearest passage  1 documents are not graded" in printed
    assert "clearly  nearest document 1.00" in printed


def test_passages_are_runs_of_about_120_words_that_lose_none():
    """301 words are three passages of 100 or 101; a short text is one, and so is an empty one."""
    words = [f"w{k}" for k in range(301)]

    cut = passages(" ".join(words))

    assert [len(passage.split()) for passage in cut] == [100, 100, 101]
    assert " ".join(cut).split() == words
    assert passages("few words") == ["few words"]
    assert passages("") == [""]


class ByLetter:
    """Embeds a text as the unit vector of its counts of a, b and c."""

    def __call__(self, texts):
        counts = np.array([[text.count(letter) for letter in "abc"] for text in texts], dtype=float)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


def test_a_document_counts_by_the_passage_that_is_nearest_to_any_query():
    """One passage of b among passages of a is enough; ties go by id, and nothing depends on the other passages."""
    long = " ".join(["a"] * 240 + ["b"] * 120)
    corpus = SimpleNamespace(
        doc_ids=np.array(["d1", "d2", "d3"]), documents=pl.DataFrame({"text": ["a b", long, "c c b"]})
    )
    nearest = Nearest(corpus, ByLetter())

    assert nearest.ranked(["b"], 3) == ["d2", "d1", "d3"]
    assert nearest.ranked(["b", "c"], 2) == ["d2", "d3"]
    assert nearest.nearest_passage(["b"], {"d2"}) == {"d2": " ".join(["b"] * 120)}


def test_minilm_ranks_the_candidates_by_meaning(tmp_path):
    """A passage that tells the query in other words comes before one about something else, by kept vectors as well."""
    pytest.importorskip("onnxruntime", reason="needs the extra `accurate`")
    texts = ["A baker sells loaves of bread in his shop.", "Two trains travel towards each other at constant speed."]
    corpus = SimpleNamespace(doc_ids=np.array(["d1", "d2"]), documents=pl.DataFrame({"text": texts}))

    def ranked():
        minilm = NearestMiniLM(Nearest(corpus, ByLetter()), tmp_path)
        return minilm.ranked(["How fast do the trains move?"], {"d1", "d2"}, 2)

    assert ranked() == ["d2", "d1"]
    assert pl.read_parquet(tmp_path / "minilm.parquet").height == 3
    assert ranked() == ["d2", "d1"]
