"""The misbehaving test server, met by real clients: every fault looks from outside as it does at a provider."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal

import aiohttp
import openai
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_answers import instance, record_hash, record_text, strict_schema_problem
from llm_book import Bucket, duration
from llm_faults import BAD_REPLIES, FAULTS, ODD_REPLIES, TRANSPORT_FAULTS, Faults
from llm_server import LLMServer
from openai import AsyncAzureOpenAI, AsyncOpenAI
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from annotator.prompts import load_prompt
from annotator.schema import label_model, strict_json_schema
from annotator.taxonomy import KINDS, load_taxonomy

TAXONOMY = load_taxonomy()
SCHEMA = strict_json_schema(TAXONOMY, "item")
PROMPT = load_prompt("item", TAXONOMY)
STRICT = {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": SCHEMA}}
RECORD = "A farmer has 17 sheep and all but 9 run away. How many are left?"
LATE, HUNG = 0.05, 0.3


@pytest.fixture(scope="module")
def server():
    """One server for the tests that do not count; each sets its own faults."""
    with LLMServer() as running:
        yield running


def body(record: str = RECORD, **more: Any) -> dict[str, Any]:
    """A request of our own kind."""
    system, user = {"role": "system", "content": PROMPT.system}, {"role": "user", "content": PROMPT.user(record)}
    return {"model": "m", "messages": [system, user], "response_format": STRICT} | more


def ask(server: LLMServer, *bodies: dict[str, Any], timeout: float = 10, key: str = "sk-test") -> list[Any]:
    """Replies of `chat.completions.create`, all asked at once without retries; an exception is a reply."""

    async def run() -> list[Any]:
        async with AsyncOpenAI(base_url=server.base_url, api_key=key, max_retries=0, timeout=timeout) as client:
            asked = (client.chat.completions.create(**each) for each in bodies or (body(),))
            return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(run())


def raw(
    server: LLMServer, *bodies: Any, method: str = "POST", path: str = "/v1/chat/completions", timeout: float = 10
) -> list[Any]:
    """(status, headers, bytes) of one raw request after the other; an exception is a reply."""

    async def run() -> list[Any]:
        replies: list[Any] = []
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client:
            for each in bodies or (body(),):
                data = each if isinstance(each, bytes) else orjson.dumps(each)
                try:
                    async with client.request(method, path, data=data, timeout=aiohttp.ClientTimeout(timeout)) as reply:
                        replies.append((reply.status, reply.headers, await reply.read()))
                except (aiohttp.ClientError, TimeoutError) as error:
                    replies.append(error)
        return replies

    return asyncio.run(run())


def label(reply: Any) -> Any:
    """The validated label in a reply."""
    return label_model(TAXONOMY, "item").model_validate_json(reply.choices[0].message.content)


# --- Answers


@pytest.mark.parametrize("kind", KINDS)
@given(record=st.text(max_size=300))
@settings(max_examples=50, deadline=None)
def test_an_answer_is_a_valid_label_with_a_verbatim_quote(kind, record):
    """Whatever the record: the answer validates, and its evidence stands in the record."""
    answer = instance(strict_json_schema(TAXONOMY, kind), record)
    label_model(TAXONOMY, kind).model_validate(answer)
    assert answer["evidence"] in record
    assert answer == instance(strict_json_schema(TAXONOMY, kind), record)


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid")
    colour: Literal["red", "green"]
    weight_kg: float = Field(ge=0.5, lt=2)
    count: int = Field(gt=3, le=4)
    below: int = Field(le=-5)
    even: int = Field(multiple_of=2, ge=3)
    note: str | None
    code: str = Field(min_length=30, max_length=30)


class Tree(BaseModel):
    model_config = ConfigDict(extra="forbid")
    flags: list[bool] = Field(min_length=2, max_length=2)
    leaves: dict[str, int] | Leaf
    many: list[Leaf] = Field(min_length=5)
    branches: list[Tree]


@given(record=st.text(max_size=50))
@settings(max_examples=50, deadline=None)
def test_an_answer_is_valid_for_any_schema(record):
    """References, recursion, unions, bounds and lengths."""
    answer = instance(Tree.model_json_schema(), record)
    Tree.model_validate(answer)
    TypeAdapter(list[Leaf]).validate_python(answer["many"])


def test_the_same_record_gets_the_same_answer_by_every_strategy(server):
    """Strict schema, strict tool, schema in the prompt: one label, so a fallback changes nothing."""
    server.configure(Faults())
    tool = {"type": "function", "function": {"name": "label", "strict": True, "parameters": SCHEMA}}
    described = body(response_format={"type": "json_object"})
    described["messages"][0]["content"] += f"\nAnswer with JSON of this schema:\n{json.dumps(SCHEMA)}"
    choice = {"type": "function", "function": {"name": "label"}}
    by_tool = body(tools=[tool], tool_choice=choice)
    del by_tool["response_format"]
    strict, again, called, free = ask(server, body(), body(), by_tool, described)

    assert label(strict) == label(again) == label(free)
    call = called.choices[0].message.tool_calls[0].function
    assert (call.name, json.loads(call.arguments)) == ("label", json.loads(strict.choices[0].message.content))
    assert label(ask(server, body("Another record: sort 3, 1, 2."))[0]) != label(strict)


def test_a_reask_is_about_the_same_record():
    """A word about the error, outside the fence or as a further message, does not make a new record."""
    first = body()["messages"]
    longer = [*first[:1], {"role": "user", "content": first[1]["content"] + "\nYour last answer was invalid."}]
    appended = [*first, {"role": "assistant", "content": "{}"}, {"role": "user", "content": "task_type is missing"}]
    assert record_text(first) == record_text(longer) == record_text(appended) == RECORD
    assert record_hash(RECORD) in first[1]["content"]
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "you"}]}]
    assert record_text(parts) == "Hello you"


def test_an_answer_may_be_scripted():
    """A callable gets the body; what it returns is the answer, and what it raises is told by the books."""
    with LLMServer(answer=lambda sent: {"model": sent["model"]}) as scripted:
        assert ask(scripted)[0].choices[0].message.content == '{"model":"m"}'
    with LLMServer(answer=lambda sent: sent["no such key"]) as scripted:
        assert raw(scripted)[0][0] == 500
        assert scripted.stats().outcomes == {"server_bug": 1}


def test_usage_counts_cached_prefixes_apart(server):
    """Four characters a token; the repeated static prefix is cached in steps of 128 tokens."""
    server.configure(Faults())
    prefix = {"role": "system", "content": "x" * 4 * 1200}
    first, second = (
        ask(server, {"model": "m", "messages": [prefix, {"role": "user", "content": "y" * 400}]})[0] for _ in range(2)
    )
    assert first.usage.prompt_tokens == second.usage.prompt_tokens == 1200 + 100 + 8
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens == 1152
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens


def test_several_choices_and_log_probabilities_are_served(server):
    """`n` gives choices of which each is valid; log-probabilities spell the answer."""
    server.configure(Faults())
    reply = ask(server, body(n=5, logprobs=True))[0]
    contents = [choice.message.content for choice in reply.choices]
    assert len(contents) == 5
    assert len(set(contents)) > 1
    for content, choice in zip(contents, reply.choices):
        label_model(TAXONOMY, "item").model_validate_json(content)
        assert "".join(token.token for token in choice.logprobs.content) == content


def test_the_azure_path_and_the_list_of_models_are_served(server):
    """Azure names the deployment in the path and sends the key in a header of its own."""
    server.configure(Faults(api_key="right"))

    async def run(key: str) -> Any:
        endpoint = f"http://127.0.0.1:{server.port}"
        async with AsyncAzureOpenAI(azure_endpoint=endpoint, api_version="v1", api_key=key, max_retries=0) as client:
            return await client.chat.completions.create(**body(model="deployed"))

    assert asyncio.run(run("right")).model == "deployed"
    with pytest.raises(openai.AuthenticationError):
        asyncio.run(run("wrong"))
    server.configure(Faults())
    assert json.loads(raw(server, b"", method="GET", path="/v1/models")[0][2])["data"][0]["id"] == "test-model"
    assert raw(server, path="/v1/embeddings")[0][0] == 404


# --- Faults

STATUS_OF = {
    "http_408": 408, "http_409": 409, "http_500": 500, "http_500_html": 500, "http_502": 502, "http_502_html": 502,
    "http_503": 503, "http_503_html": 503, "bad_request": 400, "context_length": 400, "unauthorized": 401,
    "forbidden": 403, "model_not_found": 404, "too_large": 413, "rate_limited": 429, "rate_limited_date": 429,
    "rate_limited_ms": 429, "rate_limited_bare": 429, "insufficient_quota": 429,
}  # fmt: skip


def test_every_fault_has_its_place():
    """No fault goes untested below."""
    assert set(STATUS_OF) | TRANSPORT_FAULTS | BAD_REPLIES | ODD_REPLIES == FAULTS
    assert len(STATUS_OF) + len(TRANSPORT_FAULTS) + len(BAD_REPLIES) + len(ODD_REPLIES) == len(FAULTS)


@pytest.mark.parametrize("fault", STATUS_OF)
def test_a_refused_request_is_an_http_error(server, fault):
    """The client raises the error of that status; a gateway's page is HTML, all else is OpenAI's JSON."""
    server.configure(Faults(markers={"sheep": fault}))
    (error,) = ask(server)
    assert isinstance(error, openai.APIStatusError)
    assert error.status_code == STATUS_OF[fault]
    assert (error.response.headers["content-type"] == "text/html") == fault.endswith("_html")
    if fault in ("context_length", "insufficient_quota", "model_not_found"):
        assert error.code == {"context_length": "context_length_exceeded"}.get(fault, fault)


def test_a_429_says_in_four_ways_when_to_come_again(server):
    """Seconds, milliseconds, a date, nothing."""
    kinds = {f"R{at}": f"rate_limited{kind}" for at, kind in enumerate(("", "_ms", "_date", "_bare"))}
    server.configure(Faults(markers=kinds, retry_after_s=2.5))
    seconds, milliseconds, date, bare = (reply[1] for reply in raw(server, *(body(name) for name in kinds)))
    assert (seconds["retry-after"], milliseconds["retry-after-ms"]) == ("2.5", "2500")
    assert 0 < parsedate_to_datetime(date["retry-after"]).timestamp() - time.time() < 4
    assert not {"retry-after", "retry-after-ms"} & set(map(str.lower, bare))


@pytest.mark.parametrize("fault", sorted(TRANSPORT_FAULTS))
def test_a_broken_connection_is_no_answer(fault):
    """openai's client and a bare one both raise, and the server counts nothing as paid."""
    with LLMServer(Faults(rates={fault: 1})) as server:
        assert isinstance(ask(server, timeout=HUNG)[0], openai.APIConnectionError)
        seen = raw(server, timeout=HUNG)[0]
        expected = {
            "hang": TimeoutError,
            "reset": (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError),
            "reset_in_body": (aiohttp.ClientPayloadError, aiohttp.ClientOSError),
            "cut_in_body": aiohttp.ClientPayloadError,
        }
        assert isinstance(seen, expected[fault])
        assert server.stats().outcomes[fault] == 2
        assert not server.stats().answered
        assert server.stats().completion_tokens == 0


