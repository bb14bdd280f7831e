"""The arithmetic of the relevance study: grades of documents become precision, with short lists and missing grades."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from bench_relevance import HEAD, MIDDLE, excerpt, interval, precisions, show
from relevance_rankings import by_chance


def lists(**changed):
    """One list of 50 documents for every method, but for those given."""
    usual = [f"d{k}" for k in range(50)]
    return {name: changed.get(name, usual) for name in ("ours", "random", "bm25", "similarity")}


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


def test_grades_in_a_folder_are_printed_as_a_table(tmp_path, capsys):
    """lists.json and one file of grades a slice; slices without one are named."""
    entry = {"slice_id": "op=deduction", "items": 40, "lists": lists() | {"ours unfiltered": ["d0"]}}
    study = {"slices": {"logic": entry, "code": entry}, "contaminated": {"d0": "bbh/x/1"}}
    (tmp_path / "lists.json").write_text(json.dumps(study))
    rows = [json.dumps({"id": f"d{k}", "grade": 2, "why": "proof"}) for k in range(50)]
    (tmp_path / "logic.jsonl").write_text("\n".join(rows))

    show(tmp_path)

    printed = capsys.readouterr().out
    assert "code: not judged" in printed
    assert "logic: op=deduction, 40 items; 1 contaminated in ours unfiltered" in printed
    assert "means over 1 slices" in printed
    assert "contaminated documents, bm25: 1" in printed
