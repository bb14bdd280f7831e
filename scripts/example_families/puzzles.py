"""Boolean expressions and seating: puzzles are searched for their only solution. Seating is hard for both runs."""

import random
from collections.abc import Callable
from itertools import permutations

from example_families.draft import NAMES, Draft, Generator, options


# ------------------------------------------------------------------------------------------ boolean expressions ----
def expression(rng: random.Random, depth: int) -> str:
    if depth == 0:
        return rng.choice(["True", "False", "not True", "not False"])
    left, right = expression(rng, depth - 1), expression(rng, rng.randrange(depth))
    return f"{rng.choice(['', 'not '])}({left} {rng.choice(['and', 'or'])} {right})"


def truth(prompt: str, value: bool, workings: list[list[str]]) -> Draft:
    return Draft(prompt, str(value), [str(not value)], workings)


def constants_only(rng: random.Random) -> Draft:
    text = expression(rng, 3)
    return truth(
        f"Evaluate the Boolean expression below and answer True or False.\n{text}",
        eval(text),
        [
            ["Start with the innermost brackets.", "Apply not, then and, then or.", "The whole is {said}."],
            ["Each bracket reduces to one truth value.", "What is left reduces to {said}."],
        ],
    )


def three_letters(rng: random.Random) -> Draft:
    p, q, r = (rng.random() < 0.5 for _ in range(3))
    text, value = rng.choice(
        [
            ("(p → q) ∨ ¬r", (not p or q) or not r),
            ("¬(p ∧ q) → r", (p and q) or r),
            ("(p ∨ q) ∧ (¬q ∨ r)", (p or q) and (not q or r)),
            ("(p ↔ q) ∨ (q ∧ ¬r)", p == q or (q and not r)),
            ("p ∧ (q → ¬r)", p and (not q or not r)),
        ]
    )
    values = ", ".join(f"{name} is {str(v).lower()}" for name, v in zip("pqr", (p, q, r), strict=True))
    return truth(
        f"Suppose that {values}. What is the truth value of the formula {text}? Answer True or False.",
        bool(value),
        [
            [f"Put in the values: {values}.", "Work from the inside out.", "The formula is {said}."],
            ["Evaluate both sides of the main connective.", "Joining them gives {said}."],
        ],
    )


def comparisons(rng: random.Random) -> Draft:
    a, b, c, d, e, f = (rng.randrange(1, 30) for _ in range(6))
    text = f"({a} > {b} {rng.choice(['and', 'or'])} not {c} < {d}) {rng.choice(['and', 'or'])} {e} >= {f}"
    return truth(
        f"Which truth value, True or False, does this Boolean expression have?\n{text}",
        eval(text),
        [
            [f"{a} > {b} is {a > b}.", f"{c} < {d} is {c < d}.", "Combining all parts: {said}."],
            [f"The last part {e} >= {f} is {e >= f}.", "With the bracket the result is {said}."],
        ],
    )


def exactly_so_many(rng: random.Random) -> Draft:
    parts, wanted = [expression(rng, 1) for _ in range(4)], rng.randrange(1, 4)
    values = [eval(part) for part in parts]
    listed = "\n".join(f"{n}. {part}" for n, part in enumerate(parts, 1))
    return truth(
        f"True or False: exactly {wanted} of the four Boolean expressions below evaluate to True.\n{listed}",
        sum(values) == wanted,
        [
            [f"Expression {n} is {value}." for n, value in enumerate(values, 1)] + ["So the claim is {said}."],
            ["Evaluate the four lines and tally them.", "The claim comes out {said}."],
        ],
    )


