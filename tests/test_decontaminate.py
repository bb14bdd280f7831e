"""Documents that quote benchmark items are found, whatever was done to case, spacing, punctuation and markup."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_rows import documents, items

from annotator.decontaminate import HITS, decontaminate
from annotator.decontamination.ngrams import ngrams, split_words

QUESTION = (
    "Janet's ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins for her friends "
    "every day with four. How much in dollars does she make every day at the farmers' market?"
)
FILLER = "The harbour was quiet that evening, and only two boats lay at the pier, rocking gently in the swell. " * 8


def hits(text, *rows, **options):
    """(item_id, part, rule) of the hits in one document."""
    columns = options.pop("columns_of_items", {})
    found = decontaminate(documents({"d": text}), items(*rows, **columns), **options).hits
    return [(row["item_id"], row["part"], row["rule"]) for row in found.iter_rows(named=True)]


def words(text):
    """Hashes of the words of one text."""
    return split_words([text]).hashes.tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The QUICK brown-fox", "the quick  brown\nfox"),
        ("$x^{2} + \\frac{1}{2}$", "x 2 1 2"),
        ("\\left( a, b \\right]", "(a, b]"),
        ("don't", "dont"),
        ("1,000,000 people", "1000000 people"),
        ("Ｆｕｌｌ width ① ﬁne", "full width 1 fine"),
        ("naïve “quotes” – dashes…", "naïve quotes dashes"),
        ("STRASSE", "straße"),
    ],
)
def test_words_are_the_same_whatever_the_form(one, other):
    """Case, spacing, punctuation, LaTeX commands and compatibility forms do not count."""
    assert words(one) == words(other)


def test_words_of_other_scripts_are_told_apart():
    """Each ideograph is a word; Cyrillic and Greek letters are letters."""
    assert len(words("把鸡蛋打入碗中。")) == 7
    assert len(words("Привет, мир")) == 2
    assert len(words("αβγ δ")) == 2
    assert len(set(words("а б в"))) == 3


def test_words_know_where_they_stand():
    """Text number and byte positions."""
    found = split_words(["One, two", "", "three"])

    assert found.text.tolist() == [0, 0, 2]
    assert list(zip(found.start.tolist(), found.end.tolist(), strict=True)) == [(0, 3), (5, 8), (0, 5)]


def test_no_run_of_words_crosses_from_one_text_to_the_next():
    """Two texts are two texts."""
    hashes, at = ngrams(split_words(["a b c", "d e", "f g h i"]), 3)

    assert at.tolist() == [0, 5, 6]
    assert len(hashes) == 3


@given(st.lists(st.text(max_size=30), max_size=6))
def test_words_of_a_text_do_not_depend_on_the_texts_around_it(texts):
    """Batches are for speed only."""
    together = split_words(texts)

    alone = [split_words([text]).hashes for text in texts]

    assert together.hashes.tolist() == np.concatenate([*alone, np.zeros(0, dtype=np.uint64)]).tolist()


def test_a_verbatim_question_is_found_with_its_span():
    """Columns as documented; positions point into the document."""
    text = FILLER + QUESTION + FILLER

    found = decontaminate(documents({"d": text}), items(("quiz/1", QUESTION)))

    (row,) = found.hits.rows(named=True)
    assert list(row) == list(HITS)
    assert (row["doc_id"], row["item_id"], row["part"], row["rule"]) == ("d", "quiz/1", "question", "exact")
    assert row["coverage"] == 1.0
    assert text[row["start"] : row["end"]] == QUESTION.rstrip("?")
    assert found.summary["flagged_documents"] == 1


def test_positions_are_those_of_the_text_even_where_folding_changes_its_length():
    """Ligatures and superscripts before the quotation."""
    text = "ﬁne ½ x² ﬃ … ünïcode " * 5 + QUESTION + " ﬁn"

    (row,) = decontaminate(documents({"d": text}), items(("quiz/1", QUESTION))).hits.rows(named=True)

    assert text[row["start"] : row["end"]] == QUESTION.rstrip("?")


def test_a_shared_run_of_13_words_is_enough_and_of_12_is_not():
    """Brown et al. 2020; the rest of the document does not matter."""
    split = QUESTION.replace("'", "").split()

    def quoted(count):
        return hits(FILLER + " ".join(split[4 : 4 + count]) + ". " + FILLER, ("quiz/1", QUESTION))

    assert quoted(13) == [("quiz/1", "question", "13_gram")]
    assert quoted(12) == []


def test_question_choices_answer_and_solution_are_looked_for_apart():
    """Each part by itself gives a document away."""
    texts = {
        "choices": ["a tall green bottle", "seven small stones", "the lost umbrella", "an open window"],
        "target": "because the ferry had left long before the messenger came running down the hill",
        "metadata.solution": "First double the number of lamps, then subtract those that the storm has broken.",
    }
    columns = {name: [value] for name, value in texts.items()}

    def parts(text):
        return [part for _, part, _ in hits(FILLER + text, ("quiz/1", QUESTION), columns_of_items=columns)]

    assert parts(" ".join(texts["choices"])) == ["choices"]
    assert parts(texts["target"]) == ["answer"]
    assert parts(texts["metadata.solution"]) == ["solution"]
    assert parts("nothing of the kind") == []


def test_short_items_need_to_be_there_nearly_as_a_whole():
    """Eight to nineteen words: all of it, or all but a word or two; not a common beginning."""
    short = "Which river flows past both Basel and Rotterdam today?"

    assert hits(FILLER + short.lower(), ("quiz/1", short)) == [("quiz/1", "question", "exact")]
    assert hits(FILLER + short.replace("both", "old"), ("quiz/1", short)) == [("quiz/1", "question", "coverage")]
    assert hits(FILLER + short.replace("both Basel and Rotterdam", "old Ulm or Vienna"), ("quiz/1", short)) == []


def test_questions_of_five_to_seven_words_are_found_as_a_whole_only():
    """One word changed makes another question of them; answers of that length are what anybody writes."""
    quiz = items(("quiz/1", "What does SCUBA stand for?"), target=["self contained breathing for divers"])

    def found(text):
        return decontaminate(documents({"d": FILLER + text}), quiz).hits["rule"].to_list()

    assert found("- what does *scuba* stand for -") == ["exact"]
    assert found("What does NATO stand for?") == []
    assert found("self contained breathing for divers") == []


def test_a_word_put_into_a_sum_does_not_hide_it():
    """All words of a part nearly in one piece are a quotation, even if they are mere numbers."""
    quiz = ("quiz/1", "((6 * 5 + 0 - -3) * (4 * 7 * 3 + 9)) =")

    assert hits(FILLER + "6 * 5 + 0 - -3 times 4 * 7 * 3 + 9", quiz) == [("quiz/1", "question", "coverage")]
    assert hits(FILLER + "6, 5, 0, 3, then much later 4, 7, and 3, 9", quiz) == []


def test_questions_of_a_few_words_count_only_as_lines_of_their_own():
    """Inside a sentence "compute sin 30" is anybody's; alone on its line, in any dress, it is the item."""
    short = items(("quiz/1", r"Compute $\sin 30^\circ$."))
    inside = FILLER + "Now compute sin 30 and compare."
    alone = f"{FILLER}\n\n**compute**  \\(\\sin 30^\\circ\\)\n\n{FILLER}"
    found = decontaminate(documents({"inside": inside, "alone": alone}), short)

    assert found.hits["doc_id"].to_list() == ["alone"]
    assert found.hits["rule"].to_list() == ["exact"]
    assert found.hits["span"][0].startswith("compute")
    assert found.summary["parts_too_short"] == 0


