"""Divisibility and last digits: the first planted weakness."""

import math
import random

from example_families.draft import Draft, Generator, number


# ------------------------------------------------------------------------------------------------- divisibility ----
def multiples_but_not(rng: random.Random) -> Draft:
    a, b = rng.choice([(3, 5), (4, 6), (6, 9), (7, 2), (5, 4), (8, 3), (9, 7)])
    top = rng.randrange(120, 700)
    both = math.lcm(a, b)
    return number(
        f"How many positive integers not greater than {top} are divisible by {a} but not divisible by {b}?",
        top // a - top // both,
        [top // a, top // a - top // b, top // a - top // (a * b) + 1],
        [
            [f"There are {top // a} multiples of {a} up to {top}.", f"Multiples of both {a} and {b} are multiples of "
             f"lcm({a}, {b}) = {both}, and there are {top // both} of these.", "Taking them away leaves {said}."],
            [f"{top} / {a} gives {top // a} multiples.", f"Remove the multiples of {both}: {top} / {both} gives "
             f"{top // both}.", "So {said} numbers remain."],
        ],
    )  # fmt: skip


def missing_digit(rng: random.Random) -> Draft:
    modulus = rng.choice([9, 11, 3, 7])
    while True:
        head, tail = rng.randrange(12, 99), rng.randrange(10, 99)
        fits = [d for d in range(10) if int(f"{head}{d}{tail}") % modulus == 0]
        if fits:
            break
    rule = {
        9: "the digit sum must be a multiple of 9",
        3: "the digit sum must be a multiple of 3",
        11: "the alternating digit sum must be a multiple of 11",
        7: "the number must leave no remainder mod 7",
    }
    return number(
        f"One digit of the five-digit number {head}d{tail} is hidden behind the letter d. What is the smallest digit "
        f"d for which the number is divisible by {modulus}?",
        fits[0],
        [(fits[0] + 3) % 10, (fits[0] + 7) % 10, 9 - fits[0]],
        [
            [f"For divisibility by {modulus}, {rule[modulus]}.", "Going through the digits from below, the first "
             "that works is {said}."],
            [f"With d = 0 the number is {head}0{tail}, which is {int(f'{head}0{tail}') % modulus} mod {modulus}.",
             "Each step of d adds 100.", "Hence d = {said}."],
        ],
    )  # fmt: skip


def is_it_divisible(rng: random.Random) -> Draft:
    modulus = rng.choice([7, 11, 12, 13, 18, 36])
    n = modulus * rng.randrange(400, 4000) + rng.choice([0, rng.randrange(1, modulus)])
    target = "Yes" if n % modulus == 0 else "No"
    below = n // modulus * modulus
    return Draft(
        f"Is the integer {n} divisible by {modulus}? Decide it by divisibility rules or by finding the remainder, and "
        "answer Yes or No.",
        target,
        ["No" if target == "Yes" else "Yes"],
        [
            [f"{modulus} × {n // modulus} = {below}.", f"Compare this with {n}.", "So my verdict is {said}."],
            [f"Look for the multiple of {modulus} next to {n}.", f"The multiple just below or at it is {below}.",
             "That settles it: {said}."],
            [f"Check the prime powers in {modulus} one by one.", "Putting the checks together: {said}."],
        ],
    )  # fmt: skip


def two_remainders(rng: random.Random) -> Draft:
    m, n = rng.choice([(5, 7), (4, 9), (7, 9), (8, 11), (5, 12), (6, 7), (7, 11)])
    target = rng.randrange(max(m, n) + 1, m * n)
    r, s = target % m, target % n
    candidates = [s + n * k for k in range(m)]
    return number(
        f"An integer leaves the remainder {r} on division by {m} and the remainder {s} on division by {n}. What is "
        "the smallest positive integer with both properties?",
        target,
        [value for value in candidates if value not in (0, target)][:3],
        [
            [f"Numbers that are {s} mod {n}: {', '.join(map(str, candidates[:4]))}, ...", f"Reduce each of them "
             f"mod {m} until {r} comes out.", "The first hit is {said}."],
            [f"Write the number as {n}k + {s}.", f"We need {n}k + {s} ≡ {r} (mod {m}).",
             "Solving for k and putting it back gives {said}."],
        ],
    )  # fmt: skip


def greatest_common_divisor(rng: random.Random) -> Draft:
    common = rng.choice([6, 12, 14, 18, 21, 24, 35])
    p, q = rng.sample([11, 13, 16, 17, 19, 23, 25, 29], 2)
    a, b = sorted((common * p, common * q), reverse=True)
    return number(
        f"Two gears have {a} and {b} teeth. What is the largest integer that divides both {a} and {b}?",
        common,
        [common // 2 if common % 2 == 0 else common // 7, common * 2, a - b],
        [
            [f"Euclid: {a} = {a // b} × {b} + {a % b}.", "Continue until the remainder is zero.",
             "The last remainder that is not zero is {said}."],
            [f"Factor {a} and {b} into primes.", "Keep the primes they share.", "Their product is {said}."],
        ],
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------- last digits ----
def last_digit_of_power(rng: random.Random) -> Draft:
    base, power = rng.choice([2, 3, 7, 8, 12, 13, 17, 18, 23, 27]), rng.randrange(31, 400)
    cycle = [pow(base, k, 10) for k in range(1, 5)]
    return number(
        f"The power {base}^{power} is written out in full in base ten. What is its last digit, the digit in the ones "
        "place?",
        pow(base, power, 10),
        [value for value in cycle if value != pow(base, power, 10)],
        [
            [f"The last digits of the powers of {base} repeat with period 4.", f"{power} mod 4 is {power % 4}.",
             "Reading off the cycle gives {said}."],
            [f"Work modulo 10: {base} ≡ {base % 10}.", "The powers run through a short cycle.",
             f"At the exponent {power} the cycle stands at {{said}}."],
        ],
    )  # fmt: skip


def sum_of_powers(rng: random.Random) -> Draft:
    (a, b), m = rng.sample([2, 3, 4, 5, 6, 8, 9, 10], 2), rng.choice([7, 11, 13])
    i, j = rng.randrange(20, 90), rng.randrange(20, 90)
    left, right = pow(a, i, m), pow(b, j, m)
    return number(
        f"Find the remainder when {a}^{i} + {b}^{j} is divided by {m}.",
        (left + right) % m,
        [left, right, (left * right) % m, (left + right + 3) % m],
        [
            [f"By Fermat, exponents may be reduced modulo {m - 1}.", f"So {a}^{i} becomes {a}^{i % (m - 1)} and "
             f"{b}^{j} becomes {b}^{j % (m - 1)}.", f"Their sum is {{said}} modulo {m}."],
            [f"Take the residues of the powers of {a} modulo {m}, then those of {b}.", "Adding them and reducing once "
             "more gives {said}."],
        ],
    )  # fmt: skip


def residues_of_a_polynomial(rng: random.Random) -> Draft:
    m = rng.choice([5, 7, 8, 9, 11, 12])
    r, s, p, q = rng.randrange(1, m), rng.randrange(1, m), rng.randrange(2, 9), rng.randrange(2, 9)
    raw = p * r + q * s * s
    return number(
        f"The integers x and y satisfy x ≡ {r} (mod {m}) and y ≡ {s} (mod {m}). What is the remainder of "
        f"{p}x + {q}y^2 on division by {m}?",
        raw % m,
        [(p * r + q * s) % m, (raw + 2) % m, (p + q) % m],
        [
            [f"Replace x by {r} and y by {s}.", f"{p}·{r} + {q}·{s}^2 = {raw}.", f"Modulo {m} this is {{said}}."],
            [f"y^2 ≡ {s * s % m} (mod {m}).", f"Then multiply by {q} and add {p}·{r}.", "The residue is {said}."],
        ],
    )  # fmt: skip


def last_two_digits(rng: random.Random) -> Draft:
    a, b, c = (rng.randrange(113, 989) for _ in range(3))
    target = f"{a * b * c % 100:02d}"
    wrong = dict.fromkeys(f"{value % 100:02d}" for value in (a * b, b * c, a * b * c + 10, a * b * c + 4, a + b + c))
    return Draft(
        f"What are the last two digits of the product {a} × {b} × {c}? Give both digits, including a leading zero "
        "where there is one.",
        target,
        [value for value in wrong if value != target],
        [
            [f"Only the residues mod 100 matter: {a % 100}, {b % 100} and {c % 100}.",
             f"{a % 100} × {b % 100} ends in {a * b % 100:02d}.", "Times the third, that ends in {said}."],
            ["Multiply the last two digits only.", "Reduce modulo 100 after each product.", "We end at {said}."],
        ],
    )  # fmt: skip


def back_to_zero(rng: random.Random) -> Draft:
    m, step = rng.choice([12, 15, 18, 20, 24, 28, 30, 36]), rng.randrange(8, 60)
    return number(
        f"In arithmetic modulo {m} we start at 0 and keep adding {step}. After how many additions are we at 0 again "
        "for the first time?",
        m // math.gcd(m, step),
        [math.gcd(m, step), m, math.lcm(m, step)],
        [
            [f"We need the least n with {step}n ≡ 0 (mod {m}).", f"Divide {m} by what it shares with {step}.",
             "That gives {said}."],
            [f"{step} ≡ {step % m} (mod {m}).", "List the multiples until one vanishes.", "It takes {said} additions."],
        ],
    )  # fmt: skip


FAMILIES: dict[str, list[Generator]] = {
    "divisibility": [multiples_but_not, missing_digit, is_it_divisible, two_remainders, greatest_common_divisor],
    "last_digits": [last_digit_of_power, sum_of_powers, residues_of_a_polynomial, last_two_digits, back_to_zero],
}
