"""Several votes on a record: how they are merged, what they cost, and what is kept of them."""

from __future__ import annotations

import math
import subprocess
import sys

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_faults import Faults
from llm_server import LLMServer
from test_label import LABEL, QUICK, TAXONOMY, judge_at, write_items

from annotator.errors import BadInput, ServiceFailure
from annotator.judges import Sampling, open_judge
from annotator.judges.confidence import confidence_of
from annotator.judges.merging import merge_votes
from annotator.label import estimate, label
from annotator.prompts import load_prompt

WARM = Sampling(temperature=0.7)
TASKS = TAXONOMY.values("task_type", "item")[:3]
OPERATIONS = TAXONOMY.values("solving_operation", "item")[:5]
VOTES = st.lists(
    st.fixed_dictionaries(
        {
            "evidence": st.sampled_from(["", "this", "that"]),
            "task_type": st.sampled_from(TASKS),
            "solving_operation": st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=3, unique=True),
        }
    ),
    min_size=1,
    max_size=7,
)


def vote(task: str, *operations: str, evidence: str = "") -> dict:
    """A label that matters in two axes."""
    return LABEL | {"task_type": task, "solving_operation": list(operations), "evidence": evidence}


def test_most_votes_win_an_axis_and_the_first_vote_breaks_a_tie():
    """The share is that of the least supported axis."""
    a, b, c = TASKS
    x, y, *_ = OPERATIONS
    merged, share = merge_votes([vote(a, x), vote(b, x), vote(b, x, y)])
    assert (merged["task_type"], merged["solving_operation"], share) == (b, [x], 2 / 3)
    merged, share = merge_votes([vote(c, x), vote(a, x), vote(a, x), vote(c, x)])
    assert (merged["task_type"], share) == (c, 1 / 2)


def test_an_operation_is_kept_when_more_than_half_name_it_best_first():
    """Of none with a majority the best stands alone; of equals the one further in front, then the first named."""
    a, *_ = TASKS
    x, y, z, v, w = OPERATIONS
    assert merge_votes([vote(a, x, y), vote(a, y, x), vote(a, y)])[0]["solving_operation"] == [y, x]
    assert merge_votes([vote(a, x, y), vote(a, z), vote(a, v, z)])[0]["solving_operation"] == [z]
    assert merge_votes([vote(a, x), vote(a, y), vote(a, z)])[0]["solving_operation"] == [x]
    assert merge_votes([vote(a, w, y), vote(a, y)])[0]["solving_operation"] == [y]
    assert merge_votes([vote(a, y, x), vote(a, x), vote(a, z, y)])[0]["solving_operation"] == [y, x]


def test_the_evidence_is_that_of_the_vote_that_agrees_most():
    """Quotes are not voted on."""
    a, b, _ = TASKS
    x, *_ = OPERATIONS
    votes = [vote(b, x, evidence="first"), vote(a, x, evidence="second"), vote(a, x, evidence="third")]
    assert merge_votes(votes)[0]["evidence"] == "second"


@given(VOTES)
def test_a_merged_label_is_a_label(votes):
    """Values come from the votes, operations are distinct and at most three, and the share is a probability."""
    merged, share = merge_votes(votes)
    assert list(merged) == list(votes[0])
    assert merged["task_type"] in {one["task_type"] for one in votes}
    assert merged["evidence"] in {one["evidence"] for one in votes}
    assert 1 <= len(set(merged["solving_operation"])) == len(merged["solving_operation"]) <= 3
    assert 0 < share <= 1


@given(VOTES, st.integers(2, 3))
def test_the_same_votes_several_times_over_say_the_same(votes, times):
    """Shares count, not numbers."""
    assert merge_votes(votes * times) == merge_votes(votes)


@given(VOTES)
def test_one_voice_repeated_by_a_majority_is_what_is_merged(votes):
    """Whatever the others say, and wherever it stands among them."""
    clear = {"evidence": "x", "task_type": TASKS[1], "solving_operation": [OPERATIONS[4], OPERATIONS[1]]}
    merged, _ = merge_votes([*votes, *[clear] * (len(votes) + 1)])
    assert merged["task_type"] == clear["task_type"]
    assert set(clear["solving_operation"]) <= set(merged["solving_operation"])


def drawn(body):
    """An answer that depends on the seed and the model: two of three votes say the first task type."""
    first = body.get("seed", 1) != 2 and body["model"] != "contrary"
    return LABEL | {"task_type": TASKS[0] if first else TASKS[1]}