def test_items_that_say_too_little_are_counted_and_not_looked_for():
    """A few plain words, or nothing but a counting sequence."""
    found = decontaminate(
        documents({"d": FILLER + "\n\nWho are you?\n\n1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"}),
        items(("quiz/1", "Who are you?"), ("quiz/2", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16")),
    )

    assert found.hits.height == 0
    assert found.summary["parts_too_short"] == 2


def test_strict_items_are_held_to_the_lower_threshold():
    """0.3 of the weight for the benchmark that the documents are chosen for."""
    part = " ".join(QUESTION.split()[8:20])

    assert hits(FILLER + part, ("quiz/1", QUESTION)) == []
    assert hits(FILLER + part, ("quiz/1", QUESTION), strict_items=["quiz/1"]) == [("quiz/1", "question", "coverage")]


def test_the_statement_never_says_clean_without_ngram():
    """A paraphrase passes."""
    statement = decontaminate(documents({"d": FILLER}), items(("quiz/1", QUESTION))).summary["statement"]

    assert statement.startswith("n-gram-clean")


def edited(text, kind, seed):
    """A light edit, as a copying hand or a converter would make it."""
    drawn = random.Random(seed)
    tokens = text.split()
    if kind == "case":
        return text.upper() if seed % 2 else text.lower()
    if kind == "spacing":
        return "".join(token + drawn.choice([" ", "\n", "  ", "\t"]) for token in tokens)
    if kind == "punctuation":
        return " ".join(token.strip(".,?!'\"") + drawn.choice(["", ",", " -", ";"]) for token in tokens)
    if kind == "markup":
        return " ".join(
            f"**{token}**" if drawn.random() < 0.2 else f"${token}$" if token.isdigit() else token for token in tokens
        )
    return " ".join("pelican" if drawn.random() < 1 / 12 else token for token in tokens)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["case", "spacing", "punctuation", "markup"]), st.integers(0, 10_000))
