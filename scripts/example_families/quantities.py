"""Word problems, equations, chance and figures: families in which nothing is planted but the hard one, probability."""

import math
import random
from fractions import Fraction
from itertools import product

from example_families.draft import Draft, Generator, number, ratio


# ------------------------------------------------------------------------------------------------ word problems ----
def sale_price(rng: random.Random) -> Draft:
    price, cut, card = rng.randrange(40, 400, 20), rng.choice([5, 10, 15, 20, 30, 35]), rng.randrange(2, 12)
    thing = rng.choice(["winter coat", "desk lamp", "bicycle helmet", "rucksack", "coffee grinder"])
    off = price * cut // 100
    return number(
        f"A {thing} costs {price} euros. In the spring sale its price is cut by {cut} %, and a loyalty card takes a "
        f"further {card} euros off the sale price. How many euros does a customer with the card pay?",
        price - off - card,
        [price - off, price - cut - card, off + card, price - off + card],
        [
            [f"{cut} % of {price} is {off}.", f"{price} - {off} = {price - off}.", "After the card: {said} euros."],
            [f"The sale price is {price - off} euros.", f"Then {card} come off.", "That leaves {said}."],
        ],
    )  # fmt: skip


def tanks_filled(rng: random.Random) -> Draft:
    rate, minutes, tank = rng.randrange(12, 60, 2), rng.randrange(20, 95, 5), rng.choice([35, 45, 80, 110, 140])
    litres = rate * minutes
    return number(
        f"A pump moves {rate} litres of water a minute. It runs for {minutes} minutes and fills barrels of {tank} "
        "litres one after another. How many barrels are completely full at the end?",
        litres // tank,
        [-(-litres // tank), litres // tank + 3, litres // (2 * tank)],
        [
            [f"{rate} × {minutes} = {litres} litres.", f"{litres} / {tank} is what counts.", "Full barrels: {said}."],
            [f"In {minutes} minutes {litres} litres are pumped.", "Divide among the barrels.", "So {said} are full."],
        ],
    )  # fmt: skip


def flour_in_kilograms(rng: random.Random) -> Draft:
    grams, kilograms = rng.choice([(250, 4), (375, 8), (125, 8), (625, 8), (750, 4), (350, 20)]), rng.randrange(3, 12)
    each, cakes = grams[0], grams[1] * kilograms
    return number(
        f"One loaf needs {each} grams of flour. A bakery makes {cakes} such loaves a day. How many kilograms of flour "
        "does it use in a day?",
        each * cakes // 1000,
        [each * cakes // 100, each * cakes // 1000 + 5, each * cakes // 2000],
        [
            [f"{each} g × {cakes} = {each * cakes} g.", "A kilogram has 1000 g.", "That is {said} kg."],
            [f"Per day: {cakes} loaves at {each} grams.", "Convert at the end.", "The bakery uses {said} kilograms."],
        ],
    )  # fmt: skip


def two_speeds(rng: random.Random) -> Draft:
    v, w = rng.sample(range(12, 40, 4), 2)
    s, t = rng.sample([15, 30, 45, 60, 90, 75], 2)
    who = rng.choice(["cyclist", "delivery rider", "runner on roller skates"])
    return number(
        f"A {who} travels at {v} km/h for {s} minutes and then at {w} km/h for {t} minutes. How many kilometres is "
        "that altogether?",
        (v * s + w * t) // 60,
        [(v + w) * (s + t) // 120, v + w, v * s // 60, w * t // 60],
        [
            [f"First part: {v} × {s}/60 = {v * s // 60} km.", f"Second part: {w} × {t}/60 = {w * t // 60} km.",
             "Together {said} km."],
            ["Turn minutes into hours and multiply by the speed, part by part.", "The sum is {said} kilometres."],
        ],
    )  # fmt: skip


# --------------------------------------------------------------------------------------------- linear equations ----
def unknown_on_both_sides(rng: random.Random) -> Draft:
    x, a, c, b = rng.randrange(-9, 15), rng.randrange(5, 12), rng.randrange(2, 5), rng.randrange(3, 30)
    d = a * x + b - c * x
    return number(
        f"Solve the equation {a}x + {b} = {c}x {'+' if d >= 0 else '-'} {abs(d)} for x.",
        x,
        [-x, x + 4, x - 3],
        [
            [f"Subtract {c}x on both sides: {a - c}x + {b} = {d}.", f"So {a - c}x = {d - b}.", "x = {said}."],
            [f"Bring the unknowns left, numbers right: {a - c}x = {d - b}.", "Dividing gives x = {said}."],
        ],
    )  # fmt: skip


def sum_and_difference(rng: random.Random) -> Draft:
    x, y = rng.randrange(8, 30), rng.randrange(1, 8)
    return number(
        f"The numbers x and y satisfy x + y = {x + y} and x - y = {x - y}. What is the value of the product xy?",
        x * y,
        [(x + y) * (x - y), x * y + x, x * y - y],
        [
            [f"Adding both equations: 2x = {2 * x}.", f"Hence x = {x} and y = {y}.", "The product is {said}."],
            ["x is half the sum of the right-hand sides, y half their difference.", "Then xy = {said}."],
        ],
    )  # fmt: skip


def bracket_then_value(rng: random.Random) -> Draft:
    x, a, b, p, q = (rng.randrange(low, high) for low, high in [(4, 20), (2, 9), (1, 9), (2, 7), (1, 12)])
    return number(
        f"If {a}(x - {b}) = {a * (x - b)}, what is the value of {p}x + {q}?",
        p * x + q,
        [x, p * x, p * (x - b) + q],
        [
            [f"Divide by {a}: x - {b} = {x - b}.", f"So x = {x}.", f"{p}x + {q} = {{said}}."],
            ["Undo the bracket first, then insert x.", "The expression has the value {said}."],
        ],
    )  # fmt: skip


def line_through_two_points(rng: random.Random) -> Draft:
    slope, offset = rng.choice([-3, -2, 2, 3, 4, 5]), rng.randrange(-9, 12)
    p, q = sorted(rng.sample(range(1, 9), 2))
    return number(
        f"The line y = mx + k passes through the points ({p}, {slope * p + offset}) and ({q}, {slope * q + offset}). "
        "What is k?",
        offset,
        [slope, -offset, offset + slope],
        [
            [f"m = {slope * (q - p)} / {q - p} = {slope}.", f"Insert the first point: {slope * p + offset} = "
             f"{slope}·{p} + k.", "k = {said}."],
            ["Take the slope from the two points, then solve for k.", "This gives k = {said}."],
        ],
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------- probability ----
def same_colour(rng: random.Random) -> Draft:
    counts = [rng.randrange(2, 8) for _ in range(3)]
    total = sum(counts)
    same, pairs = sum(math.comb(n, 2) for n in counts), math.comb(total, 2)
    return ratio(
        f"A bag holds {counts[0]} red, {counts[1]} green and {counts[2]} blue marbles. Two marbles are drawn at random "
        "without putting the first one back. What is the probability that both have the same colour?",
        Fraction(same, pairs),
        [Fraction(sum(n * n for n in counts), total * total), Fraction(math.comb(counts[0], 2), pairs)],
        [
            [f"There are {pairs} pairs in all.", f"Pairs of one colour: {same}.", "Reduced, that is {said}."],
            ["Add up the three colours, each as a ratio of counts.", "This gives {said}."],
        ],
    )


def dice_sum(rng: random.Random) -> Draft:
    dice, low = rng.choice([(2, rng.randrange(5, 11)), (3, rng.randrange(8, 15))])
    hits = sum(sum(roll) >= low for roll in product(range(1, 7), repeat=dice))
    above = sum(sum(roll) > low for roll in product(range(1, 7), repeat=dice))
    return ratio(
        f"{'Two' if dice == 2 else 'Three'} fair six-sided dice are rolled. What is the probability that the sum of "
        f"the faces is at least {low}?",
        Fraction(hits, 6**dice),
        [Fraction(above, 6**dice)] if above else [],
        [
            [f"There are {6**dice} equally likely outcomes.", "Count those high enough.", "The ratio is {said}."],
            ["Go through the sums from the top.", f"Divide the tally by {6**dice}.", "We get {said}."],
        ],
    )


def committee(rng: random.Random) -> Draft:
    women, men, size = rng.randrange(4, 8), rng.randrange(3, 7), rng.choice([3, 4])
    wanted = rng.randrange(1, size)
    ways, total = math.comb(women, wanted) * math.comb(men, size - wanted), math.comb(women + men, size)
    return ratio(
        f"A committee of {size} is drawn by lot from {women} women and {men} men. What is the probability that it has "
        f"exactly {wanted} {'woman' if wanted == 1 else 'women'}?",
        Fraction(ways, total),
        [Fraction(wanted, size), Fraction(math.comb(women, wanted), total)],
        [
            [f"C({women + men}, {size}) = {total} committees are possible.", "Choose the women, then the men.",
             "The probability is {said}."],
            ["Favourable over possible.", f"The possible ones number {total}.", "Reduced: {said}."],
        ],
    )  # fmt: skip


def card_order(rng: random.Random) -> Draft:
    n = rng.randrange(5, 10)
    first, kind = rng.sample(range(1, n + 1), 2), rng.choice(["next to each other", "at the two ends of the row"])
    ways = 2 * (n - 1) if kind.startswith("next") else 2
    return ratio(
        f"Cards numbered 1 to {n} are shuffled and laid in a row. What is the probability that the cards {min(first)} "
        f"and {max(first)} lie {kind}?",
        Fraction(ways, n * (n - 1)),
        [Fraction(1, n), Fraction(1, n - 1), Fraction(1, n * (n - 1))],
        [
            [f"The two cards can lie in {n * (n - 1)} ordered pairs of places.", "Count the places that fit.",
             "So {said}."],
            ["Only the places of the two cards matter.", "Favourable over all pairs is {said}."],
        ],
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------- geometry ----
TRIPLES = [(3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25), (20, 21, 29), (9, 40, 41)]


def right_triangle_area(rng: random.Random) -> Draft:
    scale = rng.randrange(2, 9, 2)
    a, b, c = (scale * side for side in rng.choice(TRIPLES))
    return number(
        f"In triangle ABC the angle at C is a right angle, AB = {c} and AC = {a}. What is the area of the triangle?",
        a * b // 2,
        [a * b, a * c // 2, b * c // 2],
        [
            [f"BC^2 = {c}^2 - {a}^2, so BC = {b}.", "The area is half the product of the legs.", "Area = {said}."],
            ["Pythagoras gives the other leg.", f"It is {b}.", "Half of leg times leg is {said}."],
        ],
    )


def angle_ratio(rng: random.Random) -> Draft:
    p, q, r = rng.choice([(2, 3, 4), (1, 2, 3), (2, 3, 5), (3, 4, 5), (1, 4, 5), (2, 5, 8), (4, 5, 9), (3, 5, 7)])
    unit = 180 // (p + q + r)
    which, part = rng.choice([("largest", r), ("smallest", p)])
    return number(
        f"The angles of a triangle are in the ratio {p} : {q} : {r}. How many degrees has the {which} angle?",
        part * unit,
        [unit, q * unit, 180 - part * unit],
        [
            [f"{p} + {q} + {r} = {p + q + r} parts make 180°.", f"One part is {unit}°.", "The angle is {said}°."],
            ["The parts add up to a straight angle.", "So the angle we want has {said} degrees."],
        ],
    )


def garden_path(rng: random.Random) -> Draft:
    w, h, t = rng.randrange(12, 40), rng.randrange(8, 30), rng.randrange(1, 4)
    inner = (w - 2 * t) * (h - 2 * t)
    return number(
        f"A rectangular garden measures {w} m by {h} m. Inside it, along all four sides, runs a path {t} m wide. How "
        "many square metres does the path cover?",
        w * h - inner,
        [2 * t * (w + h), inner, w * h - (w - t) * (h - t)],
        [
            [f"The garden has {w * h} square metres.", f"The inner rectangle is {w - 2 * t} by {h - 2 * t}.",
             "The difference is {said}."],
            ["Area outside minus area inside.", "That is {said} square metres."],
        ],
    )  # fmt: skip


def rhombus_side(rng: random.Random) -> Draft:
    (a, b, c), k = rng.choice(TRIPLES), rng.randrange(1, 5)
    return number(
        f"The diagonals of a rhombus are {2 * k * a} cm and {2 * k * b} cm long. How many centimetres long is one "
        "side?",
        k * c,
        [k * (a + b), k * (a + b) // 2, 2 * k * c],
        [
            ["The diagonals halve each other at right angles.", f"The halves are {k * a} and {k * b}.",
             "So the side is {said} cm."],
            [f"Side^2 = {k * a}^2 + {k * b}^2.", "The root is {said}."],
        ],
    )  # fmt: skip


FAMILIES: dict[str, list[Generator]] = {
    "word_problems": [sale_price, tanks_filled, flour_in_kilograms, two_speeds],
    "linear_equations": [unknown_on_both_sides, sum_and_difference, bracket_then_value, line_through_two_points],
    "probability": [same_colour, dice_sum, committee, card_order],
    "geometry": [right_triangle_area, angle_ratio, garden_path, rhombus_side],
}
