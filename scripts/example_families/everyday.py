"""Dates, tables, sorting and brackets. Dates come from the calendar, table answers from the table as it was drawn."""

import random
from datetime import date, timedelta

from example_families.draft import Draft, Generator, number, sequence

WORDS = [
    "anchor", "basket", "candle", "dragon", "engine", "feather", "garden", "hammer", "island", "jacket",
    "kettle", "lantern", "marble", "needle", "orchard", "pepper", "quarry", "ribbon", "saddle", "thimble",
    "umbrella", "velvet", "window", "yarn", "zebra", "bottle", "bridge", "copper", "dinner", "fabric",
    "glacier", "harvest", "inkwell", "lemon", "mirror", "nutmeg", "oyster", "pencil", "rocket", "shadow",
    "ticket", "vessel", "walnut",
]  # fmt: skip


# -------------------------------------------------------------------------------------------------------- dates ----
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December"]  # fmt: skip


def spelled(day: date) -> str:
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def some_day(rng: random.Random) -> date:
    return date(2021, 1, 1) + timedelta(days=rng.randrange(2000))


def days_from_today(rng: random.Random) -> Draft:
    today, days, back = some_day(rng), rng.randrange(12, 80), rng.random() < 0.4
    target = today + timedelta(days=-days if back else days)
    form = "{:%m/%d/%Y}".format
    asked = f"What was the date {days} days ago" if back else f"What is the date {days} days from now"
    return Draft(
        f"Today is {spelled(today)}. {asked}? Write it as MM/DD/YYYY.",
        form(target),
        [form(target + timedelta(days=slip)) for slip in (1, -1, 2, 30, -31)],
        [
            [f"{MONTHS[today.month - 1]} gives the first days.", "Carry on month by month.", "We arrive at {said}."],
            [f"Count {days} days {'back' if back else 'on'}, minding the lengths of the months.", "That is {said}."],
        ],
    )


def weekday_later(rng: random.Random) -> Draft:
    known, days = some_day(rng), rng.randrange(20, 160)
    asked = known + timedelta(days=days)
    target = WEEKDAYS[asked.weekday()]
    return Draft(
        f"{spelled(known)} was a {WEEKDAYS[known.weekday()]}. On which day of the week did {spelled(asked)} fall?",
        target,
        [day for day in WEEKDAYS if day != target],
        [
            [f"Between the dates lie {days} days.", "Take away full weeks.", "It was a {said}."],
            [f"Start at {WEEKDAYS[known.weekday()]} and skip whole weeks.", "The day is {said}."],
        ],
    )


def nth_lesson(rng: random.Random) -> Draft:
    first, gap, n = some_day(rng), rng.choice([3, 4, 5, 10, 14]), rng.randrange(5, 12)
    last = first + timedelta(days=gap * (n - 1))
    return Draft(
        f"A course has its first lesson on {spelled(first)} and a further lesson every {gap} days. On what date is "
        f"lesson number {n}? Write day, month and year, as in the first date.",
        spelled(last),
        [spelled(last + timedelta(days=slip)) for slip in (gap, -gap, 1, -1)],
        [
            [f"There are {n - 1} gaps of {gap} days.", f"That makes {gap * (n - 1)} days.", "The lesson is on {said}."],
            ["Step through the calendar from the first lesson.", "We land on {said}."],
        ],
    )


def clock(minutes: int) -> str:
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"