def test_edits_of_form_never_hide_a_quotation(kind, seed):
    """Normalisation makes them vanish."""
    assert hits(FILLER + edited(QUESTION, kind, seed) + FILLER, ("quiz/1", QUESTION))


def test_one_word_in_twelve_replaced_hides_almost_nothing():
    """At least 19 of 20 are found."""
    found = sum(bool(hits(FILLER + edited(QUESTION, "words", seed), ("quiz/1", QUESTION))) for seed in range(40))

    assert found >= 38


LATEX = "Let $f(x) = \\frac{3x + 2}{5}$ for real $x$. What is the value of $\\left[f^{-1}(4)\\right]^{-1} + 7$?"
SHORT = "How many prime numbers lie strictly between 200 and 260?"


@pytest.mark.parametrize("text", [QUESTION, LATEX, SHORT], ids=["long", "latex", "short"])
def test_every_single_replaced_word_leaves_the_question_found(text):
    """Wherever it stands, but for the first rare words of a short question, which make it another question."""
    tokens = text.split()
    changed = [" ".join([*tokens[:k], "pelican", *tokens[k + 1 :]]) for k in range(len(tokens))]

    found = [bool(hits(FILLER + one + FILLER, ("quiz/1", text))) for one in changed]

    assert found == [True] * len(tokens)


def test_invisible_characters_hide_nothing():
    """Zero-width spaces and soft hyphens inside words."""
    marked = QUESTION.replace("breakfast", "break\u00adfast").replace("morning", "mor\u200bning")

    (row,) = decontaminate(documents({"d": FILLER + marked}), items(("quiz/1", QUESTION))).hits.rows(named=True)

    assert row["rule"] == "exact"


def test_files_and_frames_give_the_same_hits(tmp_path):
    """Streaming and sharding change nothing."""
    frame = documents({f"d{k}": FILLER + (QUESTION if k % 3 == 0 else "") for k in range(7)})
    frame[:4].write_parquet(tmp_path / "part-0.parquet")
    frame[4:].write_ndjson(tmp_path / "part-1.jsonl")
    quiz = items(("quiz/1", QUESTION))

    whole = decontaminate(frame, quiz)
    sharded = decontaminate([tmp_path], quiz)

    assert whole.hits.equals(sharded.hits)
    assert whole.hits["doc_id"].to_list() == ["d0", "d3", "d6"]
    assert decontaminate(frame, quiz, only=["d3", "d4"]).hits["doc_id"].to_list() == ["d3"]


def test_no_items_and_no_documents_find_nothing():
    """Empty tables are fine."""
    assert decontaminate(documents({"d": FILLER}), items()).hits.height == 0
    assert decontaminate(documents({"d": ""}), items(("quiz/1", QUESTION))).hits.height == 0
    empty = pl.DataFrame(schema={"doc_id": pl.String, "text": pl.String})
    assert decontaminate(empty, items(("quiz/1", QUESTION))).summary["documents"] == 0
