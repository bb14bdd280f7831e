"""The bytes of a chat-completions request: everything but the record is encoded once."""

from __future__ import annotations

from typing import Any

import orjson

from annotator.fingerprint import canonical_json
from annotator.judges import Sampling
from annotator.judges.answers import AnswerForm
from annotator.judges.manner import Manner

COMPLAINT = "\n\nYour last answer could not be used: {complaint} Answer again: one JSON object in the required form."


class Wire:
    """Encodes requests of one model and prompt, written in one manner."""

    def __init__(self, manner: Manner, *, model: str, system: str, form: AnswerForm, sampling: Sampling) -> None:
        self.manner = manner
        if manner.strategy == "json_object":
            schema = orjson.dumps(form.schema).decode()
            system = f"{system}\n\nAnswer with one JSON object, and nothing else, valid by this schema:\n{schema}"
        self._limit = sampling.max_output_tokens
        self._tokens_field = None if "max_tokens" in manner.dropped else manner.tokens_field.encode()
        optional = {"temperature": sampling.temperature, "seed": sampling.seed, "logprobs": sampling.logprobs or None}
        fields: dict[str, Any] = {"model": model} | _form_fields(manner.strategy, form)
        fields |= {name: value for name, value in optional.items() if value is not None and name not in manner.dropped}
        messages = orjson.dumps([{"role": "system", "content": system}])[:-1]
        self._prefix = b'{"messages":' + messages + b',{"role":"user","content":'
        self._suffix = b"}]," + orjson.dumps(fields)[1:-1]

    def body(self, user: str, *, complaint: str = "", growth: int = 1) -> bytes:
        """One request: the user message, with a complaint about an earlier answer when there is one.

        growth: how many times the usual output tokens may be used, after an answer that was cut short.
        """
        text = f"{user}{COMPLAINT.format(complaint=complaint)}" if complaint else user
        limit = b"" if self._tokens_field is None else b',"%b":%d' % (self._tokens_field, self._limit * growth)
        return self._prefix + canonical_json(text) + self._suffix + limit + b"}"


def _form_fields(strategy: str, form: AnswerForm) -> dict[str, Any]:
    if strategy == "json_schema":
        described = {"name": form.name, "strict": True, "schema": form.schema}
        return {"response_format": {"type": "json_schema", "json_schema": described}}
    if strategy == "tools":
        function = {"name": form.name, "strict": True, "parameters": form.schema}
        choice = {"type": "function", "function": {"name": form.name}}
        return {"tools": [{"type": "function", "function": function}], "tool_choice": choice}
    return {"response_format": {"type": "json_object"}}
