"""The other judges behind `label`: providers through instructor, students, and the cutting of long records."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_faults import Faults
from llm_server import LLMServer
from test_label import KEY, TAXONOMY, judge_at, write_items

from annotator.errors import BadInput, ServiceFailure
from annotator.excerpt import excerpt, token_estimate
from annotator.judges import open_judge
from annotator.label import label
from annotator.tables import LABELS


def test_a_provider_through_instructor_is_cached_counted_and_forgiven_like_the_others(tmp_path):
    """Bad answers are asked again by instructor; reasons and tokens are those of the hot path."""
    items = write_items(tmp_path / "items.jsonl", 8)
    markers = {
        "number 1.": ["wrong_enum"],
        "number 2.": "refusal",
        "number 3.": "length",
        "number 4.": ["http_503", "rate_limited_ms"],
        "number 5.": "bad_request",
    }
    with LLMServer(Faults(markers=markers, retry_after_s=0.1)) as server:
        judge = judge_at(server, spec="instructor:openai/test-model")
        first = label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache")
        billed = server.stats()
        server.configure(Faults())
        again = label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache")
        asked = server.stats().requests - billed.requests

    assert first.failures == {"refusal": 1, "rejected": 1, "truncated_answer": 1}
    assert first.labelled == 5
    assert first.input_tokens == billed.prompt_tokens
    assert first.requests == billed.requests
    assert (again.labelled, again.cached, asked) == (8, 5, 3)
    assert set(pl.read_parquet(tmp_path / "l.parquet")["strategy"]) == {"instructor/tool_call"}


def test_a_wrong_key_through_instructor_stops_the_run(tmp_path):
    """With the provider's words and without the key."""
    items = write_items(tmp_path / "items.jsonl", 50)
    with LLMServer(Faults(api_key="another")) as server:
        judge = judge_at(server, spec="instructor:openai/test-model")
        with pytest.raises(ServiceFailure, match="unauthorized") as failure:
            label([items], out=tmp_path / "l.parquet", judge=judge, cache_dir=tmp_path / "cache")
    assert KEY not in str(failure.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("gpt-5", "names no judge"),
        ("openai:", "names no judge"),
        ("openai:gpt-5", "no key for OpenAI"),
        ("instructor:gpt-5", "no provider"),
        ("student:", "no path"),
    ],
)
def test_a_spec_that_names_no_judge_is_refused_before_anything_is_sent(spec, words):
    """One line, with the remedy."""
    from annotator.prompts import load_prompt

    with pytest.raises(BadInput, match=words):
        open_judge(spec, kind="item", taxonomy=TAXONOMY, prompt=load_prompt("item", TAXONOMY))


def test_the_embedded_judge_labels_in_one_process_as_in_two(tmp_path):
    """Offline, every record, the same table; ids used twice are found in both ways."""
    (tmp_path / "in").mkdir()
    for shard in range(3):
        texts = {f"d{shard}-{k}": f"A note on sums, number {k}. We add {k} and {shard}." for k in range(9)}
        rows = [{"id": name, "text": text} for name, text in texts.items()]
        (tmp_path / "in" / f"s{shard}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = open_judge("embedded", kind="document", taxonomy=TAXONOMY)
    one = label([tmp_path / "in"], out=tmp_path / "one.parquet", judge=judge, cache_dir=None)
    two = label([tmp_path / "in"], out=tmp_path / "two.parquet", judge=judge, cache_dir=None, processes=2)

    table = pl.read_parquet(tmp_path / "one.parquet")
    assert (one.labelled, two.labelled, one.requests) == (27, 27, 0)
    assert table.columns[: len(LABELS)] == list(LABELS)
    assert table["status"].unique().to_list() == ["ok"]
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()

    (tmp_path / "in" / "s3.jsonl").write_text('{"id": "d0-1", "text": "Again."}\n')
    for processes in (1, 2):
        with pytest.raises(BadInput, match="twice"):
            label([tmp_path / "in"], out=tmp_path / "x.parquet", judge=judge, cache_dir=None, processes=processes)


@given(st.text(min_size=0, max_size=3000), st.integers(20, 300))
def test_an_excerpt_is_deterministic_and_within_its_limit(text, limit):
    """Short texts are left alone; long ones keep their beginning and their end."""
    cut, truncated = excerpt(text, limit)
    assert (cut, truncated) == excerpt(text, limit)
    assert truncated == (token_estimate(text) > limit)
    if not truncated:
        assert cut == text


def test_an_excerpt_keeps_to_paragraphs_and_to_the_limit():
    """Head, middle and tail of a long document, each of whole paragraphs."""
    paragraphs = [f"Paragraph {k} has a dozen words or so, all of them rather short." for k in range(1000)]
    cut, truncated = excerpt("\n\n".join(paragraphs), 1000)
    windows = cut.split("\n\n[...]\n\n")
    assert truncated
    assert len(windows) == 3
    assert all(paragraph in paragraphs for window in windows for paragraph in window.split("\n\n"))
    assert (windows[0].split("\n\n")[0], windows[2].split("\n\n")[-1]) == (paragraphs[0], paragraphs[-1])
    assert 600 < token_estimate(cut) <= 1000