def test_votes_are_paid_once_each_and_one_more_costs_one_more(tmp_path):
    """Each vote has a fingerprint of its own; the row holds the majority, and its share as the confidence."""
    items = write_items(tmp_path / "items.jsonl", 10)
    cache = tmp_path / "cache"
    with LLMServer(answer=drawn) as server:
        three = label([items], out=tmp_path / "a.parquet", cache_dir=cache,
                      judge=judge_at(server, sampling=WARM, votes=3, cache_dir=cache))  # fmt: skip
        bodies = server.requests(30)
        five = label([items], out=tmp_path / "b.parquet", cache_dir=cache,
                     judge=judge_at(server, sampling=WARM, votes=5, cache_dir=cache))  # fmt: skip
        again = label([items], out=tmp_path / "c.parquet", cache_dir=cache,
                      judge=judge_at(server, sampling=WARM, votes=3, cache_dir=cache))  # fmt: skip

    table = pl.read_parquet(tmp_path / "a.parquet")
    assert (three.requests, five.requests, again.requests) == (30, 20, 0)
    assert {(body["seed"], body["temperature"]) for body in bodies} == {(1, 0.7), (2, 0.7), (3, 0.7)}
    assert table["task_type"].unique().to_list() == [TASKS[0]]
    assert table["confidence"].unique().to_list() == [pytest.approx(2 / 3)]
    assert table["judge"].unique().to_list() == ["openai:test-model x3"]
    assert table["attempts"].unique().to_list() == [3]
    assert pl.read_parquet(tmp_path / "b.parquet")["confidence"].unique().to_list() == [pytest.approx(4 / 5)]


def test_judges_vote_together_on_what_they_were_paid_for_alone(tmp_path):
    """An answer of a run with one judge is a vote in a run with three."""
    items = write_items(tmp_path / "items.jsonl", 6)
    cache = tmp_path / "cache"
    specs = ["openai:a", "openai:contrary", "openai:b"]
    with LLMServer(answer=drawn) as server:
        alone = label([items], out=tmp_path / "a.parquet", cache_dir=cache, judge=judge_at(server, spec="openai:a"))
        panel = label([items], out=tmp_path / "b.parquet", cache_dir=cache,
                      judge=judge_at(server, spec=specs, cache_dir=cache))  # fmt: skip
    table = pl.read_parquet(tmp_path / "b.parquet")
    assert (alone.requests, panel.requests) == (6, 12)
    assert table["task_type"].unique().to_list() == [TASKS[0]]
    assert table["model"].unique().to_list() == ["a+b+contrary"]
    assert table["judge"].unique().to_list() == ["+".join(specs)]


@pytest.mark.parametrize(
    ("fault", "reason", "labelled"),
    [("refusal", "refusal", 3), (["refusal"], None, 4), (["refusal", "refusal"], "refusal", 3), ("hang", "timeout", 3)],
)
def test_a_panel_bears_abstentions_of_less_than_half_and_no_open_votes(tmp_path, fault, reason, labelled):
    """A refusal is an answer of its judge; a time-out is none of anybody, and the record can be tried again."""
    items = write_items(tmp_path / "items.jsonl", 4)
    pace = QUICK.__class__(concurrency=4, attempts=1, first_wait_s=0.01, timeout_s=0.5)
    with LLMServer(Faults(markers={"Question number 2.": fault})) as server:
        judge = judge_at(server, sampling=WARM, votes=3, pace=pace, cache_dir=tmp_path / "cache")
        done = label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache")
        asked = server.stats().requests
        server.configure(Faults())
        again = label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache", retry_failed=True)

    assert (done.labelled, done.failures) == (labelled, {reason: 1} if reason else {})
    assert done.requests == asked == 12
    # What was valid is kept: only the open votes of the failed record are asked for again.
    assert again.requests == {"refusal": 3 - (fault == ["refusal", "refusal"]), "timeout": 3, None: 0}[reason]


def test_a_wrong_key_stops_a_panel_like_any_judge(tmp_path):
    """One voter is enough to know."""
    items = write_items(tmp_path / "items.jsonl", 4)
    with LLMServer(Faults(api_key="another")) as server, pytest.raises(ServiceFailure, match="unauthorized"):
        label([items], out=tmp_path / "l.parquet", cache_dir=None, judge=judge_at(server, sampling=WARM, votes=3))