# ------------------------------------------------------------------------------------------------------ seating ----
def arranged(rng: random.Random, names: list[str], *, intro: str, ask: str, words: dict[str, str]) -> Draft:
    """A puzzle on five things in a row with exactly one solution; `words` says how each kind of clue is worded."""
    places = ["first", "second", "third", "fourth", "fifth"]
    right = tuple(rng.sample(names, 5))
    tests: list[tuple[str, Callable[[tuple], bool]]] = []
    for a, b in permutations(names, 2):
        i, j = right.index(a), right.index(b)
        if i < j - 1:
            tests.append((words["before"].format(a, b), lambda row, a=a, b=b: row.index(a) < row.index(b)))
        if i == j - 1:
            tests.append((words["next"].format(a, b), lambda row, a=a, b=b: row.index(a) == row.index(b) - 1))
        if abs(i - j) == 2:
            tests.append((words["gap"].format(a, b), lambda row, a=a, b=b: abs(row.index(a) - row.index(b)) == 2))
    tests += [
        (words["not"].format(name, places[p]), lambda row, name=name, p=p: row[p] != name)
        for name in names for p in (0, 4) if right[p] != name
    ]  # fmt: skip
    rng.shuffle(tests)
    rows = list(permutations(names))
    clues: list[str] = []
    for clue, holds in tests:
        left = [row for row in rows if holds(row)]
        if len(left) < len(rows):
            rows = left
            clues.append(clue)
        if len(rows) == 1:
            break
    place = rng.randrange(1, 4)
    listed = ", ".join(sorted(names)[:-1]) + " and " + max(names)
    workings = [
        ["Write down the five places.", f"Use first: {clues[0]}", "Only one order meets every clue.",
         f"In it the {places[place]} is {{said}}."],
        [f"From the clues: {clues[-1]}", "Trying the orders that are left, what fits is {said}."],
        ["Put the clues together and strike out what cannot be.", f"For the {places[place]} place remains {{said}}."],
    ]  # fmt: skip
    return options(
        f"{intro}: {listed}. {' '.join(clues)} {ask.format(places[place])}", sorted(names), right[place], workings
    )


def bench(rng: random.Random) -> Draft:
    return arranged(
        rng, rng.sample(NAMES, 5),
        intro="Five people sit on a bench, named here in alphabetical order and seen from the front",
        ask="Who sits {} from the left?",
        words={"before": "{0} sits somewhere to the left of {1}.", "next": "{0} sits directly to the left of {1}.",
               "gap": "Exactly one person sits between {0} and {1}.", "not": "{0} is not the {1} from the left."},
    )  # fmt: skip


def race(rng: random.Random) -> Draft:
    return arranged(
        rng, rng.sample(NAMES, 5),
        intro="Five runners finished a race, no two of them together",
        ask="Who came in {}?",
        words={"before": "{0} was faster than {1}.", "next": "{1} was the next to arrive after {0}.",
               "gap": "Exactly one runner arrived between {0} and {1}.", "not": "{0} did not come in {1}."},
    )  # fmt: skip


def shelf(rng: random.Random) -> Draft:
    colours = rng.sample(["red book", "blue book", "green book", "grey book", "white book", "black book"], 5)
    return arranged(
        rng, [f"the {colour}" for colour in colours],
        intro="Five books stand on a shelf",
        ask="Which book is the {} from the left?",
        words={"before": "Left of {1}, though not always beside it, stands {0}.", "next": "Right beside {0}, on its "
               "right, stands {1}.", "gap": "One single book separates {0} from {1}.",
               "not": "In the {1} place from the left we do not find {0}."},
    )  # fmt: skip


def appointments(rng: random.Random) -> Draft:
    return arranged(
        rng, rng.sample(NAMES, 5),
        intro="A dentist sees five patients one after the other in a single morning",
        ask="Whose appointment is the {} of the morning?",
        words={"before": "{0} is seen at some time before {1}.", "next": "{1} goes in straight after {0}.",
               "gap": "Between {0} and {1} the dentist sees one other patient.", "not": "{0} is not the {1} patient."},
    )  # fmt: skip


FAMILIES: dict[str, list[Generator]] = {
    "boolean_expressions": [constants_only, three_letters, comparisons, exactly_so_many],
    "seating": [bench, race, shelf, appointments],
}
