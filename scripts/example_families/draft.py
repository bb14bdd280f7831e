"""What every generator of example items gives back: one Draft.

A generator takes a seeded `random.Random`. All generators of one family differ in wording and in what they ask; the
items made by one of them share a cluster_id, since they rise and fall together. Every target is computed, never typed.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(frozen=True)
class Draft:
    """One item, and what a model might write about it.

    workings: several ways to write the solution, each a list of sentences; "{said}" in the last one is replaced by
        the answer that the response arrives at, so that a wrong response is wrong to the end.
    wrong: plausible wrong answers, none equal to the target.
    reasons: further workings, which only a response that is right may use.
    """

    prompt: str
    target: str
    wrong: list[str]
    workings: list[list[str]]
    choices: list[str] | None = None
    reasons: list[list[str]] = field(default_factory=list)


NAMES = ["Asha", "Bruno", "Carla", "Dmitri", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kofi", "Lena"]

Generator = Callable[[random.Random], Draft]


def number(prompt: str, target: int, slips: Sequence[int], workings: list[list[str]]) -> Draft:
    """A draft with a whole number for its answer; `slips` are typical wrong results, near misses are added to them."""
    near = [target + 1, target - 1, target + 2, target + 10 if target > 9 else target + 3]
    wrong = dict.fromkeys(value for value in [*slips, *near] if value != target and (value >= 0 or target < 0))
    return Draft(prompt, str(target), [str(value) for value in wrong][:6], workings)


def options(prompt: str, texts: Sequence[str], right: str, workings: list[list[str]]) -> Draft:
    """A multiple choice draft: options are printed under the question, the target is the letter in brackets."""
    letters = [f"({letter})" for letter in "ABCDEFG"[: len(texts)]]
    listed = "\n".join(f"{letter} {text}" for letter, text in zip(letters, texts, strict=True))
    target = letters[list(texts).index(right)]
    wrong = [letter for letter in letters if letter != target]
    return Draft(f"{prompt}\nOptions:\n{listed}", target, wrong, workings, list(texts))


def ratio(prompt: str, target: Fraction, slips: Sequence[Fraction], workings: list[list[str]]) -> Draft:
    """A draft with a probability in lowest terms for its answer."""
    near = [target / 2, 1 - target, Fraction(target.numerator + 1, target.denominator + 2), Fraction(1, 2)]
    wrong = dict.fromkeys(str(value) for value in [*slips, *near] if value != target and 0 < value < 1)
    return Draft(prompt + " Give a fraction in lowest terms.", str(target), list(wrong)[:5], workings)


def sequence(
    prompt: str, right: list[str], slips: list[list[str]], workings: list[list[str]], *, glue: str = " "
) -> Draft:
    """A draft whose answer is an exact sequence of words or symbols."""
    target = glue.join(right)
    wrong = dict.fromkeys(glue.join(slip) for slip in slips)
    return Draft(prompt, target, [text for text in wrong if text != target], workings)
