"""From the text of an answer to a valid label, or to a complaint that the judge can act on."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson

from annotator.excerpt import token_estimate
from annotator.prompts import as_sent
from annotator.schema import MAX_EVIDENCE_CHARS, label_model, strict_json_schema
from annotator.taxonomy import Kind, Taxonomy

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import SchemaValidator

_FENCED = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL)
_MARK_TOKENS = 8  # two messages, four each
_MOST_PROBLEMS = 3
_LONGEST_PROBLEM = 300


class InvalidAnswer(Exception):
    """The answer is no label: `reason` is the code, `complaint` says to the judge what to do about it."""

    def __init__(self, reason: str, complaint: str) -> None:
        super().__init__(complaint)
        self.reason, self.complaint = reason, complaint


class AnswerForm:
    """The form that answers must have; built once a run, since building costs milliseconds.

    schema: the strict JSON Schema that is sent.
    """

    def __init__(self, taxonomy: Taxonomy, kind: Kind) -> None:
        self.schema: dict[str, Any] = strict_json_schema(taxonomy, kind)
        self.name = f"{kind}_label"
        self._taxonomy, self._kind = taxonomy, kind

    @property
    def model(self) -> type[BaseModel]:
        """The pydantic model that has the last word."""
        return label_model(self._taxonomy, self._kind)

    @cached_property
    def _validator(self) -> SchemaValidator:
        # Not in __init__: the first request needs no more than the schema, and is not kept waiting for pydantic.
        return self.model.__pydantic_validator__

    def fixed_tokens(self, system: str) -> int:
        """About the tokens of a request besides the record: the system message, this form, and the message marks."""
        return token_estimate(system) + token_estimate(orjson.dumps(self.schema).decode()) + _MARK_TOKENS

    def read(self, text: str) -> dict[str, Any]:
        """The label in an answer, as a dict of plain values.

        A code fence around the object is forgiven, and evidence that is too long is cut: neither is worth a second
        paid request.

        Raises:
            InvalidAnswer: reason "empty_answer", "invalid_json" or "invalid_label".
        """
        if not text.strip():
            raise InvalidAnswer("empty_answer", "The answer was empty. Answer with the JSON object only.")
        try:
            return dict(self._validator.validate_json(text).__dict__)
        except ValueError as error:  # pydantic's ValidationError is one
            problems = _problems(error)
        if problems[0]["type"] == "json_invalid":
            fenced = _FENCED.search(text)
            if fenced:
                return self.read(fenced[1])
            raise InvalidAnswer("invalid_json", f"The answer was not one JSON object ({problems[0]['msg']}).")
        if all(problem["type"] == "string_too_long" and problem["loc"] == ("evidence",) for problem in problems):
            return self._with_evidence_cut(text)
        raise InvalidAnswer("invalid_label", _complaint(problems))

    def _with_evidence_cut(self, text: str) -> dict[str, Any]:
        raw = orjson.loads(text)
        return dict(self._validator.validate_python(raw | {"evidence": raw["evidence"][:MAX_EVIDENCE_CHARS]}).__dict__)


def _problems(error: ValueError) -> list[Any]:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return error.errors(include_url=False, include_context=False)
    return [{"type": "json_invalid", "loc": (), "msg": "the text cannot be encoded"}]  # lone surrogates and the like


def _complaint(problems: list[Any]) -> str:
    lines = []
    for problem in problems[:_MOST_PROBLEMS]:
        place = ".".join(str(part) for part in problem["loc"]) or "answer"
        given = problem.get("input")
        shown = f" (given: {str(given)[:60]!r})" if isinstance(given, str | int | float) else ""
        message = str(problem["msg"])
        if len(message) > _LONGEST_PROBLEM:
            message = f"{message[:_LONGEST_PROBLEM]}..."
        lines.append(f"{place}: {message}{shown}")
    return "; ".join(lines)


_SPACES = re.compile(r"\s+")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")  # zero width, and marks of direction


def is_verbatim(evidence: str, text: str) -> bool:
    """Whether a quote occurs in a record as it was sent.

    White space, case, invisible characters and the quotation marks around the quote do not count.
    """
    if not evidence or evidence in text:
        return True
    quote, body = (_SPACES.sub(" ", _INVISIBLE.sub("", part)).strip().casefold() for part in (evidence, as_sent(text)))
    bare = quote.strip("\"'“”‘’ .…")
    return quote in body or (bool(bare) and bare in body)
