"""What can go wrong, as exceptions.

    AnnotatorError                    catch this to catch everything of ours
    ├── BadInput        (exit 2)      the user's file, table or setting is wrong
    │   └── UnknownValue              a label, rule or slice names a value that its axis does not define
    ├── StoppedEarly    (exit 3)      a budget, a limit or Ctrl-C; the same command resumes
    └── ServiceFailure  (exit 4)      the judge or another service cannot be used

Every message is one line: where, what is wrong, how to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection


class AnnotatorError(Exception):
    """Base of all errors that this package raises on purpose."""

    exit_code = 1


class BadInput(AnnotatorError):
    """The user's input or settings are wrong.

    Args:
        what: what is wrong, in a few words ("no column 'item_id'").
        where: the file, and the row or key where it is known ("items.csv", "items.jsonl:41").
        remedy: what to do about it, a sentence.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        located = f"{where}: {what}" if where else what
        sentence = located if located.endswith((".", "?", "!")) else f"{located}."
        super().__init__(" ".join(f"{sentence} {remedy}".split()))


class UnknownValue(BadInput):
    """A value is used that its axis does not define; carries `axis` and `value`."""

    def __init__(self, axis: str, value: str, allowed: Collection[str], where: str) -> None:
        self.axis, self.value = axis, value
        super().__init__(f"{value!r} is not a value of {axis}", where=where, remedy=did_you_mean(value, allowed))


class StoppedEarly(AnnotatorError):
    """The run ended before its input did, and can be resumed by the same command."""

    exit_code = 3


class ServiceFailure(AnnotatorError):
    """The judge or another service cannot be used: wrong key, no such model, unreachable."""

    exit_code = 4


def did_you_mean(word: str, allowed: Collection[str]) -> str:
    """A hint for a misspelt word: the nearest allowed one, or the list when it is short.

    >>> did_you_mean("calculation", ["calculate", "prove"])
    "Did you mean 'calculate'?"
    """
    near = difflib.get_close_matches(word, allowed, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]!r}?"
    if not allowed:
        return ""
    listed = sorted(allowed)
    shown = ", ".join(listed[:12]) + (f", ... ({len(listed)} in all)" if len(listed) > 12 else "")
    return f"It allows: {shown}."


def some_of(names: Collection[str], most: int = 6) -> str:
    """The first names in order, and how many more there are, for a message.

    >>> some_of(["web", "books", "code"], most=2)
    'books, code and 1 more'
    """
    shown = sorted(names)
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