@pytest.mark.parametrize("fault", sorted(BAD_REPLIES))
def test_a_bad_reply_is_complete_and_paid_but_no_label(fault):
    """Status 200, counted in the bill, and nothing in it validates as a label."""
    with LLMServer(Faults(rates={fault: 1})) as server:
        status, _, content = raw(server)[0]
        assert status == 200
        assert server.stats().completion_tokens > 0
        assert not server.stats().answered
    if fault == "html_200":
        assert b"<html>" in content
        return
    reply = json.loads(content)
    if fault in ("error_200", "empty_choices"):
        assert not reply.get("choices")
        return
    choice = reply["choices"][0]
    reasons = {"length": "length", "content_filter": "content_filter"}
    assert choice["finish_reason"] == reasons.get(fault, "stop")
    assert bool(choice["message"]["refusal"]) == (fault == "refusal")
    with pytest.raises(ValidationError) as raised:
        label_model(TAXONOMY, "item").model_validate_json(choice["message"]["content"] or "")
    errors = {each["type"] for each in raised.value.errors()}
    fields = {"wrong_enum": "literal_error", "wrong_type": "literal_error", "extra_field": "extra_forbidden"}
    fields |= {"missing_field": "missing", "duplicate_item": "value_error"}
    assert errors == {fields.get(fault, "json_invalid")}


