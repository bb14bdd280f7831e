"""Cascades: the student labels what it is sure of, the LLM the rest, and nothing is paid for twice."""

from __future__ import annotations

import json

import orjson
import polars as pl
import pytest
from click.testing import CliRunner
from llm_faults import Faults
from llm_server import LLMServer

from annotator.cli import application
from annotator.errors import BadInput
from annotator.judges import Pace, open_judge
from annotator.judges.cascade import CascadeJudge, specs_of
from annotator.judges.student import Student, embedded_path
from annotator.label import estimate, label
from annotator.labelling import cascading
from annotator.prompts import load_prompt
from annotator.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
SPEC = "cascade:embedded,openai:gpt-5-mini"
QUICK = Pace(concurrency=8, first_wait_s=0.01, longest_wait_s=0.05, timeout_s=5)
TOPICS = (
    "Theorem {n}. Every prime above 2 is odd. Proof. Suppose that p is even; then 2 divides p.",
    "Mix {n} eggs with flour.\n1. Stir.\n2. Bake in the oven until golden brown.\n3. Let it cool.",
    "def total(values):\n    result = {n}\n    for value in values:\n        result += value\n    return result\n",
    "The committee met on day {n}. It was raining, and nobody came; the minutes say so in four words.",
    "zyx {n} wvu tsr qpo",
)


@pytest.fixture
def documents(tmp_path):
    rows = [{"doc_id": f"d{n:03}", "text": TOPICS[n % 5].format(n=n) * (1 + n % 3)} for n in range(60)]
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def cascade_at(server, *, below=None, spec=SPEC):
    return open_judge(
        spec,
        kind="document",
        taxonomy=TAXONOMY,
        prompt=load_prompt("document", TAXONOMY),
        base_url=server.base_url,
        api_key="any",
        pace=QUICK,
        below=below,
    )


def predicted(path):
    """The embedded student's own labels, in the order of the ids."""
    texts = pl.read_ndjson(path).sort("doc_id")["text"].to_list()
    return Student.load(embedded_path()).predict(texts, "document")


def threshold(path, quantile=0.5):
    """A confidence under which about that share of the documents lies, whichever student is shipped."""
    return float(predicted(path)["confidence"].quantile(quantile))


def test_the_llm_is_asked_for_exactly_the_records_below_the_threshold(documents, tmp_path):
    """One request each; every row names the judge that labelled it, and the student's rows are the student's own."""
    expected, below = predicted(documents), threshold(documents)
    unsure = (expected["confidence"] < below).sum()
    with LLMServer(Faults()) as server:
        summary = label([documents], out=tmp_path / "l.parquet", judge=cascade_at(server, below=below),
                        cache_dir=tmp_path / "cache")  # fmt: skip
        asked = server.stats().requests

    table = pl.read_parquet(tmp_path / "l.parquet").sort("record_id")
    by_student = table.filter(pl.col("judge") == "embedded")
    assert 0 < asked == summary.requests == unsure < 60
    assert table["status"].to_list() == ["ok"] * 60
    assert (table["judge"] == "embedded").to_list() == (expected["confidence"] >= below).to_list()
    assert table.filter(pl.col("judge") == "openai:gpt-5-mini").height == unsure
    assert by_student["strategy"].unique().to_list() == ["student"]
    assert by_student["input_tokens"].sum() == 0
    assert by_student["prompt_version"].null_count() == by_student.height
    sure = expected.filter(expected["confidence"] >= below)
    for column in ("task_type", "solving_operation", "exercise", "quality", "evidence", "confidence"):
        assert by_student[column].to_list() == sure[column].to_list()
    assert f"{60 - unsure:,} records labelled by embedded" in summary.notes[-1]


