"""Requests written to a file: each line holds all that a capable LLM needs, and the instructions stay short."""

from __future__ import annotations

import json

import orjson
import pytest
from click.testing import CliRunner
from command_line import annotator, refused

from annotator.cli import application
from annotator.prompts import load_prompt
from annotator.schema import label_model
from annotator.taxonomy import AXES, GRADES, load_taxonomy

TAXONOMY = load_taxonomy()
TEXT = "Every prime above 2 is odd, since an even number above 2 has the divisor 2."


@pytest.fixture(params=["item", "document"])
def line(request, tmp_path):
    """(kind, one line of a request file)."""
    kind = request.param
    record = {"id": "r", "prompt": TEXT} if kind == "item" else {"doc_id": "r", "text": TEXT}
    (tmp_path / "records.jsonl").write_text(json.dumps(record) + "\n")
    command = ["batch", "submit", str(tmp_path / "records.jsonl"), "--kind", kind, "--judge", "openai:any-model"]
    command += ["--base-url", "http://127.0.0.1:9/v1", "--cache-dir", str(tmp_path / "cache")]
    result = CliRunner().invoke(application, [*command, "--to-file", str(tmp_path / "requests.jsonl")])
    assert result.exit_code == 0, result.output
    return kind, orjson.loads((tmp_path / "requests.jsonl").read_bytes())


def test_a_line_defines_every_value_and_holds_the_record(line):
    """Nothing is referred to that is not there: definitions, settled doubts, the form of the answer, the record."""
    kind, request = line
    system, user = (message["content"] for message in request["body"]["messages"])

    for axis in AXES:
        for value, meaning in TAXONOMY.axes[axis].definitions[kind].items():
            assert f"- {value}: {meaning}" in system
    for grade in GRADES if kind == "document" else ():
        for value, meaning in TAXONOMY.grades[grade].items():
            assert f"- {value}: {meaning}" in system
    for rule in TAXONOMY.tiebreaks[kind]:
        assert rule in system
    assert TEXT in user


def test_the_form_of_the_answer_stands_in_words_and_in_the_schema(line):
    """An LLM whose server ignores `response_format` still reads which fields to give, in which order."""
    kind, request = line
    fields = list(label_model(TAXONOMY, kind).model_fields)
    system = request["body"]["messages"][0]["content"]
    example = next(text for text in system.splitlines() if text.startswith("{"))

    assert list(json.loads(example)) == fields
    assert list(request["body"]["response_format"]["json_schema"]["schema"]["properties"]) == fields


@pytest.mark.parametrize("kind", ["item", "document"])
def test_the_instructions_take_less_than_3000_tokens(kind):
    """4.70 bytes a token: these prompts measured 4.71 to 4.74 in o200k_base, cl100k_base and llama3."""
    assert len(load_prompt(kind, TAXONOMY).system.encode()) / 4.70 < 3000


def test_only_who_asks_needs_a_key(tmp_path, monkeypatch):
    """A forecast and a request file are made without one; labelling says what is missing."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    (tmp_path / "records.jsonl").write_text(json.dumps({"id": "r", "prompt": TEXT}) + "\n")
    judge = "--kind", "item", "--judge", "openai:gpt-5-mini"

    forecast = annotator("label", "records.jsonl", "-o", "labels.parquet", *judge, "--dry-run", "--json", cwd=tmp_path)
    requests = annotator("batch", "submit", "records.jsonl", "--to-file", "requests.jsonl", *judge, cwd=tmp_path)
    labels = annotator("label", "records.jsonl", "-o", "labels.parquet", *judge, cwd=tmp_path)

    assert forecast.returncode == 0, forecast.stderr
    assert json.loads(forecast.stdout)["to_ask"] == 1
    assert requests.returncode == 0, requests.stderr
    assert len((tmp_path / "requests.jsonl").read_text().splitlines()) == 1
    refused(labels, "no key for OpenAI", "Set OPENAI_API_KEY")