@pytest.mark.parametrize("fault", sorted(ODD_REPLIES))
def test_an_odd_reply_is_a_right_answer(fault):
    """Late, in drips, or with nonsense for usage: the label is the label of a calm server."""
    with LLMServer(Faults(rates={fault: 1}, late_s=LATE, drip_s=LATE)) as server:
        began = time.monotonic()
        odd = raw(server)[0][2]
        took = time.monotonic() - began
        assert len(server.stats().answered) == 1
        server.configure(Faults())
        calm = raw(server)[0][2]
    assert json.loads(odd)["choices"] == json.loads(calm)["choices"]
    if fault in ("late", "slow_drip"):
        assert took >= LATE
    else:
        assert json.loads(odd).get("usage") != json.loads(calm)["usage"]


def test_a_late_answer_is_overtaken(server):
    """Answers come out of the order of the questions."""
    server.configure(Faults(markers={"first": "late"}, late_s=0.5))
    order: list[str] = []

    async def run() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:

            async def one(name: str) -> None:
                await client.chat.completions.create(**body(name))
                order.append(name)

            await asyncio.gather(one("first"), one("second"), one("third"))

    asyncio.run(run())
    assert order[-1] == "first"


def test_faults_hit_as_often_as_said_and_the_same_ones_every_time():
    """Decided by seed, record and attempt alone: a second server and another order change nothing."""
    faults = Faults(seed=3, rates={"http_503": 0.2, "refusal": 0.1})
    records = [f"{at:016x}" for at in range(5000)]
    drawn = [faults.fault(record, "", 1) for record in records]
    counts = Counter(drawn)
    assert counts["http_503"] == pytest.approx(1000, abs=100)
    assert counts["refusal"] == pytest.approx(500, abs=75)
    assert drawn[::-1] == [faults.fault(record, "", 1) for record in reversed(records)]
    assert drawn != [faults.fault(record, "", 2) for record in records]
    assert drawn != [Faults(seed=4, rates=faults.rates).fault(record, "", 1) for record in records]


