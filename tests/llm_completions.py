"""One chat completion: from the body of a request to the bytes of the reply, faults of content included."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson
from llm_answers import instance, message_text, record_hash, record_text, schema_in_prompt, strict_schema_problem
from llm_faults import SPOILT, Faults, spoil, uniform

Answer = Callable[[dict[str, Any]], "dict[str, Any] | str"]


class Rejected(Exception):
    """The request is refused with 400."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


class Completions:
    """Makes completions, and remembers the static prefixes that a provider would have cached."""

    def __init__(self, answer: Answer | None = None) -> None:
        self._answer = answer
        self._prefix_tokens: dict[str, int] = {}
        self.count_by(None)
        self._prompt_schemas: dict[str, dict[str, Any] | None] = {}
        self._strict_problems: dict[bytes, str | None] = {}
        self._served = 0

    def check(self, body: Any, faults: Faults) -> None:
        """Raises Rejected for what this server does not support, and for strict schemas that OpenAI would refuse."""
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
            raise Rejected("Missing required parameter: 'messages'.", "messages")
        if not body.get("model"):
            raise Rejected("you must provide a model parameter", "model")
        if body.get("stream"):
            raise Rejected("This server does not stream.", "stream")
        form = (body.get("response_format") or {}).get("type")
        for feature in faults.rejects:
            if feature == form:
                text = f"Invalid parameter: 'response_format' of type '{form}' is not supported with this model."
                raise Rejected(text, "response_format")
            if body.get(feature) is not None:
                raise Rejected(f"Unrecognized request argument supplied: {feature}", feature)
        if form == "json_schema" and "json_schema" not in faults.ignores:
            sent = body["response_format"].get("json_schema") or {}
            self._check_strict(sent.get("name"), sent.get("schema"), sent.get("strict"), "response_format")
        for tool in body.get("tools") or ():
            sent = tool.get("function") or {}
            self._check_strict(sent.get("name"), sent.get("parameters", {}), sent.get("strict"), "tools")

    def _check_strict(self, name: Any, schema: Any, strict: Any, param: str) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise Rejected(f"Invalid '{param}.name': expected ^[a-zA-Z0-9_-]{{1,64}}$.", param)
        if not isinstance(schema, dict):
            raise Rejected(f"Missing required parameter: '{param}.schema'.", param)
        if strict:
            key = orjson.dumps(schema)
            if key not in self._strict_problems:
                self._strict_problems[key] = strict_schema_problem(schema)
            if problem := self._strict_problems[key]:
                raise Rejected(f"Invalid schema for {param} '{name}': {problem}", param, "invalid_schema")

    def count_by(self, vocabulary: str | None) -> None:
        """Count prompts by a vocabulary of bpe-openai from now on, or four characters a token."""
        if vocabulary is None:
            self._tokens = lambda texts: sum(map(len, texts)) // 4
            return
        import bpe_openai  # not among the dependencies: only a benchmark asks for it

        encode = bpe_openai.get_encoding(vocabulary).encode_ordinary

        def count(text: str) -> int:
            return len(encode(text))

        of_prefix = lru_cache(count)
        self._tokens = lambda texts: sum(map(of_prefix, texts[:-1])) + count(texts[-1])

    def prompt_tokens(self, body: dict[str, Any]) -> int:
        """Those of the schema and of the messages, and four tokens a message."""
        return self._tokens(_texts(body)) + 4 * len(body["messages"])

    def usage(self, body: dict[str, Any], answer_chars: int) -> dict[str, Any]:
        """Token counts; a repeated static prefix from 1,024 tokens on counts as cached in steps of 128, as at OpenAI.

        The prefix is the schema and all messages but the last.
        """
        texts = _texts(body)
        prefix = "\n".join(texts[:-1])
        cached = self._prefix_tokens.get(prefix)
        if cached is None:
            tokens = self._tokens([prefix])
            cached, self._prefix_tokens[prefix] = 0, tokens // 128 * 128 if tokens >= 1024 else 0
        prompt = self._tokens(texts) + 4 * len(body["messages"])
        completion = answer_chars // 4 + 1
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }

    def answer(self, body: dict[str, Any], record: str, ignores: Any = (), choice: int = 0) -> Any:
        """The right answer: the script's, or an instance of the schema sent, or of the one found in the prompt."""
        if self._answer:
            return self._answer(body)
        schema = _sent_schema(body, ignores) or self._schema_in_prompt(body)
        if schema is not None:
            return instance(schema, record, choice)
        if (body.get("response_format") or {}).get("type") == "json_object" and "json_object" not in ignores:
            return {"answer": record_hash(record)}
        return f"The record speaks of {record[:40]!r}."

    def _schema_in_prompt(self, body: dict[str, Any]) -> dict[str, Any] | None:
        for message in body["messages"]:
            text = message_text(message)
            if '"properties"' not in text:
                continue
            if text not in self._prompt_schemas:
                self._prompt_schemas[text] = schema_in_prompt(text)
            if schema := self._prompt_schemas[text]:
                return schema
        return None

    def complete(self, body: dict[str, Any], faults: Faults, fault: str | None) -> tuple[dict[str, Any], dict]:
        """(reply, honest usage) of one request; `fault` spoils the reply."""
        record = record_text(body["messages"])
        choices = []
        chars = 0
        for index in range(body.get("n") or 1):
            choice, length = self._choice(body, record, index, faults, fault)
            choices.append(choice)
            chars += length
        usage = self.usage(body, chars)
        self._served += 1
        reply = {
            "id": f"chatcmpl-{self._served:08d}",
            "object": "chat.completion",
            "created": 1_750_000_000,
            "model": body["model"],
            "system_fingerprint": "fp_test",
            "choices": [] if fault == "empty_choices" else choices,
            "usage": usage,
        }
        if fault == "no_usage":
            del reply["usage"]
        elif fault == "wrong_usage":
            wrong = [{"prompt_tokens": 0, "completion_tokens": -5, "total_tokens": 10**9}, None, {}, "12 tokens"]
            reply["usage"] = wrong[int(uniform(faults.seed, record, "usage") * len(wrong))]
        elif fault == "error_200":
            reply = {"error": {"message": "Provider returned error", "code": 502}}
        return reply, usage

    def _choice(
        self, body: dict[str, Any], record: str, index: int, faults: Faults, fault: str | None
    ) -> tuple[dict[str, Any], int]:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        choice = {"index": index, "message": message, "finish_reason": "stop", "logprobs": None}
        if fault == "refusal":
            message["refusal"] = "I'm sorry, but I can't assist with that request."
            return choice, len(message["refusal"])
        if fault == "content_filter":
            choice["finish_reason"] = "content_filter"
            return choice, 0
        if fault == "null_content":
            return choice, 0
        answer = self.answer(body, record, faults.ignores, index)
        if fault in SPOILT:
            text = spoil(fault, answer)
        else:
            text = answer if isinstance(answer, str) else orjson.dumps(answer).decode()
        if tool := _called_tool(body, faults.ignores):
            call = {"id": f"call_{index}", "type": "function", "function": {"name": tool, "arguments": text}}
            message["tool_calls"] = [call]
            choice["finish_reason"] = "stop" if isinstance(body.get("tool_choice"), dict) else "tool_calls"
        else:
            message["content"] = text
            if body.get("logprobs"):
                choice["logprobs"] = {"content": _logprobs(text, record), "refusal": None}
        if fault == "length":
            choice["finish_reason"] = "length"
        return choice, len(text)


def _texts(body: dict[str, Any]) -> list[str]:
    """What is counted of a request: the schema, where it sends one, and its messages."""
    schema = _sent_schema(body, ())
    return ([orjson.dumps(schema).decode()] if schema else []) + [message_text(each) for each in body["messages"]]


def _called_tool(body: dict[str, Any], ignores: Any) -> str | None:
    if "tools" in ignores or not body.get("tools") or body.get("tool_choice") == "none":
        return None
    if isinstance(body.get("tool_choice"), dict):
        return body["tool_choice"]["function"]["name"]
    return body["tools"][0]["function"]["name"]


def _sent_schema(body: dict[str, Any], ignores: Any) -> dict[str, Any] | None:
    if name := _called_tool(body, ignores):
        tools = (tool["function"] for tool in body["tools"])
        return next((tool.get("parameters") for tool in tools if tool["name"] == name), None)
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema" and "json_schema" not in ignores:
        return form["json_schema"]["schema"]
    return None


def _logprobs(text: str, record: str) -> list[dict[str, Any]]:
    tokens = re.findall(r"\w+|\W", text)
    return [
        {"token": token, "logprob": -uniform(record, at), "bytes": list(token.encode()), "top_logprobs": []}
        for at, token in enumerate(tokens)
    ]
