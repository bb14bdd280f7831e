"""`label` against a real HTTP server that misbehaves: what arrives, what is paid, what is kept, what is said."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from llm_faults import Faults
from llm_server import LLMServer

from annotator.budget import Budget, price_of
from annotator.errors import BadInput, ServiceFailure, StoppedEarly
from annotator.judges import Pace, Sampling, Usage, open_judge
from annotator.judges.cache import cache_stats
from annotator.judges.scripted import ScriptedJudge
from annotator.label import estimate, label
from annotator.prompts import load_prompt
from annotator.tables import LABELS, read_made_from
from annotator.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
KEY = "sk-test-0123456789abcdef"
QUICK = Pace(concurrency=8, first_wait_s=0.01, longest_wait_s=0.05, timeout_s=5)
LABEL = {
    "evidence": "",
    "background_condition": TAXONOMY.values("background_condition", "item")[0],
    "task_type": TAXONOMY.values("task_type", "item")[0],
    "solving_operation": list(TAXONOMY.values("solving_operation", "item")[:2]),
    "output_constraint": TAXONOMY.values("output_constraint", "item")[0],
}


def judge_at(server, *, spec="openai:test-model", pace=QUICK, key=KEY, prompt=None, **options):
    return open_judge(
        spec,
        kind="item",
        taxonomy=TAXONOMY,
        prompt=prompt or load_prompt("item", TAXONOMY),
        base_url=server if isinstance(server, str) else server.base_url,
        api_key=key,
        pace=pace,
        **options,
    )


def write_items(path: Path, count: int, texts: dict[int, str] | None = None) -> Path:
    texts = {k: f"What is {k} plus {k}? Question number {k}." for k in range(count)} | (texts or {})
    rows = [{"id": f"q{k}", "prompt": text} for k, text in texts.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def labels_of(frame: pl.DataFrame) -> pl.DataFrame:
    """What a label says, without what it took to get it."""
    return frame.drop("cached", "attempts", "input_tokens", "output_tokens", "cached_input_tokens")


def test_labels_arrive_in_input_order_and_a_second_run_asks_nothing(tmp_path):
    """Every record is labelled once; the second run reads every answer from the cache."""
    items = write_items(tmp_path / "items.jsonl", 60)
    with LLMServer(Faults(latency_ms=5, latency_sigma=1)) as server:
        first = label([items], out=tmp_path / "labels.parquet", judge=judge_at(server), cache_dir=tmp_path / "cache")
        table = pl.read_parquet(tmp_path / "labels.parquet")
        second = label([items], out=tmp_path / "again.parquet", judge=judge_at(server), cache_dir=tmp_path / "cache")
        again = pl.read_parquet(tmp_path / "again.parquet")
        asked = server.stats().requests

    assert (first.records, first.labelled, first.failed, first.requests, first.cached) == (60, 60, 0, 60, 0)
    assert (second.labelled, second.requests, second.cached, second.input_tokens) == (60, 0, 60, 0)
    assert asked == 60
    assert table["record_id"].to_list() == [f"q{k}" for k in range(60)]
    assert table.columns[: len(LABELS)] == list(LABELS)
    assert table["model"].unique().to_list() == ["test-model"]
    assert table["strategy"].unique().to_list() == ["json_schema"]
    assert not table["cached"].any()
    assert again["cached"].all()
    assert again.drop("cached").equals(table.drop("cached"))
    assert read_made_from(tmp_path / "labels.parquet")["taxonomy"] == TAXONOMY.fingerprint
    assert not (tmp_path / "labels.parquet.parts").exists()


def test_a_bad_answer_is_asked_again_once_with_the_complaint(tmp_path):
    """A re-ask is the original prompt plus one short complaint, all attempts are counted, and there is no third."""
    items = write_items(tmp_path / "items.jsonl", 2)
    markers = {"Question number 0": ["wrong_enum"], "Question number 1": ["invalid_json", "wrong_enum"]}
    with LLMServer(Faults(markers=markers)) as server:
        pace = replace(QUICK, concurrency=1)
        judge = judge_at(server, pace=pace)
        summary = label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache")
        stats, requests = server.stats(), server.requests(4)

    good, bad = pl.read_parquet(tmp_path / "l.parquet").rows(named=True)
    assert (good["status"], good["attempts"]) == ("ok", 2)
    assert (bad["status"], bad["attempts"], bad["error"]) == ("failed", 2, "invalid_label")
    assert summary.requests == stats.requests == 4
    assert good["input_tokens"] + bad["input_tokens"] == summary.input_tokens == stats.prompt_tokens
    assert good["output_tokens"] + bad["output_tokens"] == summary.output_tokens == stats.completion_tokens
    by_record = {}
    for request in requests:
        assert len(request["messages"]) == 2
        text = request["messages"][1]["content"]
        by_record.setdefault(text[:40], []).append(text)
    for first, second in by_record.values():
        assert second.startswith(first)
        assert "could not be used" in second
        assert len(second) - len(first) < 1500
    assert sum("not one JSON object" in second for _, second in by_record.values()) == 1


@pytest.mark.parametrize(
    ("fault", "reason", "asked"),
    [
        ("refusal", "refusal", 1),
        ("content_filter", "content_filter", 1),
        ("context_length", "too_long", 1),
        ("too_large", "too_long", 1),
        ("bad_request", "rejected", 1),
        ("length", "truncated_answer", 2),
        ("empty_choices", "empty_answer", 2),
        ("empty_content", "empty_answer", 2),
        ("null_content", "empty_answer", 2),
        ("invalid_json", "invalid_json", 2),
        ("wrong_enum", "invalid_label", 2),
        ("extra_field", "invalid_label", 2),
        ("duplicate_item", "invalid_label", 2),
        ("html_200", "bad_response", 3),
        ("http_500", "server_error", 3),
        ("http_502_html", "server_error", 3),
        ("reset", "connection", 3),
        ("cut_in_body", "connection", 3),
        ("hang", "timeout", 3),
    ],
)
def test_each_way_to_fail_has_its_reason_and_its_number_of_tries(tmp_path, fault, reason, asked):
    """The row lands in the dead-letter file and as status failed in the table; the others are not disturbed."""
    items = write_items(tmp_path / "items.jsonl", 6)
    pace = Pace(concurrency=4, attempts=3, first_wait_s=0.01, longest_wait_s=0.02, timeout_s=0.4)
    with LLMServer(Faults(markers={"Question number 3.": fault})) as server:
        summary = label(
            [items], out=tmp_path / "l.parquet", judge=judge_at(server, pace=pace), cache_dir=tmp_path / "cache"
        )
        requests = server.stats().requests

    letters = [json.loads(line) for line in (tmp_path / "l.parquet.failed.jsonl").read_text().splitlines()]
    failed = pl.read_parquet(tmp_path / "l.parquet").filter(pl.col("status") == "failed")
    assert summary.failures == {reason: 1}
    assert [(one["record_id"], one["reason"], one["shard"], one["row"]) for one in letters] == [
        ("q3", reason, "items.jsonl", 3)
    ]
    assert letters[0]["detail"]
    assert failed.select("record_id", "error", "task_type").rows() == [("q3", reason, None)]
    assert requests == 5 + asked


def test_failed_rows_are_taken_up_again_and_nothing_else(tmp_path):
    """retry_failed asks for exactly the failed rows, and puts the answers at their places."""
    items = write_items(tmp_path / "items.jsonl", 10)
    with LLMServer(Faults(markers={"Question number 3.": "refusal", "Question number 7.": "refusal"})) as server:
        label([items], out=tmp_path / "l.parquet", judge=judge_at(server), cache_dir=None)
        before = pl.read_parquet(tmp_path / "l.parquet")
        server.configure(Faults())
        asked = server.stats().requests
        judge = judge_at(server)
        summary = label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=None, retry_failed=True)
        asked = server.stats().requests - asked

    after = pl.read_parquet(tmp_path / "l.parquet")
    kept = pl.col("record_id").is_in(["q3", "q7"]).not_()
    assert asked == summary.labelled == 2
    assert after["record_id"].to_list() == before["record_id"].to_list()
    assert after["status"].unique().to_list() == ["ok"]
    assert after.filter(kept).equals(before.filter(kept))
    assert not (tmp_path / "l.parquet.failed.jsonl").exists()


@pytest.mark.parametrize("name", ["l.jsonl", "l.csv", "l.parquet"])
def test_failed_rows_of_another_taxonomy_are_not_taken_up(tmp_path, name):
    """Formats that cannot say what they were made from have the version in their rows; ids are unique."""
    items = write_items(tmp_path / "items.jsonl", 2)
    refusing = ScriptedJudge(lambda request: {**LABEL, "task_type": "no_such"})
    label([items], out=tmp_path / name, judge=refusing, cache_dir=None)
    newer = ScriptedJudge(lambda request: LABEL, taxonomy=replace(TAXONOMY, version="9"))
    with pytest.raises(BadInput, match="another taxonomy"):
        label([items], out=tmp_path / name, judge=newer, cache_dir=None, retry_failed=True)


def test_a_folder_whose_failed_rows_were_mended_has_no_dead_letter_file(tmp_path):
    """Only the shard with the failed row is done again."""
    (tmp_path / "in").mkdir()
    write_items(tmp_path / "in" / "a.jsonl", 3)
    (tmp_path / "in" / "b.jsonl").write_text('{"id": "z", "prompt": "Bad."}\n')
    judge = ScriptedJudge(lambda request: {**LABEL, "task_type": "no_such"} if "Bad." in request.user else LABEL)
    call = {"inputs": [tmp_path / "in"], "out": tmp_path / "out", "cache_dir": tmp_path / "cache"}
    first = label(judge=judge, **call)
    good = ScriptedJudge(lambda request: LABEL)
    second = label(judge=good, retry_failed=True, **call)

    assert (first.failed, Path(first.failed_path).name) == (1, "out.failed.jsonl")
    assert (second.failed, second.failed_path, second.shards_resumed, len(good.asked)) == (0, None, 1, 1)
    assert not (tmp_path / "out.failed.jsonl").exists()


def test_an_id_is_used_once_over_all_shards_of_a_folder_that_grows(tmp_path):
    """Also against shards that an earlier run finished, and against rows that are no records."""
    (tmp_path / "in").mkdir()
    write_items(tmp_path / "in" / "b.jsonl", 3)
    judge = ScriptedJudge(lambda request: LABEL)
    label([tmp_path / "in"], out=tmp_path / "out", judge=judge, cache_dir=None)
    (tmp_path / "in" / "c.jsonl").write_text('{"id": "q1", "prompt": "Again."}\n')
    with pytest.raises(BadInput, match="id 'q1' is there twice"):
        label([tmp_path / "in"], out=tmp_path / "out", judge=judge, cache_dir=None)
    (tmp_path / "one.jsonl").write_text('{"id": "x", "prompt": ""}\n{"id": "x", "prompt": "Said."}\n')
    with pytest.raises(BadInput, match=r"one\.jsonl:2: id 'x' is there twice \(first at .*one\.jsonl:1\)"):
        label([tmp_path / "one.jsonl"], out=tmp_path / "one.parquet", judge=judge, cache_dir=None)


def test_rows_that_are_no_records_are_dead_letters_too(tmp_path):
    """A broken line and an empty text cost nothing and stop nothing; the one with an id is in the table."""
    path = tmp_path / "items.jsonl"
    path.write_text(
        '{"id": "a", "prompt": "One."}\n{broken\n{"id": "c", "prompt": ""}\n{"id": "d", "prompt": "Two."}\n'
    )
    judge = ScriptedJudge(lambda request: LABEL)

    summary = label([path], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache")

    table = pl.read_parquet(tmp_path / "l.parquet")
    assert (summary.records, summary.labelled, summary.failed) == (4, 2, 2)
    assert summary.failures == {"bad_json": 1, "empty_text": 1}
    assert table.select("record_id", "status", "error").rows() == [
        ("a", "ok", None),
        ("c", "failed", "empty_text"),
        ("d", "ok", None),
    ]


def test_evidence_that_is_not_in_the_record_is_dropped_and_flagged(tmp_path):
    """A quote must occur in the record, white space aside."""
    path = write_items(tmp_path / "items.jsonl", 2, {0: "The  cat\nsat on the mat.", 1: "The dog sat."})
    judge = ScriptedJudge(lambda request: {**LABEL, "evidence": "cat sat on"})

    label([path], out=tmp_path / "l.parquet", judge=judge, cache_dir=None)

    rows = pl.read_parquet(tmp_path / "l.parquet").select("evidence", "evidence_dropped").rows()
    assert rows == [("cat sat on", False), ("", True)]


def test_the_very_same_text_is_paid_once(tmp_path):
    """Records with equal texts share one request."""
    path = write_items(tmp_path / "items.jsonl", 30, dict.fromkeys(range(30), "The same words."))
    judge = ScriptedJudge(lambda request: LABEL)

    summary = label([path], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache")

    assert len(judge.asked) == 1
    assert (summary.labelled, summary.cached) == (30, 29)


@pytest.mark.parametrize(
    "change",
    [
        {"spec": "openai:other-model"},
        {"sampling": Sampling(temperature=0.7)},
        {"sampling": Sampling(seed=1)},
        {"sampling": Sampling(max_output_tokens=2000)},
        {"strategy": "tools"},
        {"endpoint_name": "other"},
        {"prompt": "edited"},
    ],
    ids=str,
)
def test_what_can_change_an_answer_is_asked_anew(tmp_path, change):
    """Model, sampling, strategy, endpoint and prompt are part of the cache key."""
    items = write_items(tmp_path / "items.jsonl", 3)
    if change.get("prompt"):
        template = tmp_path / "prompt.md"
        template.write_text("Label this item.\n{{ codebook }}\n")
        change = {"prompt": load_prompt("item", TAXONOMY, template)}
    with LLMServer() as server:
        label([items], out=tmp_path / "a.parquet", judge=judge_at(server), cache_dir=tmp_path / "cache")
        label([items], out=tmp_path / "b.parquet", judge=judge_at(server, **change), cache_dir=tmp_path / "cache")
        assert server.stats().requests == 6


def test_what_cannot_change_an_answer_is_served_from_the_cache(tmp_path):
    """Key, pace, server port, shard split, row order and ids are not part of the cache key."""
    items = write_items(tmp_path / "items.jsonl", 6)
    lines = items.read_text().splitlines(keepends=True)
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "b.jsonl").write_text("".join(lines[4::-1]))
    (tmp_path / "split" / "a.jsonl").write_text(lines[5].replace('"q5"', '"new-id"'))
    with LLMServer() as server:
        label([items], out=tmp_path / "a.parquet", judge=judge_at(server), cache_dir=tmp_path / "cache")
    with LLMServer() as server:
        other = judge_at(server, key="sk-rotated-key", pace=Pace(concurrency=3, timeout_s=9, attempts=1))
        summary = label([tmp_path / "split"], out=tmp_path / "b.parquet", judge=other, cache_dir=tmp_path / "cache")
        assert server.stats().requests == 0
    assert summary.cached == 6


@pytest.mark.parametrize(
    ("faults", "key", "words"),
    [
        (Faults(api_key=KEY), "sk-wrong-0123456789", "unauthorized (401)"),
        (Faults(rates={"model_not_found": 1}), KEY, "not_found (404)"),
        (Faults(rates={"insufficient_quota": 1}), KEY, "quota (429)"),
        (Faults(rates={"http_500": 1}), KEY, "server_error (500)"),
        (Faults(rates={"reset": 1}), KEY, "connection"),
    ],
    ids=["wrong key", "no such model", "no quota", "only errors", "only resets"],
)
def test_a_judge_that_cannot_be_used_stops_the_run_with_its_own_words(tmp_path, faults, key, words):
    """The corpus is not burnt through, and no table is written."""
    items = write_items(tmp_path / "items.jsonl", 500)
    with LLMServer(faults) as server:
        judge = judge_at(server, key=key, pace=Pace(attempts=2, first_wait_s=0.01, longest_wait_s=0.02))
        with pytest.raises(ServiceFailure) as failure:
            label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache")
        # Each of the 2 x 64 workers may try one record before 16 records in a row have used up their tries.
        assert server.stats().requests <= 2 * 64 + 16 * 2 + 64

    assert words in str(failure.value)
    assert key not in str(failure.value)
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "l.parquet").exists()


def test_an_endpoint_that_nobody_listens_at_is_a_service_failure(tmp_path):
    """One record is enough to notice."""
    items = write_items(tmp_path / "items.jsonl", 1)
    judge = judge_at("http://127.0.0.1:9/v1", pace=Pace(attempts=2, first_wait_s=0.01))
    with pytest.raises(ServiceFailure, match="connection"):
        label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=None)


@pytest.mark.parametrize(
    ("budget", "most"),
    [(Budget(max_records=25), 25), (Budget(max_tokens=100_000), 25), (Budget(max_cost_usd=0.014), 60)],
    ids=["records", "tokens", "money"],
)
def test_a_budget_stops_cleanly_and_what_was_paid_is_free_in_the_next_run(tmp_path, budget, most):
    """The limit is never passed, and the same call without it asks only for the rest."""
    items = write_items(tmp_path / "items.jsonl", 80)
    with LLMServer(Faults(latency_ms=3)) as server:
        judge = judge_at(server, spec="openai:gpt-5-mini")
        with pytest.raises(StoppedEarly, match="--max-"):
            label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache", budget=budget)
        paid = server.stats()
        rest = label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache")
        assert not server.stats().paid_twice

    assert 5 < paid.requests <= most
    assert paid.prompt_tokens + paid.completion_tokens <= (budget.max_tokens or 10**9)
    assert rest.cached == paid.requests
    assert rest.requests == 80 - paid.requests


PER_RECORD = 4_000  # tokens of an item of `write_items` with its answer, as the test server counts them


@pytest.mark.parametrize(
    ("budget", "share_used"),
    [(Budget(max_tokens=60 * PER_RECORD), 0.9), (Budget(max_cost_usd=0.05), 0.9)],
    ids=["tokens", "money"],
)
def test_a_budget_is_used_nearly_whole(tmp_path, budget, share_used):
    """Requests in flight are waited for before the run says that nothing more fits; the last record is what is lost."""
    items = write_items(tmp_path / "items.jsonl", 300)
    with LLMServer(Faults(latency_ms=5)) as server:
        judge = judge_at(server, spec="openai:gpt-5-mini", pace=replace(QUICK, concurrency=32))
        with pytest.raises(StoppedEarly, match="--max-"):
            label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache", budget=budget)
        paid = server.stats()

    usage = Usage(paid.requests, paid.prompt_tokens, paid.cached_tokens, paid.completion_tokens)
    spent, limit = usage.input_tokens + usage.output_tokens, budget.max_tokens
    if limit is None:
        spent, limit = price_of("gpt-5-mini").cost(usage), budget.max_cost_usd
    assert share_used * limit <= spent <= limit


@pytest.mark.parametrize("fault", ["wrong_enum", "invalid_json", "length"])
def test_answers_that_are_asked_for_again_stay_within_the_budget_too(tmp_path, fault):
    """Every answer is bad, so each record takes three tries: the limit holds all the same."""
    items = write_items(tmp_path / "items.jsonl", 300)
    limit = 30 * PER_RECORD
    with LLMServer(Faults(rates={fault: 1}, latency_ms=2)) as server:
        judge = judge_at(server, pace=replace(QUICK, concurrency=32))
        with pytest.raises(StoppedEarly, match="--max-tokens"):
            label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=None, budget=Budget(max_tokens=limit))
        paid = server.stats()

    assert 0.6 * limit <= paid.prompt_tokens + paid.completion_tokens <= limit


def test_a_server_that_does_not_count_is_stopped_by_estimates(tmp_path):
    """No usage in any answer: a budget in tokens holds all the same, roughly."""
    items = write_items(tmp_path / "items.jsonl", 100)
    budget = Budget(max_tokens=30 * PER_RECORD)
    with LLMServer(Faults(rates={"no_usage": 1})) as server:
        with pytest.raises(StoppedEarly, match="--max-tokens"):
            label([items], out=tmp_path / "l.parquet", judge=judge_at(server), cache_dir=None, budget=budget)
        assert 20 <= server.stats().requests <= 40


def test_a_panel_stays_within_the_budget_too(tmp_path):
    """Three votes a record are reserved, before anything is known of what a record takes."""
    items = write_items(tmp_path / "items.jsonl", 100)
    limit = 90 * PER_RECORD
    with LLMServer(Faults(latency_ms=2)) as server:
        judge = judge_at(server, votes=3, sampling=Sampling(temperature=0.7), pace=replace(QUICK, concurrency=32))
        with pytest.raises(StoppedEarly, match="--max-tokens"):
            label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=None, budget=Budget(max_tokens=limit))
        paid = server.stats()

    assert 0.9 * limit <= paid.prompt_tokens + paid.completion_tokens <= limit


def test_labelling_works_where_an_event_loop_runs_already(tmp_path):
    """As in a notebook, whose cells run inside one."""
    items = write_items(tmp_path / "items.jsonl", 5)

    async def cell():
        return label([items], out=tmp_path / "l.parquet", judge=ScriptedJudge(lambda _: LABEL), cache_dir=None)

    assert asyncio.run(cell()).labelled == 5


def test_an_interrupted_cell_of_a_notebook_keeps_what_was_answered(tmp_path):
    """The work goes on in another thread than the one that is interrupted: it stops too, and commits."""
    items = write_items(tmp_path / "items.jsonl", 2000)
    loop = asyncio.new_event_loop()
    with LLMServer(Faults(latency_ms=50)) as server:

        def interrupt_later():
            while len(server.stats().answered) < 20:
                time.sleep(0.02)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        async def cell():
            label([items], out=tmp_path / "l.parquet", judge=judge_at(server), cache_dir=tmp_path / "cache")

        threading.Thread(target=interrupt_later, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
        loop.close()
        answered = len(server.stats().answered)
    assert answered < 2000
    assert cache_stats(tmp_path / "cache")["answers"] >= answered - QUICK.concurrency


def test_scripts_get_one_json_object_whatever_the_exit_code(tmp_path):
    """With --json the status and the reason are on stdout, beside the line on stderr."""
    items = write_items(tmp_path / "items.jsonl", 6)
    shared = ["--kind", "item", "--judge", "openai:test-model", "--cache-dir", str(tmp_path / "cache"), "--json"]
    with LLMServer() as server, LLMServer(Faults(rates={"unauthorized": 1})) as closed:
        for expected, status, more in [
            (2, "bad_input", [str(tmp_path / "nowhere.jsonl")]),
            (2, "bad_input", [str(items), "--no-such-option"]),
            (3, "stopped", [str(items), "--max-records", "2", "--base-url", server.base_url]),
            (4, "judge_unusable", [str(items), "--base-url", closed.base_url]),
        ]:
            command = [sys.executable, "-m", "annotator", "label", *more, "-o", str(tmp_path / "l.parquet"), *shared]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            said = json.loads(done.stdout)
            assert (done.returncode, said["exit_code"], said["status"]) == (expected, expected, status), done.stderr
            assert said["reason"] in done.stderr


def test_a_forecast_is_close_to_the_bill_and_sends_nothing(tmp_path):
    """Tokens within 15 % of what the server counts; what is in the cache is left out."""
    items = write_items(tmp_path / "items.jsonl", 50)
    with LLMServer() as server:
        judge = judge_at(server, spec="openai:gpt-5-mini")
        forecast = estimate([items], judge=judge, cache_dir=tmp_path / "cache")
        assert server.stats().requests == 0
        summary = label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache")
        after = estimate([items], judge=judge, cache_dir=tmp_path / "cache")

    assert (forecast.records, forecast.to_ask, forecast.cached) == (50, 50, 0)
    assert forecast.input_tokens == pytest.approx(summary.input_tokens, rel=0.15)
    assert forecast.output_tokens == pytest.approx(summary.output_tokens, rel=0.35)
    assert forecast.cost_usd >= summary.cost_usd > 0
    assert (after.to_ask, after.cached, after.cost_usd) == (0, 50, 0)


@pytest.mark.parametrize(
    ("faults", "strategy"),
    [
        (Faults(rejects=["json_schema"]), "tools"),
        (Faults(rejects=["json_schema", "tools"]), "json_object"),
        (Faults(ignores=["json_schema"]), "tools"),
        (Faults(rejects=["temperature"]), "json_schema"),
        (Faults(rejects=["max_completion_tokens"]), "json_schema"),
    ],
    ids=str,
)
def test_an_endpoint_is_asked_in_the_best_form_that_it_knows(tmp_path, faults, strategy):
    """Strict schema, then strict tool, then a JSON object; sampling fields that it refuses are left out."""
    items = write_items(tmp_path / "items.jsonl", 20)
    with LLMServer(faults) as server:
        summary = label([items], out=tmp_path / "l.parquet", judge=judge_at(server), cache_dir=tmp_path / "cache")

    strategies = pl.read_parquet(tmp_path / "l.parquet")["strategy"]
    assert summary.labelled + summary.failed == 20
    assert summary.labelled >= 14  # records whose two tries both fell into the search for the form are lost
    assert set(strategies.drop_nulls()) == {strategy}


def test_a_folder_gets_one_table_a_shard_and_finished_shards_are_not_read_again(tmp_path):
    """Resume skips a finished shard; a changed one is labelled anew."""
    (tmp_path / "in").mkdir()
    write_items(tmp_path / "in" / "a.jsonl", 5)
    (tmp_path / "in" / "b.jsonl").write_text('{"id": "z", "prompt": "Another."}\n')
    judge = ScriptedJudge(lambda request: LABEL)

    first = label([tmp_path / "in"], out=tmp_path / "out", judge=judge, cache_dir=None)
    second = label([tmp_path / "in"], out=tmp_path / "out", judge=judge, cache_dir=None)
    (tmp_path / "in" / "b.jsonl").write_text('{"id": "z", "prompt": "Changed."}\n')
    third = label([tmp_path / "in"], out=tmp_path / "out", judge=judge, cache_dir=None)

    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")) == ["a.parquet", "b.parquet"]
    assert (first.shards_resumed, second.shards_resumed, third.shards_resumed) == (0, 2, 1)
    assert second.records == 6
    assert len(judge.asked) == 7


@pytest.mark.parametrize("name", ["l.parquet", "l.jsonl", "l.jsonl.gz", "l.jsonl.zst", "l.csv"])
def test_every_table_format_holds_the_same_labels(tmp_path, name):
    """Names decide formats; lists are JSON text in csv."""
    from annotator.tables import read_table

    items = write_items(tmp_path / "items.jsonl", 4)
    label([items], out=tmp_path / name, judge=ScriptedJudge(lambda request: LABEL), cache_dir=None)

    table = read_table(tmp_path / name, LABELS, made_by="annotator label")
    assert table["solving_operation"].to_list() == [LABEL["solving_operation"]] * 4
    assert table["record_id"].to_list() == ["q0", "q1", "q2", "q3"]


def test_one_hanging_request_does_not_hold_up_the_rest(tmp_path):
    """Everything else is answered while one record waits for its time-out."""
    items = write_items(tmp_path / "items.jsonl", 200)
    pace = Pace(concurrency=4, attempts=1, timeout_s=1.5)
    seen = []
    with LLMServer(Faults(markers={"Question number 0.": "hang"}, latency_ms=1)) as server:
        judge = judge_at(server, pace=pace)
        label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=None,
              progress=lambda now: seen.append((now.labelled, now.failed)))  # fmt: skip
    assert max(labelled for labelled, failed in seen if not failed) >= 190


def test_two_runs_cannot_write_one_output(tmp_path):
    """The second one is told so."""
    items = write_items(tmp_path / "items.jsonl", 1)

    def meanwhile(request):
        with pytest.raises(BadInput, match="another run is writing"):
            label([items], out=tmp_path / "l.parquet", judge=ScriptedJudge(lambda _: LABEL), cache_dir=None)
        return LABEL

    assert label([items], out=tmp_path / "l.parquet", judge=ScriptedJudge(meanwhile), cache_dir=None).labelled == 1


def test_long_records_are_cut_and_marked(tmp_path):
    """Head, middle and tail within the limit; short records are left alone."""
    long = "\n\n".join(f"Paragraph {k} says something of its own." for k in range(300))
    path = write_items(tmp_path / "items.jsonl", 2, {0: long, 1: "Short."})
    judge = ScriptedJudge(lambda request: LABEL)

    label([path], out=tmp_path / "l.parquet", judge=judge, cache_dir=None, max_input_tokens=200)

    assert pl.read_parquet(tmp_path / "l.parquet")["truncated"].to_list() == [True, False]
    assert "Paragraph 0 " in judge.asked[0].user
    assert "Paragraph 299 " in judge.asked[0].user
    assert len(judge.asked[0].user) < 200 * 4 + 300


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_label import judge_at, Pace
from annotator.label import label
label([{items!r}], out={out!r}, judge=judge_at({url!r}, pace=Pace(concurrency=8)), cache_dir={cache!r})
"""


