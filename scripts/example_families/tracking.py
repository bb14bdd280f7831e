"""Shuffled objects, programs and walks: the second planted weakness. Programs are run to get their output."""

import contextlib
import io
import random
import re

from example_families.draft import NAMES, Draft, Generator, number, options


# --------------------------------------------------------------------------------------------- shuffled objects ----
def swaps(rng: random.Random, holders: list[str], things: list[str], count: int) -> tuple[list[tuple], dict[str, str]]:
    """Random swaps between holders, and who holds what after all of them."""
    held = dict(zip(holders, things, strict=True))
    made: list[tuple] = []
    while len(made) < count:
        pair = tuple(rng.sample(holders, 2))
        if not made or set(made[-1]) != set(pair):
            made.append(pair)
            held[pair[0]], held[pair[1]] = held[pair[1]], held[pair[0]]
    return made, held


def shuffled(rng: random.Random, prompt: str, *, holders: list[str], things: list[str], swap: str) -> Draft:
    """A tracking item; `prompt` has places for the start, the swaps told and the holder asked for."""
    made, held = swaps(rng, holders, things, rng.choice([4, 5, 6]))
    start = "; ".join(f"{holder}: {thing}" for holder, thing in zip(holders, things, strict=True))
    words = [*["First", "Then", "Next", "After that", "Then"][: len(made) - 1], "Finally"]
    told = " ".join(f"{word}, {swap.format(*pair)}" for word, pair in zip(words, made, strict=True))
    asked = made[-1][0]
    workings = [
        [f"At the start we have {start}."]
        + [f"Exchange {n}: {a} and {b}." for n, (a, b) in enumerate(made, 1)]
        + [f"At the end {asked} has {{said}}."],
        ["Keep a list and update it after every exchange.", f"The last exchange is {made[-1][0]} with {made[-1][1]}.",
         f"Reading the list, {asked} has {{said}}."],
        [f"Follow {asked} backwards through the exchanges.", "That leads to {said}."],
    ]  # fmt: skip
    return options(prompt.format(start=start, told=told, asked=asked), sorted(things), held[asked], workings)


def people_with_scarves(rng: random.Random) -> Draft:
    colours = rng.sample(["red", "blue", "green", "yellow", "white", "black", "purple"], 5)
    return shuffled(
        rng,
        "Five friends each wear a scarf, in these colours at the start of the evening. "
        "{start}. During the evening they trade. {told} Which colour does {asked} wear at the end?",
        holders=rng.sample(NAMES, 5),
        things=colours,
        swap="{0} trades scarves with {1}.",
    )


def cups_in_a_row(rng: random.Random) -> Draft:
    things = rng.sample(["a coin", "a button", "a pearl", "a dried pea", "a bean", "a key", "a pebble"], 5)
    return shuffled(
        rng,
        "Five numbered places on a table are covered by cups, and under each cup lies one "
        "thing. {start}. A juggler exchanges cups, with what lies under them. {told} What lies at {asked} when she "
        "stops?",
        holders=[f"place {n}" for n in range(1, 6)],
        things=things,
        swap="she exchanges the cups at {0} and {1}.",
    )


def stations_in_a_kitchen(rng: random.Random) -> Draft:
    posts = rng.sample(["the grill", "the oven", "the sink", "the counter", "the fryer", "the till"], 5)
    return shuffled(
        rng,
        "A kitchen crew begins its shift at these stations. "
        "{start}. Every half hour two of them change places. {told} Where does {asked} work at the end of the shift?",
        holders=rng.sample(NAMES, 5),
        things=posts,
        swap="{0} and {1} change places.",
    )


def books_on_loan(rng: random.Random) -> Draft:
    books = rng.sample(["the atlas", "the cookbook", "the thriller", "the comic", "the diary", "the play"], 5)
    return shuffled(
        rng,
        "In a reading circle everyone starts with one book. {start}. Pairs of readers "
        "swap what they are holding. {told} Which book is {asked} holding now?",
        holders=rng.sample(NAMES, 5),
        things=books,
        swap="{0} swaps books with {1}.",
    )


# -------------------------------------------------------------------------------------------- program execution ----
def run_program(code: str) -> tuple[str, list[str]]:
    """What `code` prints, and one sentence for each time it passes its `#watch` line."""
    seen: list[str] = []
    printed = io.StringIO()
    watched = re.sub(r"#watch (.*)", r"_seen.append(f'\1')", code)
    with contextlib.redirect_stdout(printed):
        exec(watched, {"_seen": seen})
    return printed.getvalue().strip(), seen