def test_faults_can_be_kept_to_first_attempts_and_scripted_by_marker(server):
    """What fails at first succeeds later; a list gives each attempt its fault."""
    server.configure(Faults(rates={"http_500": 1}, first_attempts=2))
    assert [status for status, _, _ in raw(server, *[body("Kept short.")] * 4)] == [500, 500, 200, 200]
    server.configure(Faults(markers={"POISON": "forbidden", "BUMPY": ["http_503", "", "too_large"]}))
    assert [status for status, _, _ in raw(server, *[body("BUMPY road")] * 4)] == [503, 200, 413, 200]
    assert [status for status, _, _ in raw(server, *[body("POISON")] * 2, body("pure"))] == [403, 403, 200]


def test_a_mistyped_fault_is_refused():
    """With the name that was meant."""
    with pytest.raises(ValueError, match="Did you mean 'http_503'"):
        Faults(rates={"http503": 1})
    with pytest.raises(ValueError, match="more than 1"):
        Faults(rates={"reset": 0.7, "hang": 0.7})


def test_latency_is_fixed_or_lognormal():
    """Half of the answers come before the median, and the spread is the sigma of the logarithm."""
    assert Faults(latency_ms=50).latency_s("a", 1) == 0.05
    drawn = sorted(Faults(latency_ms=50, latency_sigma=0.5).latency_s(str(at), 1) for at in range(2001))
    assert drawn[1000] == pytest.approx(0.050, rel=0.05)
    assert drawn[int(2001 * 0.8413)] == pytest.approx(0.050 * 2.71828**0.5, rel=0.05)


# --- What old gateways lack, and what strict mode refuses