def test_the_forecast_says_what_the_run_then_does(documents, tmp_path):
    """Calls as forecast, tokens and money within 15 % (before any discount for cached prompts)."""
    with LLMServer(Faults()) as server:
        judge = cascade_at(server, below=threshold(documents))
        forecast = estimate([documents], judge=judge, cache_dir=tmp_path / "cache")
        summary = label([documents], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache")
        after = estimate([documents], judge=judge, cache_dir=tmp_path / "cache")

    assert forecast.records == forecast.by_student + forecast.to_ask + forecast.repeated == 60
    assert 0 < forecast.to_ask == summary.requests < 60
    assert forecast.input_tokens == pytest.approx(summary.input_tokens, rel=0.15)  # it counts 4 characters a token
    assert forecast.asked_low is None
    assert (after.to_ask, after.cached, after.cost_usd) == (0, forecast.to_ask, 0)


def test_paid_answers_serve_any_threshold_and_the_llm_alone(documents, tmp_path):
    """A second run at a higher threshold asks only for what is new; the LLM alone then asks for what is left."""
    low, high = threshold(documents, 0.3), threshold(documents, 0.7)
    with LLMServer(Faults()) as server:
        runs = [(low, SPEC), (high, SPEC), (high, SPEC), (None, "openai:gpt-5-mini")]
        summaries = [
            label([documents], out=tmp_path / f"{k}.parquet", judge=cascade_at(server, below=below, spec=spec),
                  cache_dir=tmp_path / "cache")
            for k, (below, spec) in enumerate(runs)
        ]  # fmt: skip
        stats = server.stats()

    confidence = predicted(documents)["confidence"]
    assert summaries[1].requests == ((confidence >= low) & (confidence < high)).sum()
    assert summaries[2].requests == 0
    assert summaries[3].requests == (confidence >= high).sum()
    assert stats.requests == 60
    assert not stats.paid_twice


def test_labels_of_the_student_never_become_answers_of_the_llm(documents, tmp_path):
    """A cascade that asks for nothing leaves nothing behind: the LLM alone is then asked for all."""
    with LLMServer(Faults()) as server:
        alone = label([documents], out=tmp_path / "a.parquet", judge=cascade_at(server, below=0.0001),
                      cache_dir=tmp_path / "cache")  # fmt: skip
        every = label([documents], out=tmp_path / "b.parquet", judge=cascade_at(server, spec="openai:gpt-5-mini"),
                      cache_dir=tmp_path / "cache")  # fmt: skip

    assert (alone.labelled, alone.requests) == (60, 0)
    assert (every.labelled, every.requests) == (60, 60)


def test_a_huge_input_is_forecast_from_a_sample_with_an_interval(documents, tmp_path, monkeypatch):
    """The first records are all looked at, of the others a part, and the interval holds the truth."""
    monkeypatch.setattr(cascading, "_LOOKED_AT", 10)
    monkeypatch.setattr(cascading, "_ONE_IN", 2)
    with LLMServer(Faults()) as server:
        judge = cascade_at(server, below=threshold(documents))
        found = estimate([documents], judge=judge, cache_dir=tmp_path / "cache")

    truth = (predicted(documents)["confidence"] < judge.below).sum()
    assert found.asked_low < truth < found.asked_high
    assert found.asked_low < found.to_ask < found.asked_high
    assert found.by_student + found.to_ask == 60


def test_the_command_forecasts_and_labels(documents, tmp_path):
    """`--dry-run` sends nothing and names the student's share; the run says who labelled what."""
    below = str(threshold(documents))
    with LLMServer(Faults()) as server:
        options = ["--kind", "document", "--judge", SPEC, "--base-url", server.base_url, "--below", below]
        options += ["--cache-dir", str(tmp_path / "cache"), "-o", str(tmp_path / "l.parquet"), "--json"]
        dry = CliRunner().invoke(application, ["label", str(documents), *options, "--dry-run"], standalone_mode=False)
        sent = server.stats().requests
        run = CliRunner().invoke(application, ["label", str(documents), *options], standalone_mode=False)

    forecast, summary = orjson.loads(dry.stdout), orjson.loads(run.stdout)
    assert sent == 0
    assert summary["requests"] == forecast["to_ask"]
    assert summary["models"]["embedded"] == forecast["by_student"]


def test_failed_rows_are_taken_up_again_without_the_students_rows(documents, tmp_path):
    """`retry_failed` asks for the failed records alone."""
    out, cache = tmp_path / "l.parquet", tmp_path / "cache"
    with LLMServer(Faults(markers={"zyx": "refusal"})) as server:
        first = label([documents], out=out, judge=cascade_at(server, below=1.0), cache_dir=cache)
        server.configure(markers={})
        again = label([documents], out=out, judge=cascade_at(server, below=1.0), cache_dir=cache, retry_failed=True)

    assert first.failed == 12
    assert (again.records, again.failed, again.requests) == (12, 0, 12)
    assert pl.read_parquet(out)["status"].to_list() == ["ok"] * 60


def test_a_spec_names_a_student_and_an_llm():
    """Folders may have commas in their names."""
    assert specs_of("cascade:embedded,openai:a/b") == ("embedded", "openai:a/b")
    assert specs_of("cascade:student:a,b/c,instructor:x/y") == ("student:a,b/c", "instructor:x/y")
    for wrong in ("cascade:", "cascade:embedded", "cascade:openai:a,embedded", "cascade:embedded,student:x"):
        with pytest.raises(BadInput, match="a student and an LLM"):
            specs_of(wrong)


def test_thresholds_are_of_students_and_cascades_and_between_0_and_1():
    """Each mistake is one line."""
    prompt = load_prompt("document", TAXONOMY)
    for spec, below, message in (
        (SPEC, 0.0, "no such threshold"),
        (SPEC, 1.5, "no such threshold"),
        ("embedded", float("nan"), "no such threshold"),
        ("openai:gpt-5-mini", 0.5, "only a student"),
    ):
        with pytest.raises(BadInput, match=message):
            open_judge(spec, kind="document", taxonomy=TAXONOMY, prompt=prompt, api_key="any", below=below)
    opened = open_judge(SPEC, kind="document", taxonomy=TAXONOMY, prompt=prompt, api_key="any")
    assert isinstance(opened, CascadeJudge)
    assert opened.below == 0.6