def program(rng: random.Random, question: str, code: str) -> Draft:
    """An item asking what `code` prints; a `#watch` line is left out of the prompt and gives the working."""
    target, seen = run_program(code)
    shown = "\n".join(line for line in code.split("\n") if "#watch" not in line)
    numbers = [int(part) for part in target.strip("[]").split(",")]
    wrong = []
    for slip in (1, -1, 2, 5):
        slipped = list(numbers)
        slipped[rng.randrange(len(slipped))] += slip
        wrong.append(str(slipped) if target.startswith("[") else str(slipped[0]))
    if len(numbers) > 1:
        wrong.append(str(numbers[::-1]))
    workings = [
        [f"{line}." for line in seen[-4:]] + ["Printed: {said}."],
        ["Follow the variables line by line.", *[f"{line}." for line in seen[:2]], "The program prints {said}."],
        [f"After {len(seen)} rounds the loop ends.", "What is printed is {said}."],
    ]
    return Draft(f"{question}\n\n{shown}", target, [text for text in wrong if text != target], workings)


def loop_with_condition(rng: random.Random) -> Draft:
    low, m = rng.randrange(1, 6), rng.choice([2, 3, 4])
    return program(
        rng,
        "What does this Python program print?",
        f"total = {rng.randrange(0, 12)}\nfor i in range({low}, {low + rng.randrange(6, 9)}):\n"
        f"    if i % {m} == {rng.randrange(m)}:\n        total = total + {rng.choice(['i', '2 * i', 'i + 1'])}\n"
        f"    else:\n        total = total - {rng.randrange(1, 4)}\n    #watch i = {{i}}, total = {{total}}\n"
        "print(total)",
    )


def rotating_list(rng: random.Random) -> Draft:
    values = rng.sample(range(1, 20), 5)
    return program(
        rng,
        "Execute the following Python code by hand. Which list is printed at the end?",
        f"queue = {values}\nfor step in range({rng.randrange(3, 6)}):\n    first = queue.pop(0)\n"
        f"    queue.append(first + {rng.choice(['step', '2 * step', '1'])})\n"
        f"    {rng.choice(['queue[0], queue[1] = queue[1], queue[0]', 'queue[2] = queue[2] - 1'])}\n"
        "    #watch step {step} leaves {queue}\nprint(queue)",
    )


def while_with_two_variables(rng: random.Random) -> Draft:
    return program(
        rng,
        "Trace the loop below and keep track of both variables. What is the output?",
        f"a, b = {rng.randrange(1, 5)}, {rng.randrange(30, 60)}\nwhile a < b:\n    a = a + {rng.randrange(3, 7)}\n"
        f"    if a % 2 == 0:\n        b = b - {rng.randrange(1, 6)}\n    else:\n        a = a + 1\n"
        f"    #watch a = {{a}}, b = {{b}}\nprint({rng.choice(['a + b', 'a', '2 * a - b', 'b'])})",
    )


def stack_machine(rng: random.Random) -> Draft:
    order = ", ".join(str(rng.randrange(1, 9)) for _ in range(6))
    return program(
        rng,
        "A small stack machine is written in Python. Say what it prints when it is run.",
        f"stack = []\nfor value in [{order}]:\n    if stack and stack[-1] {rng.choice(['<', '>'])} value:\n"
        f"        stack.append(stack.pop() + value)\n    else:\n        stack.append(value)\n"
        "    #watch after {value} the stack is {stack}\nprint(stack)",
    )


# --------------------------------------------------------------------------------------------------- navigation ----
COMPASS = {"north": (0, 1), "east": (1, 0), "south": (0, -1), "west": (-1, 0)}


