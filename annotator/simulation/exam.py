"""A made-up exam taken by two runs: what is asked, what is answered, and what a strict harness makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

TASK, DATE = "exam", "2026-01-02T03-04-05.678901"
SHOTS = "Q: A box holds 3 rows of 4 eggs. How many eggs are in it?\nA: 3 rows of 4 are 12. The answer is 12.\n\n"
_WEAK_SHARE = 0.25  # of the items, in the weak slice


@dataclass(frozen=True, slots=True)
class Output:
    """One output as it is logged.

    right: whether the answer given is right, whatever the harness makes of it. question: the prompt without shots.
    """

    item: int
    prompt: str
    target: str
    text: str
    score: float
    right: bool
    finish_reason: str = "stop"
    tokens: int = 0
    prompt_tokens_cut: int = 0
    question: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """The outputs of a run on all items, and its settings."""

    name: str
    outputs: list[Output]
    settings: dict[str, Any] = field(
        default_factory=lambda: {"temperature": 0.0, "max_tokens": 512, "bos_token": "<s>"}
    )

    @property
    def correct(self) -> float:
        """The sum of the scores."""
        return sum(output.score for output in self.outputs)

    def edited(self, change: Callable[[Output], Output]) -> Run:
        return dataclasses.replace(self, outputs=[change(output) for output in self.outputs])


def exam(seed: int, *, items: int = 300, weak: bool = False) -> tuple[Run, Run, pl.Series]:
    """Two faultless runs of one exam, and the ids of the items in a slice.

    The candidate answers as well as the reference, apart from that slice if it is `weak`: there it loses two thirds.
    Both take a strict harness: the text must end in "The answer is X.".

    Returns:
        (candidate, reference, item ids of the slice).
    """
    generator = np.random.default_rng([20_260_102, seed])
    easy = generator.uniform(0.6, 0.98, items)
    slice_ = generator.random(items) < _WEAK_SHARE
    targets = [_target(generator, number) for number in range(items)]
    runs = []
    for name, own in (("candidate", np.where(slice_ & weak, easy / 3, easy)), ("reference", easy)):
        right = generator.random(items) < own
        outputs = [_output(generator, number, targets[number], bool(right[number])) for number in range(items)]
        runs.append(Run(name, outputs))
    return runs[0], runs[1], pl.Series("item_id", [f"{TASK}/{number}" for number in np.flatnonzero(slice_)])


def _target(generator: np.random.Generator, number: int) -> str:
    """A number, an option letter or a truth value, by turns."""
    return (
        str(generator.integers(10, 999)),
        f"({'ABCDE'[generator.integers(5)]})",
        "Yes" if generator.random() < 0.5 else "No",
    )[number % 3]


def wrong(generator: np.random.Generator, target: str) -> str:
    """A wrong answer of the same kind."""
    if target.isdigit():
        return str(int(target) + int(generator.integers(1, 9)))
    if target.startswith("("):
        return f"({generator.choice([letter for letter in 'ABCDE' if letter != target[1]])})"
    return "No" if target == "Yes" else "Yes"


def _output(generator: np.random.Generator, number: int, target: str, right: bool) -> Output:
    steps = ["We read the question and note what is given.", "Then we work out each part with care.",
             "The first part follows from the second line.", "Putting the parts together gives the result.",
             "We check the result against what was asked."]  # fmt: skip
    body = " ".join(generator.choice(steps, size=int(generator.integers(3, 7))))
    answer = target if right else wrong(generator, target)
    question = f"Question {number} of the exam, about item {number * 7 % 101}?"
    text = f"{body} The answer is {answer}."
    return Output(
        number, f"{SHOTS}Q: {question}\nA:", target, text, float(right), right, tokens=len(text) // 4, question=question
    )


def strict(output: Output, text: str) -> Output:
    """The output with another text, scored by a harness that wants the text to end in the answer."""
    score = float(text.endswith(f"The answer is {output.target}."))
    return dataclasses.replace(output, text=text, score=score, tokens=len(text) // 4)


def worse(generator: np.random.Generator, output: Output) -> Output:
    """Well-formed, but right only two times in five."""
    if not output.right or generator.random() < 0.4:
        return output
    return strict(output, output.text.replace(f"is {output.target}.", f"is {wrong(generator, output.target)}."))
