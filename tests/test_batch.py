"""Batch files give the same labels as asking one by one, submit nothing twice, and lose no finished line."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from typing import get_type_hints

import polars as pl
import pytest
from llm_faults import Faults
from llm_server import LLMServer
from test_label import judge_at, labels_of, write_items

from annotator.batch import collect, from_file, status, submit, to_file
from annotator.budget import Budget
from annotator.errors import BadInput, StoppedEarly
from annotator.fingerprint import fingerprint
from annotator.judges import Sampling
from annotator.label import label
from annotator.labelling.rows import make_window
from annotator.readers import find_shards, read_records


def online(tmp_path, items):
    with LLMServer() as server:
        label([items], out=tmp_path / "online.parquet", judge=judge_at(server), cache_dir=tmp_path / "online-cache")
    return pl.read_parquet(tmp_path / "online.parquet")


def collected(tmp_path, judge, items, ledger="ledger"):
    for _ in range(10):
        if all(entry.status == "completed" for entry in status(judge=judge, ledger=tmp_path / ledger)):
            break
    return collect(
        [items], out=tmp_path / "batch.parquet", judge=judge, ledger=tmp_path / ledger, cache_dir=tmp_path / "cache"
    )


def test_a_batch_gives_the_labels_of_an_online_run(tmp_path):
    """The result lines come shuffled; afterwards an online run finds everything in the cache."""
    items = write_items(tmp_path / "items.jsonl", 40)
    with LLMServer(Faults(batch_polls=2)) as server:
        judge = judge_at(server)
        entries = submit([items], judge=judge, ledger=tmp_path / "ledger", cache_dir=tmp_path / "cache")
        result, summary = collected(tmp_path, judge, items)
        again = label([items], out=tmp_path / "again.parquet", judge=judge, cache_dir=tmp_path / "cache")
        stats = server.stats()
    assert [entry.lines for entry in entries] == [40]
    assert (result.answers, summary.labelled, summary.failed) == (40, 40, 0)
    assert (again.requests, again.cached) == (0, 40)
    assert (stats.batches, stats.requests) == (1, 0)
    assert labels_of(pl.read_parquet(tmp_path / "batch.parquet")).equals(labels_of(online(tmp_path, items)))


def test_a_shuffled_and_partly_failed_result_gives_the_labels_of_an_online_run(tmp_path):
    """Row by row those that came; and all of them once the rest was submitted again."""
    items = write_items(tmp_path / "items.jsonl", 50)
    wanted = labels_of(online(tmp_path, items))
    with LLMServer(Faults(seed=4, batch_failed=0.2, batch_expired=0.1)) as server:
        judge = judge_at(server)
        submit([items], judge=judge, ledger=tmp_path / "ledger", cache_dir=tmp_path / "cache")
        _, summary = collected(tmp_path, judge, items)
        partly = labels_of(pl.read_parquet(tmp_path / "batch.parquet"))
        server.configure(Faults())
        submit([items], judge=judge, ledger=tmp_path / "ledger", cache_dir=tmp_path / "cache")
        collected(tmp_path, judge, items)
    whole = labels_of(pl.read_parquet(tmp_path / "batch.parquet"))
    came = partly["status"] == "ok"

    assert 0 < summary.failed < 50
    assert partly["record_id"].to_list() == wanted["record_id"].to_list()
    assert partly.filter(came).equals(wanted.filter(came))
    assert whole.equals(wanted)
    assert whole.write_ndjson() == wanted.write_ndjson()


@pytest.mark.parametrize("strategy", ["json_schema", "tools", "json_object"])
def test_lines_have_the_documented_shape(tmp_path, strategy):
    """The four fields of a line; a body of known parameters, each of the type that the openai package documents."""
    from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
    from pydantic import TypeAdapter

    hints = get_type_hints(CompletionCreateParamsNonStreaming)
    items = write_items(tmp_path / "items.jsonl", 3, {2: 'Quotes " and \\ and \u2028, \U0001f600 and a lone \ud800.'})
    judge = judge_at("http://127.0.0.1:9/v1", strategy=strategy, sampling=Sampling(seed=7, logprobs=True))
    to_file([items], tmp_path / "requests.jsonl", judge=judge, cache_dir=tmp_path / "cache")
    lines = (tmp_path / "requests.jsonl").read_bytes().splitlines(keepends=True)

    assert len(lines) == 3
    for line in lines:
        assert line.endswith(b"}\n")
        request = json.loads(line)
        assert list(request) == ["custom_id", "method", "url", "body"]
        assert request["method"] == "POST"
        assert request["url"] == "/v1/chat/completions"
        assert re.fullmatch("[0-9a-f]{64}", request["custom_id"])
        body = request["body"]
        assert set(body) <= set(hints)
        for name in set(body) - {"messages", "tools"}:  # those two are Iterable, which pydantic would not look into
            TypeAdapter(hints[name]).validate_python(body[name], strict=True)
        for message in body["messages"]:
            TypeAdapter(ChatCompletionMessageParam).validate_python(message)
        for tool in body.get("tools", ()):
            TypeAdapter(ChatCompletionToolUnionParam).validate_python(tool)
        assert {"model", "messages", "max_completion_tokens", "seed", "logprobs"} <= set(body)


@pytest.mark.parametrize(
    ("model", "sent"),
    [("gpt-4.1-mini", 0.0), ("gpt-5-chat-latest", 0.0), ("gpt-5-mini", None), ("o4-mini", None), ("olmo-3", 0.0)],
)
def test_a_model_that_refuses_a_temperature_gets_none(tmp_path, model, sent):
    """Online the first refusal teaches it; a batch would be refused as a whole a day later. The key stays the same."""
    items = write_items(tmp_path / "items.jsonl", 1)
    judge = judge_at("http://127.0.0.1:9/v1", spec=f"openai:{model}")
    to_file([items], tmp_path / "r.jsonl", judge=judge, cache_dir=tmp_path / "cache")
    request = json.loads((tmp_path / "r.jsonl").read_text())
    (window,) = (
        make_window(shard, 0, batch, fingerprint(judge.identity), message=judge.prompt.user)
        for shard in find_shards([items])
        for batch in read_records(shard, kind="item")
    )
    assert request["body"].get("temperature") == sent
    assert [request["custom_id"]] == window.keys


def test_what_an_online_run_learnt_of_an_endpoint_holds_for_its_batches(tmp_path):
    """One record online is enough; here the endpoint knows neither a temperature nor a strict schema."""
    items = write_items(tmp_path / "items.jsonl", 8)
    with LLMServer(Faults(rejects=["temperature", "json_schema"])) as server:
        memory = {"cache_dir": tmp_path / "cache"}
        with pytest.raises(StoppedEarly):
            label([items], out=tmp_path / "one.parquet", judge=judge_at(server, **memory), budget=Budget(max_records=1),
                  **memory)  # fmt: skip
        judge = judge_at(server, **memory)
        submit([items], judge=judge, ledger=tmp_path / "ledger", **memory)
        _, summary = collected(tmp_path, judge, items)
    sent = json.loads((tmp_path / "ledger" / "requests-0000.jsonl").read_text().splitlines()[0])["body"]
    assert (summary.labelled, summary.failed) == (8, 0)
    assert "temperature" not in sent
    assert "tools" in sent


def test_failed_and_expired_lines_are_named_and_submitted_again_alone(tmp_path):
    """The second submission holds exactly the lines that the first one left without an answer."""
    items = write_items(tmp_path / "items.jsonl", 60)
    with LLMServer(Faults(batch_failed=0.2, batch_expired=0.2)) as server:
        judge = judge_at(server)
        submit([items], judge=judge, ledger=tmp_path / "ledger", cache_dir=tmp_path / "cache")
        first, summary = collected(tmp_path, judge, items)
        server.configure(Faults())
        entries = submit([items], judge=judge, ledger=tmp_path / "ledger", cache_dir=tmp_path / "cache")
        _, whole = collected(tmp_path, judge, items)
        lines = server.stats().batch_lines

    assert summary.failed == 60 - first.answers > 10
    assert set(summary.failures) == {"batch_error", "batch_expired"}
    assert [entry.lines for entry in entries] == [60, 60 - first.answers]
    assert whole.labelled == 60
    assert lines <= 60 + 60 - first.answers


@pytest.mark.parametrize("lost", ["POST /v1/files", "POST /v1/batches"])
def test_a_kill_while_submitting_submits_nothing_twice(tmp_path, lost):
    """The reply is lost, as when the process dies just then; the next call finds the batch that was made."""
    items = write_items(tmp_path / "items.jsonl", 5)
    with LLMServer(Faults(lost_replies={lost: 3})) as server:
        judge = judge_at(server)
        with pytest.raises(Exception, match="batch service"):
            submit([items], judge=judge, ledger=tmp_path / "ledger", cache_dir=tmp_path / "cache")
        made = server.stats().batches
        server.configure(Faults())
        for _ in range(2):
            submit([items], judge=judge, ledger=tmp_path / "ledger", cache_dir=tmp_path / "cache")
        stats = server.stats()
        _, summary = collected(tmp_path, judge, items)
    assert made == (1 if lost.endswith("batches") else 0)
    assert stats.batches == 1
    assert summary.labelled == 5


def answer_lines(requests, answers):
    """Result lines as a runner would write them: shuffled, some of them failures in the shapes in use."""
    lines = []
    for k, request in enumerate(requests):
        body = {"model": "m", "choices": [{"finish_reason": "stop", "message": {"content": json.dumps(answers)}}]}
        line = {"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}
        if k == 0:
            error = {"message": "too many tokens", "code": 400}
            line |= {"response": {"status_code": 400, "body": None}, "error": error}
        if k == 1:
            line |= {"response": None, "error": "engine died"}
        if k == 2:
            line["response"]["body"]["choices"][0]["message"] = {"content": None, "refusal": "No."}
        lines.append(json.dumps(line) + "\n")
    random.Random(1).shuffle(lines)
    return lines


def test_files_for_other_runners_go_out_and_come_back(tmp_path):
    """The requests are those of the Batch API; results in two files and any order are joined by id."""
    from test_label import LABEL

    items = write_items(tmp_path / "items.jsonl", 12)
    judge = judge_at("http://127.0.0.1:9/v1")
    assert to_file([items], tmp_path / "requests.jsonl", judge=judge, cache_dir=tmp_path / "cache") == 12
    requests = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    for request in requests:
        assert set(request) == {"custom_id", "method", "url", "body"}
        assert (request["method"], request["url"], len(request["custom_id"])) == ("POST", "/v1/chat/completions", 64)
        assert request["body"]["model"] == "test-model"
        assert request["body"]["response_format"]["json_schema"]["strict"] is True

    lines = answer_lines(requests, LABEL)
    (tmp_path / "one.jsonl").write_text("".join(lines[:5]))
    (tmp_path / "two.jsonl").write_text("".join(lines[5:]))
    files = [tmp_path / "two.jsonl", tmp_path / "one.jsonl"]
    result, summary = from_file(files, [items], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache")

    table = pl.read_parquet(tmp_path / "l.parquet")
    assert result.failures == {"batch_error": 1, "refusal": 1, "too_long": 1}
    assert (result.answers, summary.labelled, summary.failed) == (9, 9, 3)
    assert table["error"].to_list()[:4] == ["too_long", "batch_error", "refusal", None]


def test_a_line_that_is_no_result_is_named(tmp_path):
    """A request file given by mistake, or a broken line."""
    items = write_items(tmp_path / "items.jsonl", 1)
    (tmp_path / "r.jsonl").write_text("{}\n")
    judge = judge_at("http://127.0.0.1:9/v1")
    file, out = tmp_path / "r.jsonl", tmp_path / "l.parquet"
    with pytest.raises(BadInput, match=r"r\.jsonl:1: this line is no batch result"):
        from_file([file], [items], out=out, judge=judge, cache_dir=tmp_path / "cache")


def test_no_input_is_overwritten_by_requests(tmp_path):
    """A slip of --to-file costs nothing."""
    items = tmp_path / "items.jsonl"
    items.write_text(json.dumps({"id": "1", "prompt": "How many?"}) + "\n")
    before = items.read_bytes()
    options = f"--kind item --judge openai:m --base-url http://127.0.0.1:9/v1 --cache-dir {tmp_path / 'cache'}".split()
    command = [sys.executable, "-m", "annotator", "batch", "submit", str(items), *options, "--to-file", str(items)]
    environment = os.environ | {"OPENAI_API_KEY": "test"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "is one of the inputs" in done.stderr
    assert items.read_bytes() == before
