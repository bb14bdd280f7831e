"""How an endpoint wants to be asked is found out once, remembered, and found out anew when it is no longer true."""

from __future__ import annotations

import time

import polars as pl
import pytest
from llm_faults import Faults
from llm_server import LLMServer
from test_label import judge_at, write_items

from annotator.judges.faults import Fault
from annotator.judges.manner import Learner, Manner, Memory
from annotator.label import label

ENTRY = '{"form": 1, "endpoints": {"http://a/v1 m": {%s}}}'
TOOLS = Manner("tools", frozenset({"seed"}), "max_tokens")


def refused(detail: str) -> Fault:
    """A 400 with these words."""
    return Fault("row", "rejected", detail, 400)


def run(folder, server, name, **options):
    """Labels four records of their own, so that each run asks; (outcomes of the server by then, strategies)."""
    items = write_items(folder / f"{name}.jsonl", 4, {k: f"{name}, record {k}" for k in range(4)})
    before = server.stats().outcomes
    judge = judge_at(server, cache_dir=folder / "cache", **options)
    label([items], out=folder / f"{name}.parquet", judge=judge, cache_dir=folder / "cache")
    return dict(server.stats().outcomes - before), set(pl.read_parquet(folder / f"{name}.parquet")["strategy"])


def test_the_second_run_asks_as_the_first_one_learnt(tmp_path):
    """Refused requests are sent by the first run only; each row says how it was asked."""
    with LLMServer(Faults(rejects=["json_schema", "max_completion_tokens"])) as server:
        first, strategies = run(tmp_path, server, "first")
        second, again = run(tmp_path, server, "second")
    assert first["rejected"] >= 2
    assert second == {"ok": 4}
    assert strategies == again == {"tools"}


def test_a_memory_that_the_endpoint_refuses_mends_itself(tmp_path):
    """Upgraded or replaced behind the same address: everything is found out anew, and remembered."""
    with LLMServer(Faults(rejects=["json_schema"])) as server:
        _, before = run(tmp_path, server, "first")
        server.configure(Faults(rejects=["tools"]))
        mended, after = run(tmp_path, server, "second")
        calm, again = run(tmp_path, server, "third")
    assert (before, after, again) == ({"tools"}, {"json_schema"}, {"json_schema"})
    assert mended["ok"] == 4
    assert calm == {"ok": 4}


def test_a_strategy_of_the_users_is_kept_to_and_not_remembered(tmp_path):
    """It says nothing of what is best."""
    with LLMServer() as server:
        _, chosen = run(tmp_path, server, "first", strategy="json_object")
        _, free = run(tmp_path, server, "second")
    assert (chosen, free) == ({"json_object"}, {"json_schema"})


def test_a_memory_is_of_one_address_and_model_and_ages(tmp_path):
    """After a month the best strategy is tried again."""
    memory = Memory(tmp_path, "http://a/v1", "m")
    memory.keep(TOOLS)
    now = time.time()
    assert memory.recall() == TOOLS
    assert Memory(tmp_path, "http://b/v1", "m").recall() is None
    assert Memory(tmp_path, "http://a/v1", "n").recall() is None
    assert memory.recall(now + 29 * 86_400) == TOOLS
    assert memory.recall(now + 31 * 86_400) is None
    Memory(tmp_path, "http://b/v1", "m").keep(Manner())
    assert memory.recall() == TOOLS


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"form": 99}', '{"form": 1}', '{"form": 1, "endpoints": []}',
     ENTRY % '"strategy": "prayer", "dropped": [], "tokens_field": "max_tokens", "time": 1',
     ENTRY % '"strategy": [], "dropped": 3, "tokens_field": {}, "time": "x"'],
)  # fmt: skip
def test_a_damaged_or_foreign_memory_is_an_empty_one(tmp_path, content):
    """Nothing is worth less than an hour of somebody's time because of it."""
    (tmp_path / "endpoints.json").write_text(content)
    memory = Memory(tmp_path, "http://a/v1", "m")
    assert memory.recall() is None
    memory.keep(TOOLS)
    assert memory.recall() == TOOLS


def test_an_unwritable_memory_is_none(tmp_path):
    """The run goes on."""
    (tmp_path / "file").write_text("")
    memory = Memory(tmp_path / "file", "http://a/v1", "m")
    memory.keep(TOOLS)
    assert memory.recall() is None


def test_refusals_lead_down_the_ladder_to_its_end_and_no_further():
    """Each in words that name the form; a plain refusal changes nothing."""
    learner = Learner("auto", None)
    assert not learner.adapt(learner.manner, refused("no"))
    for strategy in ("tools", "json_object"):
        assert learner.adapt(learner.manner, refused("response_format is not supported"))
        assert learner.manner.strategy == strategy
    assert not learner.adapt(learner.manner, refused("response_format is not supported"))
    assert learner.manner.strategy == "json_object"


def test_fields_are_dropped_one_by_one_and_the_limit_gets_its_other_name_first():
    """As reasoning models and old servers ask for."""
    learner = Learner("json_schema", None)
    for words, field, dropped in (
        ("Unsupported parameter: 'max_completion_tokens'", "max_tokens", set()),
        ("Unrecognized request argument supplied: temperature", "max_tokens", {"temperature"}),
        ("Unknown field max_tokens", "max_tokens", {"temperature", "max_tokens"}),
    ):
        assert learner.adapt(learner.manner, refused(words))
        assert learner.manner == Manner("json_schema", frozenset(dropped), field)
    assert not learner.adapt(learner.manner, refused("Unknown field max_tokens"))


@pytest.mark.parametrize(
    ("reason", "words", "dropped"),
    [
        ("rejected", "Logprobs is not enabled for models/gemini-2.5-pro", True),
        ("forbidden", "You are not allowed to request logprobs from this model.", True),
        ("forbidden", "You are not allowed to sample from this model.", False),
        ("rejected", "Invalid value for 'messages'.", False),
        ("server_error", "unknown field logprobs", False),
    ],
)
def test_a_field_is_dropped_only_when_it_is_named_as_what_is_wrong(reason, words, dropped):
    """In the words of Gemini and of OpenAI, which says it with 403."""
    learner = Learner("auto", None)
    assert learner.adapt(learner.manner, Fault("row", reason, words, 400)) is dropped
    assert learner.manner.dropped == ({"logprobs"} if dropped else set())


def test_six_invalid_answers_and_no_valid_one_end_a_strategy():
    """One valid answer proves it for good."""
    learner, proven = Learner("auto", None), Learner("auto", None)
    proven.heard("json_schema", valid=True)
    for _ in range(6):
        learner.heard("json_schema", valid=False)
        proven.heard("json_schema", valid=False)
    assert (learner.manner.strategy, proven.manner.strategy) == ("tools", "json_schema")


def test_what_was_refused_in_a_manner_given_up_meanwhile_is_sent_again():
    """Requests in flight while another learnt."""
    learner = Learner("auto", None)
    old = learner.manner
    assert learner.adapt(old, refused("json_schema is not supported"))
    assert learner.adapt(old, refused("json_schema is not supported"))
    assert learner.manner.strategy == "tools"
