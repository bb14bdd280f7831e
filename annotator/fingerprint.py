"""Content hashes: the one meaning of "the same request", "the same document", "the same inputs"."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import orjson


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON bytes that are equal for equal values.

    Keys are sorted before hashing: readers yield fields in different orders, and a miss in the judge cache is a paid
    request. Lone surrogates, which JSON cannot carry, are replaced by U+FFFD so that hostile text cannot stop a run.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return orjson.dumps(without_surrogates(value), option=orjson.OPT_SORT_KEYS)


def without_surrogates(value: Any) -> Any:
    """The same JSON value with lone surrogates replaced by U+FFFD, so that it can be encoded as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return value
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_surrogates(inner) for inner in value]
    return value


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON value as 64 hex digits.

    >>> fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(canonical_json(value)).hexdigest()


def short(digest: str) -> str:
    """The first 12 digits of a fingerprint, for people's eyes and table metadata."""
    return digest[:12]


def unordered(digests: Iterable[str]) -> str:
    """A fingerprint of a multiset of fingerprints: the same whatever the row order or shard split.

    Addition modulo 2**256 of the digests (Bellare & Micciancio 1997, AdHash), so that shards can be hashed apart.
    """
    total = count = 0
    for digest in digests:
        total = (total + int(digest, 16)) % (1 << 256)
        count += 1
    return fingerprint([count, f"{total:064x}"])