def arrival_time(rng: random.Random) -> Draft:
    start, takes = rng.randrange(16 * 60, 24 * 60), rng.randrange(125, 560)
    return Draft(
        f"A night train leaves at {clock(start)} and is under way for {takes // 60} hours and {takes % 60} minutes, "
        "all in one time zone. At what time does it arrive? Use the 24-hour clock, HH:MM.",
        clock(start + takes),
        [clock(start + takes + slip) for slip in (60, -60, 10, -20)],
        [
            [f"{clock(start)} plus {takes // 60} hours is {clock(start + takes // 60 * 60)}.",
             f"Then {takes % 60} minutes more.", "It arrives at {said}."],
            ["Add hours and minutes, passing midnight where needed.", "Arrival: {said}."],
        ],
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- table lookup ----
def table(heads: list[str], rows: list[list]) -> str:
    return "\n".join(" | ".join(map(str, row)) for row in [heads, *rows])


def cheapest_with_enough_stock(rng: random.Random) -> Draft:
    names = rng.sample(["hinge", "bolt", "washer", "bracket", "screw", "rivet", "hook", "clamp"], 6)
    prices, stock = rng.sample(range(3, 60), 6), [rng.randrange(0, 90) for _ in names]
    need = sorted(stock)[2]
    fit = [(price, name) for price, name, left in zip(prices, names, stock, strict=True) if left >= need]
    rows = [list(row) for row in zip(names, prices, stock, strict=True)]
    target = min(fit)[1]
    return Draft(
        f"{table(['part', 'price in cents', 'in stock'], rows)}\n\nWhich part in the table is the cheapest among those "
        f"with at least {need} in stock?",
        target,
        [name for name in names if name != target],
        [
            [f"{len(fit)} rows have {need} or more.", "Compare the prices in these rows.", "The part is {said}."],
            ["Strike out the rows with too little stock.", "Lowest price of the rest: {said}."],
        ],
    )


def total_of_a_column(rng: random.Random) -> Draft:
    people, towns = rng.sample(["Moss", "Reed", "Vale", "Finch", "Stone", "Wren"], 6), ["Ost", "Brack", "Lund"]
    rows = [[person, rng.choice(towns), rng.randrange(5, 60)] for person in people]
    town = rows[2][1]
    target = sum(row[2] for row in rows if row[1] == town)
    return number(
        f"{table(['driver', 'depot', 'parcels'], rows)}\n\nAccording to these records, how many parcels did the "
        f"drivers of the depot {town} deliver altogether?",
        target,
        [rows[2][2], sum(row[2] for row in rows), target + rows[0][2]],
        [
            [f"Rows with depot {town}: {sum(row[1] == town for row in rows)}.", "Add their parcels.", "Total {said}."],
            ["Pick the depot's rows and add the last column.", "That makes {said} parcels."],
        ],
    )


def rows_that_meet_two_conditions(rng: random.Random) -> Draft:
    titles = rng.sample(["Low Tide", "Ash Road", "The Loom", "Nine Bells", "Paper Sun", "Old Salt", "Far Field"], 7)
    rows = [[title, rng.choice(["fiction", "travel", "poetry"]), rng.randrange(1950, 2020)] for title in titles]
    kind, year = rows[0][1], rng.randrange(1970, 2000)
    target = sum(row[1] == kind and row[2] > year for row in rows)
    return number(
        f"{table(['title', 'shelf', 'year'], rows)}\n\nHow many rows of the table belong to the shelf {kind} and have "
        f"a year after {year}?",
        target,
        [sum(row[1] == kind for row in rows), sum(row[2] > year for row in rows)],
        [
            [f"Shelf {kind}: {sum(row[1] == kind for row in rows)} rows.", "Keep the later ones.", "Left: {said}."],
            ["Check both columns row by row.", "{said} rows pass."],
        ],
    )


def look_up_by_key(rng: random.Random) -> Draft:
    codes = [f"{rng.choice('KLMPRT')}{rng.randrange(100, 999)}" for _ in range(6)]
    halls = rng.sample(["North Hall", "Mill Room", "Library", "Gallery", "Annex", "Court Room", "Studio"], 6)
    rows = [list(row) for row in zip(codes, halls, rng.sample(range(20, 200, 5), 6), strict=True)]
    falling = sorted(rows, key=lambda row: -row[2])
    word, chosen = rng.choice([("largest", falling[0]), ("second largest", falling[1])])
    return Draft(
        f"{table(['booking', 'room', 'seats'], rows)}\n\nWhat is the booking code of the room with the {word} number "
        "of seats in this list?",
        chosen[0],
        [code for code in codes if code != chosen[0]],
        [
            ["Go down the last column.", f"The {word} number there decides.", "Its booking code is {said}."],
            [f"The {word} room is what we look for.", "In the first column we read {said}."],
        ],
    )


# ---------------------------------------------------------------------------------------- sorting and brackets ----
def exchanged(rng: random.Random, words: list[str]) -> list[str]:
    """The same sequence with two neighbours exchanged: the commonest slip in sorting."""
    at = rng.randrange(len(words) - 1)
    return [*words[:at], words[at + 1], words[at], *words[at + 2 :]]


def alphabetical(rng: random.Random) -> Draft:
    words = rng.sample(WORDS, rng.randrange(7, 10))
    right = sorted(words)
    return sequence(
        f"Sort these words alphabetically and write them in one line, separated by spaces: {' '.join(words)}",
        right,
        [exchanged(rng, right), exchanged(rng, right), right[:-2] + right[-1:]],
        [["Group the words by their first letter.", "Inside a group look at the second letter."],
         ["Pick the smallest word, again and again."]],
    )  # fmt: skip


def by_length(rng: random.Random) -> Draft:
    words = rng.sample(WORDS, 6)
    right = sorted(words, key=lambda word: (len(word), word))
    return sequence(
        "Put the words below in order of length, the shortest first; words of equal length stand in alphabetical "
        f"order. Answer with the words only, separated by spaces.\n{' '.join(words)}",
        right,
        [exchanged(rng, right), sorted(words), right[::-1]],
        [["Count the letters of every word.", "Ties go by the alphabet."],
         [f"The shortest has {len(right[0])} letters, the longest {len(right[-1])}."]],
    )  # fmt: skip


def closing_brackets(rng: random.Random) -> Draft:
    pairs = {"(": ")", "[": "]", "{": "}", "<": ">"}
    open_now: list[str] = []
    shown: list[str] = []
    while len(shown) < 12 or not 3 <= len(open_now) <= 5:
        if open_now and rng.random() < (0.4 if len(open_now) < 5 else 0.8):
            shown.append(pairs[open_now.pop()])
        else:
            open_now.append(rng.choice(list(pairs)))
            shown.append(open_now[-1])
    right = [pairs[bracket] for bracket in reversed(open_now)]
    return sequence(
        "Complete the bracket sequence so that every bracket is closed in the right order. Give only the closing "
        f"brackets that are missing, separated by spaces.\n{' '.join(shown)}",
        right,
        [right[::-1], right[1:], exchanged(rng, right), [*right, ")"]],
        [["Keep a stack of the brackets that are open.", f"At the end {len(open_now)} are open."],
         ["Close the innermost bracket first."]],
    )  # fmt: skip


def letters_of_words(rng: random.Random) -> Draft:
    words, which = rng.sample(WORDS, 5), rng.choice(["last", "second", "third"])
    at = {"last": -1, "second": 1, "third": 2}[which]
    right = [word[at] for word in words]
    return sequence(
        f"Take the {which} letter of each of these words, in the order given, and write the letters one after the "
        f"other without spaces: {', '.join(words)}.",
        right,
        [exchanged(rng, right), [word[0] for word in words], [word[at - 1] for word in words]],
        [[f"{words[0]} gives {right[0]}, {words[1]} gives {right[1]}.", "The others follow in the same way."],
         [f"Read off the {which} letters one by one."]],
        glue="",
    )  # fmt: skip


FAMILIES: dict[str, list[Generator]] = {
    "dates": [days_from_today, weekday_later, nth_lesson, arrival_time],
    "table_lookup": [
        cheapest_with_enough_stock, total_of_a_column, rows_that_meet_two_conditions, look_up_by_key],
    "sorting_brackets": [alphabetical, by_length, closing_brackets, letters_of_words],
}  # fmt: skip