def test_unsupported_features_are_rejected_or_overlooked(server):
    """An old gateway answers 400, or prose."""
    server.configure(Faults(rejects=["json_schema", "tools", "max_completion_tokens"]))
    tool = {"type": "function", "function": {"name": "label", "parameters": SCHEMA}}
    plain = body(response_format={"type": "json_object"})
    refused = ask(server, body(), plain | {"tools": [tool]}, plain | {"max_completion_tokens": 9}, plain)
    assert [type(reply).__name__ for reply in refused] == ["BadRequestError"] * 3 + ["ChatCompletion"]
    assert refused[0].param == "response_format"
    server.configure(Faults(ignores=["json_schema"]))
    assert ask(server)[0].choices[0].message.content.startswith("The record speaks of")


def test_strict_schemas_are_checked_as_openai_does(server):
    """Every property required, nothing additional, no keyword outside the subset."""
    assert strict_schema_problem(SCHEMA) is None
    inner = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    outer = {"type": "object", "properties": {"x": inner}, "required": ["x"], "additionalProperties": False}
    assert "context=root.x, 'additionalProperties'" in strict_schema_problem(outer)
    assert "Missing 'a'" in strict_schema_problem(inner | {"required": [], "additionalProperties": False})
    assert "'allOf' is not permitted" in strict_schema_problem(inner | {"allOf": [], "additionalProperties": False})
    server.configure(Faults())
    loose = {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": outer}}
    (error,) = ask(server, body(response_format=loose))
    assert isinstance(error, openai.BadRequestError)
    assert "additionalProperties" in error.message
    assert raw(server, b"{not json")[0][0] == 400


# --- Rate limits


def test_requests_beyond_the_limit_get_429_and_every_answer_says_what_is_left():
    """Six a minute, two of them at once: the third is told to wait about ten seconds."""
    with LLMServer(Faults(rpm=6, burst_s=20, tpm=1e9)) as server:
        first, second, third = raw(server, body("a"), body("b"), body("c"))
        assert [first[0], second[0], third[0]] == [200, 200, 429]
        assert first[1]["x-ratelimit-limit-requests"] == "6"
        assert [reply[1]["x-ratelimit-remaining-requests"] for reply in (first, second, third)] == ["1", "0", "0"]
        assert re.fullmatch(r"[\d.]+m?s", first[1]["x-ratelimit-reset-requests"])
        assert first[1]["x-ratelimit-limit-tokens"] == "1000000000"
        assert {"x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"} <= set(first[1])
        assert 5000 < int(third[1]["retry-after-ms"]) <= 10_000
        assert 5 < int(third[1]["retry-after"]) <= 10
        raw(server, body("c"))
        stats = server.stats()
        assert stats.outcomes == {"ok": 2, "limited": 2}
        assert (stats.sent_in_cooldown, stats.retried_early) == (1, 1)
        assert sum(second[2] for second in stats.timeline.values()) == 2


def test_tokens_beyond_the_limit_get_429():
    """Prompt and answer are both taken from the bucket."""
    with LLMServer(Faults(tpm=6000)) as server:
        replies = raw(server, body("a"), body("b"), body("c"))
        assert [reply[0] for reply in replies] == [200, 429, 429]
        spent = json.loads(replies[0][2])["usage"]["total_tokens"]
        assert int(replies[0][1]["x-ratelimit-remaining-tokens"]) == pytest.approx(6000 - spent, abs=300)
        assert b"tokens per min" in replies[1][2]


def test_a_bucket_refills_steadily_and_serves_what_is_larger_than_itself_when_full():
    """Whoever asks for more than it holds waits for a full one, not for ever."""
    bucket = Bucket(600, burst_s=1)
    assert bucket.wait_s(1000) == 0
    bucket.take(20)
    assert bucket.wait_s(1) == pytest.approx(1.1, abs=0.5)
    assert [duration(of) for of in (0.02, 1.5, 360, 3661)] == ["20ms", "1.5s", "6m0s", "1h1m1s"]


# --- Books


def test_the_books_tell_who_asked_what_how_often():
    """Keys, answers by record, peak concurrency, tokens, and the last bodies."""
    with LLMServer(Faults(latency_ms=500)) as server:
        ask(server, *(body(f"record {at}") for at in range(20)))
        ask(server, body("record 0"), key="sk-other")
        stats = server.stats()
        assert stats.requests == sum(stats.outcomes.values()) == stats.outcomes["ok"] == 21
        assert stats.paid_twice == {record_hash("record 0"): 2}
        assert stats.attempts == stats.answered
        assert stats.keys == {"Bearer sk-test": 20, "Bearer sk-other": 1}
        assert 10 <= stats.peak_concurrency <= 20
        assert sum(second[1] for second in stats.timeline.values()) == 21
        assert [sent["messages"][1]["content"] for sent in server.requests(last=1)] == [PROMPT.user("record 0")]
        assert len(server.requests()) == 20


def test_an_answer_nobody_waited_for_is_not_counted_as_answered():
    """The client's time-out ends the request on the server too."""
    with LLMServer(Faults(latency_ms=60_000)) as server:
        assert isinstance(raw(server, timeout=HUNG)[0], TimeoutError)
        deadline = time.monotonic() + 5
        while not server.stats().outcomes and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.stats().outcomes == {"abandoned": 1}
        assert not server.stats().answered


CLIENT = """
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
for at in range(10**9):
    sent = {"model": "m", "messages": [{"role": "user", "content": f"record {at}"}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(sent))
    connection.getresponse().read()
    print(at, flush=True)
"""


def test_the_books_outlive_a_killed_client():
    """A server in a process of its own: `kill -9` of the client leaves the counts."""
    with LLMServer.spawn() as server:
        command = [sys.executable, "-c", CLIENT, str(server.port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
            received = [int(client.stdout.readline()) for _ in range(50)]
            os.kill(client.pid, signal.SIGKILL)
            received += [int(line) for line in client.stdout.read().split()]
        answered = server.stats().answered
        assert set(answered) >= {record_hash(f"record {at}") for at in received}
        assert len(answered) <= len(received) + 1
        assert not server.stats().paid_twice
        server.configure(latency_ms=1)
        with pytest.raises(RuntimeError, match="not a fault"):
            server._call("POST", "/__config", {"rates": {"nonsense": 1}})
    with pytest.raises(ConnectionRefusedError):
        server.stats()


def test_the_server_runs_by_hand():
    """One JSON line with the port on stdout; the options become faults."""
    options = ["--latency-ms", "1", "--rate", "http_500=0.5", "--marker", "A=B=http_503", "--rejects", "tools"]
    command = [sys.executable, Path(__file__).with_name("llm_server.py"), "--port", "0", "--seed", "7", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        server = LLMServer(port=json.loads(process.stdout.readline())["port"])
        config = server._call("POST", "/__config", {})
        process.terminate()
        assert process.wait(timeout=10) == 0
    assert (config["seed"], config["latency_ms"], config["rejects"]) == (7, 1, ["tools"])
    assert (config["rates"], config["markers"]) == ({"http_500": 0.5}, {"A=B": "http_503"})


# --- Batches


def line(name: str, sent: dict[str, Any]) -> bytes:
    """One line of a batch's input file."""
    return orjson.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": sent}) + b"\n"


async def submit(client: AsyncOpenAI, lines: bytes, **metadata: str) -> Any:
    """Upload and create."""
    file = await client.files.create(file=("in.jsonl", io.BytesIO(lines)), purpose="batch")
    endpoint = "/v1/chat/completions"
    return await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata=metadata
    )


async def results(client: AsyncOpenAI, file: str | None) -> list[dict[str, Any]]:
    """The lines of a result file."""
    return [json.loads(each) for each in (await client.files.content(file)).content.splitlines()] if file else []


def batches(server: LLMServer, run: Any) -> Any:
    """Runs `run(client)`."""

    async def main() -> Any:
        async with AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:
            return await run(client)

    return asyncio.run(main())


def test_a_batch_gives_the_labels_of_the_online_answers_in_another_order():
    """Failed and expired lines are in the error file; together they are all lines, once each."""
    records = {f"id-{at}": f"record {at}" for at in range(200)}
    with LLMServer(Faults(batch_polls=2, batch_failed=0.1, batch_expired=0.1)) as server:

        async def run(client: AsyncOpenAI) -> Any:
            made = await submit(client, b"".join(line(name, body(text)) for name, text in records.items()), run="r1")
            states = [made.status, *[(await client.batches.retrieve(made.id)).status for _ in range(2)]]
            done = await client.batches.retrieve(made.id)
            return states, done, await results(client, done.output_file_id), await results(client, done.error_file_id)

        states, done, output, errors = batches(server, run)
        online = dict(zip(records, ask(server, *(body(text) for text in records.values()))))
        stats = server.stats()
    assert states == ["validating", "in_progress", "expired"]
    assert (done.request_counts.total, done.request_counts.completed) == (200, len(output))
    assert sorted(each["custom_id"] for each in output + errors) == sorted(records)
    assert [each["custom_id"] for each in output] != sorted((each["custom_id"] for each in output), key=lambda n: n[3:])
    for each in output:
        sent, got = online[each["custom_id"]], each["response"]["body"]
        assert got["choices"][0]["message"]["content"] == sent.choices[0].message.content
    expired = [each for each in errors if each["response"] is None]
    assert {each["error"]["code"] for each in expired} == {"batch_expired"}
    assert {each["response"]["status_code"] for each in errors if each["response"]} == {500}
    assert 5 < len(expired) < 40
    assert 5 < len(errors) - len(expired) < 40
    assert (stats.batches, stats.batch_lines) == (1, len(output))


def test_a_batch_fails_for_bad_input_and_can_be_cancelled_listed_and_empty_of_errors(server):
    """Input faults show when the batch is looked at; what a cancelled one had finished is kept."""
    server.configure(Faults(batch_polls=1, batch_empty_error_file=True))

    async def run(client: AsyncOpenAI) -> None:
        for bad, code in [
            (line("a", body()) * 2, "duplicate_custom_id"),
            (line("a", body()) + line("b", body(model="other")), "mismatched_model"),
            (line("x" * 65, body()), "invalid_json_line"),
            (b"", "empty_file"),
        ]:
            failed = await client.batches.retrieve((await submit(client, bad)).id)
            assert (failed.status, [each.code for each in failed.errors.data]) == ("failed", [code])
        done = await client.batches.retrieve((await submit(client, line("a", body()), mark="7")).id)
        assert (done.status, done.error_file_id) == ("completed", "")
        four = b"".join(line(name, body()) for name in "abcd")
        cancelled = await client.batches.cancel((await submit(client, four)).id)
        assert cancelled.status == "cancelled"
        assert len(await results(client, cancelled.output_file_id)) == 2
        assert len(await results(client, cancelled.error_file_id)) == 2
        listed = [each async for each in client.batches.list(limit=2)]
        assert [each.id for each in listed] == [f"batch_{at:06d}" for at in range(6, 0, -1)]
        assert listed[1].metadata == {"mark": "7"}

    batches(server, run)


def test_a_reply_can_be_lost_after_the_deed():
    """The batch exists although its creation seemed to fail: whoever submits again without looking pays twice."""
    with LLMServer(Faults(lost_replies={"POST /v1/batches": 1})) as server:

        async def run(client: AsyncOpenAI) -> Any:
            with pytest.raises(openai.APIConnectionError):
                await submit(client, line("a", body()), fingerprint="f1")
            return [each.metadata async for each in client.batches.list()]

        assert batches(server, run) == [{"fingerprint": "f1"}]
        assert server.stats().batches == 1


def test_faults_reach_the_lines_of_a_batch(server):
    """A refusal is an output line, a context overflow an error line; hangs do not exist there."""
    server.configure(Faults(markers={"NO": "refusal", "LONG": "context_length", "HANG": "hang"}))

    async def run(client: AsyncOpenAI) -> Any:
        lines = line("no", body("NO")) + line("long", body("LONG")) + line("hang", body("HANG"))
        done = await client.batches.retrieve((await submit(client, lines)).id)
        return await results(client, done.output_file_id), await results(client, done.error_file_id)

    output, errors = batches(server, run)
    assert {each["custom_id"] for each in output} == {"no", "hang"}
    assert [(each["custom_id"], each["response"]["status_code"]) for each in errors] == [("long", 400)]
