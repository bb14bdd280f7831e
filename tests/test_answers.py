"""Answers are found where models state them, and compared as a careful grader would."""

import pytest

from annotator.diagnosis.answers import answers_in, cut_end_marker, gold_in_tail, gold_of, last_token, matches

CASES = [
    ("(B)", "Both are hyperbolic. So the answer is (B).", ["B"]),
    ("(A)", "So the answer is (A) and (B).", ["A and B"]),
    ("B", " We refer to Wikipedia. The answer that best fits is (B).", ["B"]),
    ("B", "The closest answer is 61 N/C. The answer is (B).", ["B"]),
    ("True", "So the answer is True.", ["true"]),
    ("False", " False\n\nQ: not ( True ) is\nA: True and False or not False and some more words here", ["false"]),
    ("18", "She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18", ["18"]),
    ("90000", "This means 130,000-40,000=90,000\nA: 90,000", ["90000"]),
    ("9", '{"reasoning": "The final answer is 36 - 27.", "answer": "9"}', ["9"]),
    ("\\frac 59", "Therefore $\\boxed{\\frac{5}{9}}$", ["\\frac{5}{9}"]),
    ("\\frac{\\sqrt6}3", "is \\boxed{\\frac{\\sqrt{6}}{3}}.", ["\\frac{\\sqrt{6}}{3}"]),
    ("3.5", "The final answer is: 3.5 metres.", ["3.5"]),
    ("apple banana cherry", "apple banana cherry", ["apple banana cherry"]),
    ("42", "I do not know, it could be anything really. Let us see.", []),
]


@pytest.mark.parametrize(("target", "text", "expected"), CASES)
def test_stated_answers_are_found(target, text, expected):
    """Each phrase is one that real logs hold."""
    gold = gold_of(target)

    found = [answer.value for answer in answers_in(text, gold)]

    assert found == expected
    if expected and expected != ["A and B"]:
        assert matches(found[-1], gold)


def test_every_question_that_a_runaway_model_answers_is_seen_in_order():
    """The first answer is the item's own; the others belong to questions that the model asked itself."""
    text = "The answer is (C).\n\nQuestion: another?\nThe answer is (B).\n\nQuestion: third?\nThe answer is (F)."

    assert [answer.value for answer in answers_in(text, gold_of("C"))] == ["C", "B", "F"]


def test_an_option_stands_for_its_letter():
    """A target given as the text of an option is matched by the letter, and the letter by the text."""
    gold = gold_of("Venus", ["Mars", "Venus"])

    assert gold.kind == "choice"
    assert matches(answers_in("The answer is (B).", gold)[0].value, gold)
    assert matches(answers_in("The answer is Venus.", gold)[0].value, gold)


def test_numbers_are_equal_whatever_their_spelling():
    """1,200 and 1200.0 and $1200 are one number; .5 and 1/2 too; 12 and 1200 are not."""
    for one, other in (("1,200", "1200.0"), ("1200", "$1200"), ("0.5", "1/2")):
        assert matches(answers_in(f"#### {one}", gold_of(other))[0].value, gold_of(other))
    assert not matches("12", gold_of("1200"))


def test_text_ends_at_a_literal_end_marker():
    """Whatever a chat template writes after it belongs to nobody."""
    assert cut_end_marker("4</s>\nUser: next") == "4"
    assert cut_end_marker("4") == "4"


def test_generous_rules_take_the_last_number_or_the_gold_in_the_tail():
    """They over-credit on purpose, so they are only ever applied to both runs."""
    assert last_token("7 apples and 12 pears", gold_of("12")) == "12"
    assert gold_in_tail("it is surely 12, or 13", gold_of("12"))
    assert not gold_in_tail("it is surely 112", gold_of("12"))
