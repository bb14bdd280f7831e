"""What the test server answers: for any JSON Schema one valid instance, drawn from a hash of the record alone.

The same record and schema give the same answer, whichever way the schema was sent and however often it is asked, so a
run through faults must end with the labels of a calm run.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from typing import Any

import orjson

_FENCE = re.compile(r"^-{5} (\w+) ([0-9a-f]{16}) begins -{5}\n", re.MULTILINE)
_STRICT_KEYWORDS = (
    {"type", "enum", "const", "items", "properties", "required", "additionalProperties", "anyOf", "$ref", "$defs"}
    | {"description", "title", "default", "pattern", "format", "minimum", "maximum", "exclusiveMinimum"}
    | {"exclusiveMaximum", "multipleOf", "minItems", "maxItems", "minLength", "maxLength"}
)
_FORMATS = {"date": "2024-05-17", "date-time": "2024-05-17T12:00:00Z", "time": "12:00:00Z", "email": "a@example.org"}
_WORDS = "amber birch cedar delta ember fjord grove heath inlet juniper kelp larch maple nettle oak pine".split()  # noqa: SIM905


def message_text(message: dict[str, Any]) -> str:
    """The text of one chat message, whether its content is a string or a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def record_text(messages: list[dict[str, Any]]) -> str:
    """The record that a request is about.

    It is what stands between the fence lines of the last fenced user message, so that a re-ask, which adds a word about
    the error outside the fence or as a further message, is still about the same record. Without a fence it is the last
    user message.
    """
    users = [message_text(message) for message in messages if message.get("role") == "user"]
    for text in reversed(users):
        if begin := _FENCE.search(text):
            end = text.rfind(f"\n----- {begin[1]} {begin[2]} ends -----")
            return text[begin.end() : end if end >= 0 else len(text)]
    return users[-1] if users else ""


