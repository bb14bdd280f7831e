"""Words and signs of texts as hashes: the rule written out, one character at a time, and what the hash tells apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.judges import tokens

CHARACTERS = st.characters(max_codepoint=0xFFFF) | st.sampled_from(" \n\\_az09é漢字あ\U0001f600\ud800\x00-,")
TEXTS = st.lists(st.text(alphabet=CHARACTERS, max_size=30), max_size=6)


def spelt_out(text: str) -> list[str]:
    """The tokens of a text by the plain rule."""
    found: list[str] = []
    running = ""
    for character in text:
        kind = _kind(character)
        joins = kind == running and kind in ("letter", "digit", "underscore")
        if joins or (kind == "letter" and running == "backslash"):
            found[-1] += character
        elif kind != "gap":
            found.append(character)
        running = kind
    return found


def _kind(character: str) -> str:
    if character in "\n\\_":
        return {"\n": "line end", "\\": "backslash", "_": "underscore"}[character]
    if "\u3040" <= character <= "\u30ff" or "\u4e00" <= character <= "\u9fff":
        return "ideograph"
    if ord(character) > 0xFFFF:
        return "sign"
    if character.isalpha():
        return "letter"
    if character.isnumeric():
        return "digit"
    return "gap" if character.isspace() or character == "\x00" else "sign"


@given(TEXTS)
def test_texts_have_the_tokens_of_the_plain_rule(texts):
    """Runs of letters, digits or underscores, a backslash with its letters, single signs; never across two texts."""
    found = tokens.split_texts(texts)

    expected = [(at, len(token)) for at, text in enumerate(texts) for token in spelt_out(text)]
    assert list(zip(found.text.tolist(), found.length.tolist(), strict=True)) == expected


@given(TEXTS)
def test_a_token_has_one_hash_wherever_it_stands(texts):
    """The prefix sum leaves no trace of what came before."""
    found = tokens.split_texts(texts)
    alone = [tokens.split_texts([token]).hashes[0] for text in texts for token in spelt_out(text)]

    assert found.hashes.tolist() == alone


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("Word", "wORD", True),
        ("É", "é", True),
        ("1234", "9876", True),
        ("123", "1234", False),
        ("12345", "123456789", True),
        ("stop", "pots", False),
        ("\\frac", "frac", False),
        ("__", "___", False),
        ("\U0001f600", "\U0001f601", False),
    ],
)
def test_the_hash_knows_letters_without_case_and_numbers_by_length(left, right, same):
    """Case and digits say nothing about the task; order and spelling do."""
    assert (tokens.split_texts([left]).hashes[0] == tokens.split_texts([right]).hashes[0]) == same


def test_different_words_rarely_share_a_hash():
    """Of 200,000 made words fewer than 20 share their 32 bits; chance would have about five."""
    words = [f"{chr(97 + a)}{chr(97 + b)}{chr(97 + c)}{end}" for a in range(26) for b in range(26) for c in range(26)
             for end in ("", "s", "ed", "ing", "er", "ly", "tion", "ness", "able", "ment", "x", "q")]  # fmt: skip
    hashes = tokens.split_texts(words).hashes

    assert len(hashes) == len(words)
    assert len(words) - len(np.unique(hashes)) < 20
