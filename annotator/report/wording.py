"""How numbers and foreign texts are written on the page."""

from __future__ import annotations

import re
from typing import Any

# Control characters, and those that turn the direction of a line: a document must not be able to rearrange the page.
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
MISSING = "–"


def clip(text: Any, characters: int) -> str:
    """One line of at most `characters`, without control characters.

    >>> clip("  two\\nlines of text ", 10)
    'two lines…'
    """
    line = " ".join(_INVISIBLE.sub(" ", str(text)).split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"


def percent(rate: float | None, digits: int = 1) -> str:
    """A rate in 0..1 as a percentage.

    >>> percent(0.5), percent(None)
    ('50.0 %', '–')
    """
    return MISSING if rate is None else f"{_signed(100 * rate, digits)} %"


def points(difference: float | None, digits: int = 1) -> str:
    """A difference of two rates in percentage points, without a unit.

    >>> points(-0.042)
    '−4.2'
    """
    return MISSING if difference is None else _signed(100 * difference, digits)


def number(value: float | None, digits: int = 2) -> str:
    """A plain number with so many decimals.

    >>> number(0.12345), number(None)
    ('0.12', '–')
    """
    return MISSING if value is None else _signed(value, digits)


def chance(p: float | None) -> str:
    """A p or q value.

    >>> chance(0.0312), chance(0.00004)
    ('0.031', '< 0.001')
    """
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(value: int | None) -> str:
    """A whole number with thousands apart.

    >>> count(1234567)
    '1,234,567'
    """
    return MISSING if value is None else f"{value:,}"


def amount(tokens: int | None) -> str:
    """A number of tokens to three digits.

    >>> amount(950), amount(12_345), amount(2_000_000_000)
    ('950', '12.3 k', '2 G')
    """
    if tokens is None:
        return MISSING
    scaled, unit = float(tokens), ""
    for larger in (" k", " M", " G", " T"):
        if scaled < 999.5:
            break
        scaled, unit = scaled / 1000, larger
    return f"{scaled:.3g}{unit}" if scaled < 999.5 else f"{scaled:,.0f}{unit}"


def several(value: int, noun: str, nouns: str = "") -> str:
    """A count with its noun.

    >>> several(1, "slice"), several(3, "category", "categories")
    ('1 slice', '3 categories')
    """
    return f"{value:,} {noun if value == 1 else nouns or noun + 's'}"


def _signed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    if float(text) == 0:  # no "-0.0"
        text = text.lstrip("-")
    return text.replace("-", "−")