def test_a_kill_in_the_middle_loses_no_answer_but_those_in_flight(tmp_path):
    """After kill -9 the same call goes on; what was answered long before is not asked for again."""
    items = write_items(tmp_path / "items.jsonl", 400)
    paths = {"items": str(items), "out": str(tmp_path / "l.parquet"), "cache": str(tmp_path / "cache")}
    with LLMServer(Faults(latency_ms=20)) as server:
        script = RUN.format(tests=str(Path(__file__).parent), url=server.base_url, **paths)
        environment = os.environ | {"POLARS_MAX_THREADS": "1"}
        for answers in (60, 180):
            process = subprocess.Popen([sys.executable, "-c", script], env=environment)
            deadline = time.monotonic() + 60
            while len(server.stats().answered) < answers and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
        summary = label([items], out=tmp_path / "l.parquet", judge=judge_at(server), cache_dir=tmp_path / "cache")
        calm = label([items], out=tmp_path / "calm.parquet", judge=judge_at(server), cache_dir=None)
        again = server.stats().paid_twice
    assert (summary.labelled, calm.labelled) == (400, 400)
    assert summary.cached >= 150
    # Two kills with 8 requests in flight and up to one group of answers that was not on disk yet; the calm run asks
    # for each record once more.
    assert sum(times - 2 for times in again.values()) <= 2 * (8 + 16)
    resumed, unbroken = (pl.read_parquet(tmp_path / name) for name in ("l.parquet", "calm.parquet"))
    assert labels_of(resumed).equals(labels_of(unbroken))


