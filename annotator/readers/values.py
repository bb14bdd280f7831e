"""Single values as other people write them, turned into the types of our columns."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Sequence
from typing import Any

import orjson


def as_id(value: Any) -> str | None:
    """An id as text: 17 and 17.0 both give "17" (a table with gaps turns integers into floats); blank gives None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else as_json(value)
    return text if text.strip() else None


def as_text(value: Any) -> str | None:
    """A prompt, target or response as text.

    Numbers and booleans as Python prints them; a list of strings (accepted answers) joined by "; "; chat messages as
    their contents with an empty line between; anything else as JSON.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list) and value:
        if all(isinstance(part, dict) and "content" in part for part in value):
            return "\n\n".join(as_text(part["content"]) or "" for part in value)
        if all(isinstance(part, dict) and part.get("type") == "text" for part in value):
            return "\n\n".join(as_text(part.get("text")) or "" for part in value)
        if all(isinstance(part, str | int | float) for part in value):
            return "; ".join(str(part) for part in value)
    return as_json(value) if isinstance(value, list | dict) else str(value)  # dates, decimals


def as_json(value: Any) -> str:
    """Compact JSON text of a value that has no column of its own."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return json.dumps(value, ensure_ascii=False, default=str)  # integers beyond 64 bits


def as_strings(value: Any) -> list[str] | None:
    """A list of strings: from a list, from the text of one (csv), or from one string alone.

    The `{"text": [...], "label": [...]}` of some data sets gives its texts; an empty list gives None.
    """
    if isinstance(value, str):
        value = _parsed_list(value)
    if isinstance(value, dict):
        value = value.get("text", list(value.values()))
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(part, dict) and "text" in part for part in value):
        value = [part["text"] for part in value]
    return [as_text(part) or "" for part in value]


def _parsed_list(text: str) -> list[Any] | dict[str, Any]:
    for parse in (orjson.loads, ast.literal_eval):  # JSON as we write it; the list of Python that pandas writes
        try:
            value = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, list | dict):
            return value
    return [text]


_WORDS = {"true": 1.0, "false": 0.0, "correct": 1.0, "incorrect": 0.0, "yes": 1.0, "no": 0.0}


def as_score(value: Any) -> float | None:
    """A score in 0..1 from a boolean, a number, or the text of one; None for an absent one.

    Raises:
        ValueError: with a few words, if it is something else or lies outside 0..1.
    """
    if isinstance(value, str):
        if not value.strip():
            return None
        word = _WORDS.get(value.strip().lower())
        try:
            value = float(value) if word is None else word
        except ValueError:
            raise ValueError(f"score {value[:40]!r} is not a number") from None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, bool | int | float):
        raise ValueError(f"score {as_json(value)[:40]} is not a number")
    if not -1e-9 <= value <= 1 + 1e-9:
        raise ValueError(f"score {value} lies outside 0..1")
    return min(max(float(value), 0.0), 1.0)


def as_int(value: Any) -> int | None:
    """A whole number from a number or its text, else None."""
    number = as_float(value)
    return int(number) if number is not None and abs(number) < 2**63 else None


def as_float(value: Any) -> float | None:
    """A finite number from a number or its text, else None."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        return None
    return float(value)


def flatten(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the fields of its nested objects beside it as "outer.inner", one level deep.

    >>> flatten({"id": 1, "metadata": {"level": 3, "tags": ["a"]}})
    {'id': 1, 'metadata.level': 3, 'metadata.tags': ['a']}
    """
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if type(value) is dict and name != "choices" and name != "options":
            for inner, nested in value.items():
                flat[f"{name}.{inner}"] = nested
        else:
            flat[name] = value
    return flat


def strings_or_none(values: Sequence[Any]) -> list[str | None]:
    """`as_text` of each value."""
    return [value if type(value) is str else as_text(value) for value in values]
