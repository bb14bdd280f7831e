"""Long records: cut to an excerpt, or asked about in chunks whose labels are merged."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.batch import from_file, to_file
from annotator.errors import BadInput
from annotator.excerpt import consecutive, excerpt, token_estimate
from annotator.judges import Unanswered, open_judge
from annotator.judges.scripted import ScriptedJudge
from annotator.label import estimate, label
from annotator.labelling.chunking import merge_chunks
from annotator.prompts import load_prompt
from annotator.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
LONG = "\n\n".join(f"Paragraph {k} says something of its own, and that at some length." for k in range(120))
BACKGROUNDS = TAXONOMY.values("background_condition", "document")
TASKS = TAXONOMY.values("task_type", "document")
OPERATIONS = list(TAXONOMY.values("solving_operation", "document")[:5])
EXERCISE = TAXONOMY.grade_values("exercise")
LABEL = {
    "evidence": "",
    "background_condition": BACKGROUNDS[0],
    "task_type": TASKS[0],
    "solving_operation": OPERATIONS[:2],
    "output_constraint": TAXONOMY.values("output_constraint", "document")[0],
    "exercise": EXERCISE[0],
    "quality": 3,
}


def write_documents(path: Path, *texts: str) -> Path:
    path.write_text("".join(json.dumps({"doc_id": f"d{k}", "text": text}) + "\n" for k, text in enumerate(texts)))
    return path


def test_an_excerpt_is_cut_at_paragraphs_and_depends_on_the_text_alone():
    """Head, middle and tail; the same every time; another text has its middle elsewhere."""
    cut, was_cut = excerpt(LONG, 300)
    assert was_cut
    assert excerpt(LONG, 300) == (cut, True)
    assert token_estimate(cut) <= 300
    parts = cut.split("\n\n[...]\n\n")
    assert len(parts) == 3
    assert parts[0].startswith("Paragraph 0 ")
    assert parts[2].endswith("length.")
    assert "Paragraph 119 " in parts[2]
    assert all(part.startswith("Paragraph") and part.endswith("length.") for part in parts)
    middles = {excerpt(f"{LONG} {k}", 300)[0].split("\n\n[...]\n\n")[1] for k in range(8)}
    assert len(middles) > 3


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=3000), st.integers(64, 200), st.integers(2, 6))
def test_chunks_are_within_the_limit_in_order_and_complete_or_said_not_to_be(text, tokens, most):
    """Whatever the text: no chunk is too long, none overlaps another, and complete ones hold every word."""
    chunks, incomplete = consecutive(text, tokens, most)
    assert len(chunks) <= most
    assert (chunks, incomplete) == consecutive(text, tokens, most)
    at = 0
    for chunk in chunks:
        at = text.index(chunk, at) + len(chunk)
    if not incomplete:
        assert re.sub(r"\s", "", "".join(chunks)) == re.sub(r"\s", "", text)


def test_a_text_that_is_too_long_for_its_chunks_is_sampled_from_end_to_end():
    """The first chunk begins with the text, the last ends with it, and all begin and end at paragraphs."""
    chunks, incomplete = consecutive(LONG, 300, 4)
    assert (len(chunks), incomplete) == (4, True)
    assert chunks[0].startswith("Paragraph 0 ")
    assert chunks[-1].endswith("length.")
    assert all(chunk.startswith("Paragraph") and chunk.endswith("length.") for chunk in chunks)
    assert consecutive(LONG, 300, 40)[1] is False
    assert consecutive("short", 300, 4) == (["short"], False)


def test_labels_of_chunks_are_merged_by_the_written_rule():
    """Values by length, operations from half of the length on, grades by weighted median, evidence of the nearest."""
    labels = [
        LABEL | {"evidence": "one", "task_type": TASKS[0], "solving_operation": OPERATIONS[:2], "quality": 1},
        LABEL | {"evidence": "two", "task_type": TASKS[1], "solving_operation": OPERATIONS[1:3], "quality": 5},
        LABEL | {"evidence": "three", "task_type": TASKS[1], "solving_operation": OPERATIONS[2:4], "quality": 4}
        | {"exercise": EXERCISE[-1]},
    ]  # fmt: skip
    merged = merge_chunks(labels, [50, 30, 20], TAXONOMY)
    assert merged == LABEL | {
        "evidence": "one",
        "task_type": TASKS[0],  # 50 against 30 + 20: the one that comes first
        "solving_operation": [OPERATIONS[1], OPERATIONS[0], OPERATIONS[2]],  # 80, 50 and 50 of 100
        "quality": 1,  # reaches half of the length
        "exercise": EXERCISE[0],
    }
    assert merge_chunks(labels, [10, 30, 60], TAXONOMY)["quality"] == 4
    assert merge_chunks(labels, [10, 30, 60], TAXONOMY)["exercise"] == EXERCISE[-1]
    apart = [LABEL | {"solving_operation": [name]} for name in OPERATIONS[:3]]
    assert merge_chunks(apart, [1, 1, 1], TAXONOMY)["solving_operation"] == [OPERATIONS[0]]


def test_each_chunk_is_asked_once_and_the_row_is_their_merged_label(tmp_path):
    """A second run asks nothing; a record that grew by a paragraph asks only for the chunk that changed."""
    documents = write_documents(tmp_path / "d.jsonl", LONG, "Short.")

    def answer(request):
        return LABEL | ({"task_type": TASKS[1]} if "Paragraph 0 " in request.user else {})

    def run(path, out):
        judge = ScriptedJudge(answer, kind="document")
        options = {"max_input_tokens": 600, "chunks": 8, "cache_dir": tmp_path / "cache"}
        forecast = estimate([path], judge=judge, **options)
        summary = label([path], out=tmp_path / out, judge=judge, **options)
        assert forecast.to_ask == len(judge.asked)
        return summary, len(judge.asked), pl.read_parquet(tmp_path / out)

    first, asked, table = run(documents, "a.parquet")
    again, asked_again, same = run(documents, "b.parquet")
    _, asked_grown, _ = run(write_documents(tmp_path / "e.jsonl", f"{LONG}\n\nOne more."), "c.parquet")

    assert (first.records, first.labelled, first.cached) == (2, 2, 0)
    assert asked == 5  # four of the long record, one of the short one
    assert table["task_type"].to_list() == [TASKS[0], TASKS[0]]
    assert table["attempts"].to_list() == [4, 1]
    assert table["truncated"].to_list() == [False, False]
    assert (again.cached, asked_again) == (2, 0)
    assert same.drop("cached").equals(table.drop("cached"))
    assert asked_grown == 1


def test_one_failed_chunk_fails_the_record_and_a_retry_asks_for_it_alone(tmp_path):
    """The dead letter says which; the answers to the other chunks are kept."""
    documents = write_documents(tmp_path / "d.jsonl", LONG)

    def refusing(request):
        if "Paragraph 119 " in request.user:
            raise Unanswered("refusal", "No.")
        return LABEL

    options = {"max_input_tokens": 600, "chunks": 8, "cache_dir": tmp_path / "cache"}
    judge = ScriptedJudge(refusing, kind="document")
    failed = label([documents], out=tmp_path / "l.parquet", judge=judge, **options)
    letter = json.loads((tmp_path / "l.parquet.failed.jsonl").read_text())
    better = ScriptedJudge(lambda request: LABEL, kind="document")
    mended = label([documents], out=tmp_path / "l.parquet", judge=better, retry_failed=True, **options)

    assert (failed.records, failed.failures) == (1, {"refusal": 1})
    assert (letter["record_id"], letter["detail"]) == ("d0", "chunk 4 of 4: No.")
    assert (mended.labelled, len(better.asked)) == (1, 1)


def test_chunks_go_out_in_batch_files_and_come_back(tmp_path):
    """One line a chunk; the same row as from a judge that is asked."""
    documents = write_documents(tmp_path / "d.jsonl", LONG, "Short.")
    judge = open_judge("openai:m", kind="document", taxonomy=TAXONOMY, prompt=load_prompt("document", TAXONOMY),
                       base_url="http://127.0.0.1:9/v1", cache_dir=None)  # fmt: skip
    options = {"judge": judge, "cache_dir": tmp_path / "cache", "max_input_tokens": 600, "chunks": 8}
    assert to_file([documents], tmp_path / "requests.jsonl", **options) == 5
    body = {"model": "m", "choices": [{"finish_reason": "stop", "message": {"content": json.dumps(LABEL)}}]}
    lines = [
        {"custom_id": json.loads(line)["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}
        for line in (tmp_path / "requests.jsonl").read_text().splitlines()
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
    _, summary = from_file([tmp_path / "results.jsonl"], [documents], out=tmp_path / "l.parquet", **options)
    assert (summary.records, summary.labelled, summary.cached) == (2, 2, 2)


@pytest.mark.parametrize(("tokens", "chunks"), [(None, 4), (600, 1)])
def test_chunks_need_a_size_and_a_number(tmp_path, tokens, chunks):
    """And a judge that is asked: a student reads documents whole."""
    documents = write_documents(tmp_path / "d.jsonl", LONG)
    with pytest.raises(BadInput, match="a number and a size"):
        label([documents], out=tmp_path / "l.parquet", judge=ScriptedJudge(lambda _: LABEL, kind="document"),
              cache_dir=None, max_input_tokens=tokens, chunks=chunks)  # fmt: skip
    with pytest.raises(BadInput, match="does not label chunks"):
        label([documents], out=tmp_path / "l.parquet", max_input_tokens=600, chunks=4,
              judge=open_judge("embedded", kind="document", taxonomy=TAXONOMY))  # fmt: skip