def test_the_key_is_written_nowhere(tmp_path, capfd):
    """Not to cache, output, dead letters, error messages or standard streams, even when the server repeats it."""
    items = write_items(tmp_path / "items.jsonl", 20)
    with LLMServer(Faults(rates={"refusal": 0.2, "bad_request": 0.2, "wrong_enum": 0.1})) as server:
        label([items], out=tmp_path / "l.parquet", judge=judge_at(server), cache_dir=tmp_path / "cache")
        assert any(KEY in key for key in server.stats().keys)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 4
    assert not any(KEY.encode() in content for content in written)
    assert KEY not in "".join(capfd.readouterr())


def test_labels_never_replace_the_records_of_a_folder(tmp_path):
    """Output folder and input folder are one: refused before any work; two shards of one name as well."""
    folder = tmp_path / "in"
    folder.mkdir()
    pl.DataFrame({"doc_id": ["a"], "text": ["One text."]}).write_parquet(folder / "a.parquet")
    before = (folder / "a.parquet").read_bytes()
    judge = open_judge("embedded", kind="document", taxonomy=TAXONOMY)
    with pytest.raises(BadInput, match="where the input lies"):
        label([folder], out=folder, judge=judge)
    assert (folder / "a.parquet").read_bytes() == before
    (folder / "a.csv").write_text("doc_id,text\nb,Two texts.\n")
    with pytest.raises(BadInput, match="the same name"):
        label([folder], out=tmp_path / "out", judge=judge)
    done = label([folder], out=tmp_path / "one.parquet", judge=judge)
    assert done.records == 2


def test_a_shard_without_records_does_not_hide_the_columns_of_the_others(tmp_path):
    """The first shard is empty, and the student adds a confidence per axis."""
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.jsonl").write_text('{"doc_id": "b", "text": "Some text."}\n')
    judge = open_judge("embedded", kind="document", taxonomy=TAXONOMY)
    label([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], out=tmp_path / "l.parquet", judge=judge)
    assert pl.read_parquet(tmp_path / "l.parquet")["confidence_task_type"].null_count() == 0


def test_a_student_is_refused_for_a_taxonomy_it_was_not_trained_on():
    """Its values would be stamped with the other version."""
    with pytest.raises(BadInput, match="was trained on taxonomy version '1', not '9'"):
        open_judge("embedded", kind="document", taxonomy=replace(TAXONOMY, version="9"))
