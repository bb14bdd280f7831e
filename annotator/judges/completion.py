"""What stands in a chat completion: token counts, and the label."""

from __future__ import annotations

from typing import Any

from annotator.judges import Unanswered, Usage
from annotator.judges.answers import AnswerForm, InvalidAnswer

_LONGEST_REFUSAL = 500


def count_tokens(completion: dict[str, Any], usage: Usage) -> int:
    """Add the server's token counts to `usage`; all tokens of this answer, 0 when it does not say."""
    counts = completion.get("usage")
    if not isinstance(counts, dict):
        return 0
    sent, received = _whole(counts.get("prompt_tokens")), _whole(counts.get("completion_tokens"))
    details = counts.get("prompt_tokens_details")
    usage.input_tokens += sent
    usage.output_tokens += received
    usage.cached_input_tokens += _whole(details.get("cached_tokens")) if isinstance(details, dict) else 0
    return sent + received


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def read_label(completion: dict[str, Any], form: AnswerForm, usage: Usage) -> dict[str, Any]:
    """The label in the first choice of a completion.

    Raises:
        Unanswered: the model refused, or a filter stopped it. InvalidAnswer: there is no label in it.
    """
    choices = completion["choices"]
    if not choices or not isinstance(choices[0], dict):
        raise InvalidAnswer("empty_answer", "The answer was empty. Answer with the JSON object only.")
    message = choices[0].get("message")
    message = message if isinstance(message, dict) else {}
    finish = choices[0].get("finish_reason")
    if message.get("refusal"):
        raise Unanswered("refusal", str(message["refusal"])[:_LONGEST_REFUSAL], http_status=200, usage=usage)
    if finish == "content_filter":
        raise Unanswered("content_filter", "the provider's filter stopped the answer", http_status=200, usage=usage)
    text = _text_of(message)
    try:
        return form.read(text)
    except InvalidAnswer:
        if finish != "length":  # else it may be complete all the same, when the limit fell behind the last bracket
            raise
        raise InvalidAnswer("truncated_answer", "The answer was cut off. Keep it short.") from None


def _text_of(message: dict[str, Any]) -> str:
    """The text of an answer: the arguments of a tool call, else a string or the text parts of a list."""
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls and isinstance(calls[0], dict):
        arguments = (calls[0].get("function") or {}).get("arguments")
        if arguments:
            return str(arguments)
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
