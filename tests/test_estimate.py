"""Forecasts: how many tokens a text is, and how far a forecast is from the bill."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_label import LABEL, judge_at, write_items

from annotator.budget import Price, price_of
from annotator.fingerprint import fingerprint
from annotator.judges.cache import Answer, AnswerCache
from annotator.label import estimate
from annotator.labelling.rows import keys_of
from annotator.labelling.token_count import token_count
from annotator.prompts import load_prompt
from annotator.taxonomy import load_taxonomy

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
# (text, tokens of the public vocabulary o200k_base, how far off we may be)
COUNTED = [
    ("The train leaves the station at nine and arrives an hour later. " * 20, 261, 0.1),
    ("def area(width: float, height: float) -> float:\n    return width * height\n\n\n" * 20, 380, 0.35),
    ("\\frac{x^2 + 3x - 10}{x - 2} = x + 5, \\quad x \\neq 2\n" * 20, 640, 0.35),
]


@pytest.mark.parametrize(("text", "tokens", "error"), COUNTED, ids=["prose", "code", "formulas"])
def test_tokens_are_counted_closely_without_a_tokenizer(text, tokens, error):
    """Prose within a tenth; nothing but code or formulas within a third, and records are mostly mixed."""
    assert token_count(text) == pytest.approx(tokens, rel=error)


def test_an_empty_text_has_no_tokens():
    """And no text has fewer."""
    assert token_count("") == 0


def test_a_forecast_learns_from_what_the_cache_holds(tmp_path):
    """A server that counts twice as much, and answers of 200 tokens: the rest of the records is forecast by them."""
    items = write_items(tmp_path / "items.jsonl", 40)
    judge = judge_at("http://127.0.0.1:9/v1")
    blank = estimate([items], judge=judge, cache_dir=tmp_path / "cache")
    texts = [f"What is {k} plus {k}? Question number {k}." for k in range(10)]
    keys = keys_of([judge.prompt.user(text) for text in texts], fingerprint(judge.identity))
    cache = AnswerCache(tmp_path / "cache")
    twice = 2 * blank.input_tokens // 40
    cache.put_many((key, Answer(LABEL, "m", "json_schema", (1, twice, 0, 200))) for key in keys)
    cache.close()
    learnt = estimate([items], judge=judge, cache_dir=tmp_path / "cache")

    assert (blank.measured_on, learnt.measured_on) == (0, 10)
    assert (learnt.cached, learnt.to_ask) == (10, 30)
    assert learnt.input_tokens == pytest.approx(30 * twice, rel=0.01)
    assert learnt.output_tokens == 30 * 200


def test_a_panel_costs_the_mean_of_its_judges_a_token(tmp_path):
    """Each gets the same number of tokens; one unknown price makes the whole unknown."""
    (tmp_path / "prices.toml").write_text(
        "[models]\na = { input = 1.0, cached = 0.5, output = 2.0 }\nb = { input = 3.0, cached = 1.5, output = 4.0 }\n"
    )
    assert price_of("a+b", tmp_path / "prices.toml") == Price(2.0, 1.0, 3.0)
    assert price_of("a+unknown", tmp_path / "prices.toml") is None


@pytest.mark.skipif(not DATA.exists(), reason="the development data is not here")
def test_the_forecast_of_each_benchmark_and_shard_is_within_15_percent():
    """Counted by a real vocabulary; `scripts/estimate_error.py` prints the table."""
    pytest.importorskip("bpe_openai", reason="no tokenizer to count with: pip install bpe-openai")
    import sys

    sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
    from estimate_error import errors

    for name, ratio in errors(DATA, most_records=100):
        assert ratio == pytest.approx(1, abs=0.15), name


def test_the_instructions_are_counted_closely():
    """They are most of a short record's request: 2,814 and 3,251 tokens of o200k_base."""
    taxonomy = load_taxonomy()
    for kind, tokens in (("item", 2814), ("document", 3251)):
        assert token_count(load_prompt(kind, taxonomy).system) == pytest.approx(tokens, rel=0.1)


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("gpt-5", True), ("gpt-5-2025-08-07", True), ("openai/gpt-5-mini", True), ("gpt-5-latest", True),
        ("claude-haiku-4-5@20251001", True), ("gpt-5-pro", False), ("gpt-5.1", False), ("gpt-50", False),
    ],
)  # fmt: skip
def test_a_price_is_for_a_model_and_its_versions(model, known):
    """A name that only begins alike is another model, at another price: then none is known."""
    assert (price_of(model) is not None) is known
    if "mini" in model:
        assert price_of(model) == price_of("gpt-5-mini") != price_of("gpt-5")