def test_a_forecast_of_a_panel_counts_every_vote(tmp_path):
    """Three votes take three times the tokens of one."""
    items = write_items(tmp_path / "items.jsonl", 20)
    with LLMServer() as server:
        one = estimate([items], judge=judge_at(server, spec="openai:gpt-5-mini"), cache_dir=tmp_path / "none")
        three = estimate([items], cache_dir=tmp_path / "none",
                         judge=judge_at(server, spec="openai:gpt-5-mini", sampling=WARM, votes=3))  # fmt: skip
        assert server.stats().requests == 0
    assert three.input_tokens == 3 * one.input_tokens
    assert three.cost_usd == pytest.approx(3 * one.cost_usd)


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ("openai:m", {"votes": 3}, "temperature 0"),
        ("embedded", {"votes": 3}, "always says the same"),
        (["openai:m", "embedded"], {}, "cannot vote"),
        (["openai:m", "cascade:embedded,openai:m"], {}, "cannot vote"),
    ],
)
def test_a_panel_that_cannot_vote_is_refused(spec, options, words):
    """In one line, before anything is sent."""
    prompt = load_prompt("item", TAXONOMY)
    with pytest.raises(BadInput, match=words):
        open_judge(spec, kind="item", taxonomy=TAXONOMY, prompt=prompt, api_key="k", **options)


def test_the_command_votes_at_a_temperature_of_its_own_and_batches_do_not(tmp_path):
    """0.7 unless another is given; a batch file holds one request a record."""
    items = write_items(tmp_path / "items.jsonl", 2)
    with LLMServer() as server:
        common = [str(items), "--kind", "item", "--base-url", server.base_url, "--judge", "openai:m", "--votes", "2"]
        command = [sys.executable, "-m", "annotator"]
        voted = subprocess.run([*command, "label", *common, "-o", "l.jsonl"], cwd=tmp_path, check=False)
        temperatures = {body["temperature"] for body in server.requests(4)}
        batch = subprocess.run(
            [*command, "batch", "submit", *common], cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert (voted.returncode, temperatures) == (0, {0.7})
    assert (batch.returncode, batch.stderr.count("\n")) == (2, 1)
    assert "votes cannot be asked in batches" in batch.stderr


# ---------------------------------------------------------------- log-probabilities


def test_the_confidence_is_that_of_the_least_sure_axis():
    """Tokens that write a value count, whether they take in a quotation mark or not; others do not."""
    quote = '{"evidence":"\\"task_type\\": \\"x\\""'
    operations = ['","solving_operation":["', "recall", '","', "deduction", '"]']
    text = [quote, ',"background_condition":', '"ma', 'th"', ',"task_type":"', "prove", *operations]
    text += [',"output_constraint":"', "free", '"}']
    odds = {'"ma': 0.9, 'th"': 0.5, "prove": 0.8, "recall": 0.7, "deduction": 0.4, "free": 0.99}
    content = [{"token": token, "logprob": math.log(odds.get(token, 0.1))} for token in text]
    assert confidence_of({"logprobs": {"content": content}}) == pytest.approx(0.4)
    with_bytes = [one | {"bytes": list(one["token"].encode()), "token": "?"} for one in content]
    assert confidence_of({"logprobs": {"content": with_bytes}}) == pytest.approx(0.4)


@pytest.mark.parametrize(
    "logprobs", [None, {}, {"content": None}, {"content": []}, {"content": [{"token": "x"}]}, {"content": ["x"]},
                 {"content": [{"token": "{}", "logprob": 0.0}]}]
)  # fmt: skip
def test_a_server_that_tells_nothing_useful_gives_no_confidence(logprobs):
    """The label stands all the same."""
    assert confidence_of({"logprobs": logprobs}) is None


@pytest.mark.parametrize(("faults", "confident"), [(Faults(), True), (Faults(rejects=["logprobs"]), False)])
def test_log_probabilities_are_asked_for_when_wanted_and_done_without_when_refused(tmp_path, faults, confident):
    """Only when asked: they make answers several times longer."""
    items = write_items(tmp_path / "items.jsonl", 4)
    with LLMServer(faults) as server:
        plain = label([items], out=tmp_path / "a.parquet", judge=judge_at(server), cache_dir=tmp_path / "cache")
        assert all("logprobs" not in body for body in server.requests(4))
        judge = judge_at(server, sampling=Sampling(logprobs=True))
        sure = label([items], out=tmp_path / "b.parquet", judge=judge, cache_dir=tmp_path / "cache")
    confidence = pl.read_parquet(tmp_path / "b.parquet")["confidence"]
    assert (plain.labelled, sure.labelled) == (4, 4)
    assert pl.read_parquet(tmp_path / "a.parquet")["confidence"].null_count() == 4
    assert confidence.null_count() == (0 if confident else 4)
    assert confidence.is_between(0, 1).all()