def back_at_the_start(rng: random.Random) -> Draft:
    moves = [(rng.choice(list(COMPASS)), rng.randrange(1, 7)) for _ in range(4)]
    x, y = (sum(COMPASS[way][axis] * steps for way, steps in moves) for axis in (0, 1))
    # The two legs that are missing close the walk; in half of the items the last one is a step too long.
    moves += [("west" if x > 0 else "east", abs(x))] if x else []
    moves += [("south" if y > 0 else "north", abs(y) + rng.choice([0, 1]) or 1)]
    x, y = (sum(COMPASS[way][axis] * steps for way, steps in moves) for axis in (0, 1))
    told = " ".join(f"Walk {n} step{'s' * (n > 1)} {way}." for way, n in moves)
    target = "Yes" if (x, y) == (0, 0) else "No"
    return Draft(
        f"You stand on a large square and follow these instructions. {told} Are you back at the point where you "
        "started? Answer Yes or No.",
        target,
        ["No" if target == "Yes" else "Yes"],
        [
            ["Start at (0, 0).", f"After the first leg, {moves[0][1]} {moves[0][0]}, go on leg by leg.",
             "Back at the start: {said}."],
            ["Add up east minus west and north minus south.", "Both must be zero.", "My verdict is {said}."],
        ],
    )  # fmt: skip


def facing_at_the_end(rng: random.Random) -> Draft:
    ways, face = [way.capitalize() for way in COMPASS], rng.randrange(4)
    told, seen = [], [f"Start facing {ways[face]}."]
    now = face
    for _ in range(rng.randrange(5, 8)):
        words, turn = rng.choice([("turns left", 3), ("turns right", 1), ("turns around", 2), ("turns right", 1)])
        now = (now + turn) % 4
        told.append(f"{words}, rolls forward {rng.randrange(2, 9)} metres")
        seen.append(f"It {words} and faces {ways[now]}.")
    return Draft(
        f"A delivery robot faces {ways[face].lower()}. It {', '.join(told)} and stops. In which compass direction does "
        "it face now: North, East, South or West?",
        ways[now],
        [way for way in ways if way != ways[now]],
        [
            [*seen[:-1], "It ends facing {said}."],
            ["The distances do not matter, only the turns.", "Counting quarter turns leaves {said}."],
            [*seen[:3], "Going on in this way, the last direction is {said}."],
        ],
    )


def lift_ride(rng: random.Random) -> Draft:
    floor = rng.randrange(4, 12)
    told, seen, at = [], [], floor
    for _ in range(rng.randrange(6, 9)):
        by = rng.choice([step for step in (-4, -3, -2, -1, 1, 2, 3, 5) if 0 <= at + step <= 20])
        at += by
        told.append(f"{'up' if by > 0 else 'down'} {abs(by)}")
        seen.append(f"{told[-1].capitalize()}: floor {at}.")
    return number(
        f"A goods lift waits at floor {floor} of a tower whose ground floor is 0. It then moves, in floors: "
        f"{', '.join(told)}. At which floor does it stand after the last move?",
        at,
        [at + 3, abs(at - 2), floor],
        [
            [*seen[:-1], "The lift stands at floor {said}."],
            [f"From {floor}, take the moves one by one.", *seen[1:4], "At last it is on floor {said}."],
            ["Sum the ups and the downs.", "The floor reached is {said}."],
        ],
    )


def blocks_to_walk_home(rng: random.Random) -> Draft:
    moves = [(rng.choice(list(COMPASS)), rng.randrange(1, 9)) for _ in range(rng.randrange(5, 8))]
    x, y = (sum(COMPASS[way][axis] * steps for way, steps in moves) for axis in (0, 1))
    told = ", then ".join(f"{n} block{'s' * (n > 1)} {way}" for way, n in moves)
    return number(
        f"In a city of square blocks {rng.choice(NAMES)} leaves the hotel and walks {told}. How many blocks is the "
        "shortest way back to the hotel along the streets?",
        abs(x) + abs(y),
        [abs(x), abs(y), sum(n for _, n in moves), abs(x) + abs(y) + 4],
        [
            ["Keep two counters, one for east, one for north.", f"The first leg is {moves[0][1]} {moves[0][0]}.",
             "From the last corner it is {said} blocks."],
            ["Opposite legs cancel.", "What is left over adds up to {said}."],
        ],
    )  # fmt: skip


FAMILIES: dict[str, list[Generator]] = {
    "shuffled_objects": [people_with_scarves, cups_in_a_row, stations_in_a_kitchen, books_on_loan],
    "program_execution": [loop_with_condition, rotating_list, while_with_two_variables, stack_machine],
    "navigation": [back_at_the_start, facing_at_the_end, lift_ride, blocks_to_walk_home],
}