def record_hash(text: str) -> str:
    """Identity of a record in the server's books: 16 hex digits, equal to the mark in the fence of our own prompts."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def schema_in_prompt(text: str) -> dict[str, Any] | None:
    """The first JSON object in a text that looks like the schema of an object, for servers asked without a schema."""
    decoder = json.JSONDecoder()  # orjson cannot decode from the middle of a text
    for opening in re.finditer(r"\{", text):
        try:
            found, _ = decoder.raw_decode(text, opening.start())
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("properties"), dict):
            return found
    return None


class Draw:
    """A stream of small numbers that depends on the record only, the same on every machine and Python version."""

    def __init__(self, record: str, choice: int = 0) -> None:
        self.record = record
        self._state = int(record_hash(record), 16) + choice * 0x9E3779B97F4A7C15

    def below(self, limit: int) -> int:
        """A whole number in 0..limit-1; a linear congruential step (Knuth's MMIX), high bits used."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        return (self._state >> 33) % limit

    def quote(self, max_chars: int) -> str:
        """A verbatim piece of the record, starting at a word, of at most `max_chars` characters."""
        start = self.below(max(1, len(self.record) - 20))
        word = re.compile(r"(?<!\S)\S").search(self.record, start) or re.compile(r"\S").search(self.record)
        return self.record[word.start() : word.start() + max_chars].rstrip() if word else ""


Maker = Callable[[Draw, int], Any]
_MAKERS: dict[bytes, Maker] = {}


def instance(schema: dict[str, Any], record: str, choice: int = 0) -> Any:
    """One valid instance of a schema, a function of the record and the number of the choice alone.

    Understood: the strict structured-output subset (`$ref`, `anyOf`, `enum`, `const`, bounds of numbers, lengths and
    items), `oneOf`, `allOf` of objects and `uniqueItems`. A string with a `pattern` ignores it. Properties called
    `evidence` or `quote` are verbatim pieces of the record.
    """
    key = orjson.dumps(schema)
    maker = _MAKERS.get(key)
    if maker is None:  # the walk costs a hundred times more than its use
        maker = _MAKERS[key] = _maker(schema, schema, "")
    return maker(Draw(record, choice), 0)


def _maker(node: dict[str, Any], root: dict[str, Any], name: str) -> Maker:
    if "$ref" in node:
        return _reference(node["$ref"], root, name)
    if "allOf" in node:
        merged: dict[str, Any] = {key: value for key, value in node.items() if key != "allOf"}
        for part in node["allOf"]:
            part = _resolve(part["$ref"], root) if "$ref" in part else part
            properties = merged.get("properties", {}) | part.get("properties", {})
            merged = merged | part | ({"properties": properties} if properties else {})
        return _maker(merged, root, name)
    if "const" in node:
        return lambda draw, depth: node["const"]
    if "enum" in node:
        values = node["enum"]
        return lambda draw, depth: values[draw.below(len(values))]
    kind = node.get("type", "object" if "properties" in node else None)
    branches = node.get("anyOf") or node.get("oneOf")
    if branches is None and isinstance(kind, list):
        branches = [node | {"type": one} for one in kind]
    if branches:
        return _branch([_maker(one, root, name) for one in branches], _simplest(branches))
    return {"object": _object, "array": _array, "string": _string, "integer": _number, "number": _number}.get(
        kind, _plain
    )(node, root, name)


def _resolve(pointer: str, root: dict[str, Any]) -> dict[str, Any]:
    found: Any = root
    for part in pointer.removeprefix("#").strip("/").split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")] if part else found
    return found


def _reference(pointer: str, root: dict[str, Any], name: str) -> Maker:
    built: list[Maker] = []

    def make(draw: Draw, depth: int) -> Any:
        if not built:  # resolved on first use, so that a schema may refer to itself
            built.append(_maker(_resolve(pointer, root), root, name))
        return built[0](draw, depth + 1)

    return make


def _simplest(branches: list[dict[str, Any]]) -> int:
    return next((at for at, one in enumerate(branches) if one.get("type") == "null" or "enum" in one), 0)


def _branch(makers: list[Maker], simplest: int) -> Maker:
    def make(draw: Draw, depth: int) -> Any:
        return makers[draw.below(len(makers)) if depth < 4 else simplest](draw, depth)

    return make


def _object(node: dict[str, Any], root: dict[str, Any], name: str) -> Maker:
    makers = [(key, _maker(inner, root, key)) for key, inner in node.get("properties", {}).items()]
    return lambda draw, depth: {key: make(draw, depth) for key, make in makers}


def _array(node: dict[str, Any], root: dict[str, Any], name: str) -> Maker:
    fewest = node.get("minItems", 0)
    most = max(fewest, min(node.get("maxItems", 3), 3))
    make_item = _maker(node.get("items", {"type": "string"}), root, name)

    def make(draw: Draw, depth: int) -> list[Any]:
        if depth >= 4:
            wanted = fewest
        else:
            wanted = max(fewest, min(1, most)) + draw.below(most - max(fewest, min(1, most)) + 1)
        items: list[Any] = []
        for _ in range(20 * wanted):
            if len(items) == wanted:
                break
            item = make_item(draw, depth)
            if item not in items:
                items.append(item)
        while len(items) < fewest and not node.get("uniqueItems"):
            items.append(make_item(draw, depth))
        return items

    return make


def _string(node: dict[str, Any], root: dict[str, Any], name: str) -> Maker:
    shortest, longest = node.get("minLength", 0), node.get("maxLength", 80)
    if name in ("evidence", "quote"):
        return lambda draw, depth: draw.quote(min(longest, 80)).ljust(shortest)
    if node.get("format") in _FORMATS:
        return lambda draw, depth: _FORMATS[node["format"]]

    def make(draw: Draw, depth: int) -> str:
        text = f"{_WORDS[draw.below(16)]} {_WORDS[draw.below(16)]}"
        return text.ljust(shortest, "x")[: max(longest, shortest)]

    return make


def _number(node: dict[str, Any], root: dict[str, Any], name: str) -> Maker:
    step = node.get("multipleOf", 1 if node["type"] == "integer" else 0.5)
    low = node.get("minimum", node.get("exclusiveMinimum"))
    high = node.get("maximum", node.get("exclusiveMaximum"))
    if low is None:
        low = 0 if high is None or high > 0 else high - 9 * step
    if high is None:
        high = low + 9 * step
    first, last = math.ceil(low / step), math.floor(high / step)
    first += first * step == node.get("exclusiveMinimum")
    last -= last * step == node.get("exclusiveMaximum")
    return lambda draw, depth: (first + draw.below(last - first + 1)) * step


def _plain(node: dict[str, Any], root: dict[str, Any], name: str) -> Maker:
    if node.get("type") == "boolean":
        return lambda draw, depth: bool(draw.below(2))
    if node.get("type") == "null":
        return lambda draw, depth: None
    return _string(node, root, name)


def strict_schema_problem(schema: dict[str, Any], where: str = "root") -> str | None:
    """Why a schema is refused with `strict: true`, in the words of the documented subset; None if it is allowed."""
    if where == "root" and (schema.get("type") != "object" or "anyOf" in schema):
        return "schema must be a JSON Schema of 'type: \"object\"', got another root."
    for keyword in schema:
        if keyword not in _STRICT_KEYWORDS:
            return f"In context={where}, '{keyword}' is not permitted."
    if "properties" in schema:
        if schema.get("additionalProperties") is not False:
            return f"In context={where}, 'additionalProperties' is required to be supplied and to be false."
        if missing := sorted(set(schema["properties"]) - set(schema.get("required", ()))):
            return f"In context={where}, 'required' must include every key in properties. Missing {missing[0]!r}."
    inner = {**schema.get("properties", {}), **schema.get("$defs", {})}
    if isinstance(schema.get("items"), dict):
        inner["items"] = schema["items"]
    inner |= {f"anyOf/{at}": branch for at, branch in enumerate(schema.get("anyOf", ()))}
    return next((said for key, node in inner.items() if (said := strict_schema_problem(node, f"{where}.{key}"))), None)
