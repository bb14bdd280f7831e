"""What an endpoint's failure means: retry, slow down, give up on the row, or stop the run."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

# Why a row is in the dead-letter file. Codes are for ever; the first three come from the readers.
REASONS = {
    "bad_json": "the input row is not a JSON object",
    "missing_id": "the input row has no id",
    "empty_text": "the input row has no text",
    "unsure": "the student is less sure of its answer than was asked for",
    "refusal": "the model refused",
    "content_filter": "the provider's filter stopped the answer",
    "truncated_answer": "the answer hit the output token limit",
    "empty_answer": "the server sent no choice, or an empty one",
    "invalid_json": "the answer is not one JSON object",
    "invalid_label": "the answer breaks the schema",
    "bad_response": "the body is not a chat completion (an HTML page, say)",
    "connection": "the connection failed or broke",
    "timeout": "no answer in time",
    "rate_limited": "rate limits did not let the request through",
    "server_error": "the server failed (5xx)",
    "rejected": "the server refused the request (400, 422)",
    "too_long": "the record does not fit into the model's context",
    "unauthorized": "wrong or missing key (401)",
    "forbidden": "the key may not do this (403)",
    "not_found": "no such model or path (404)",
    "batch_pending": "the batch that holds the record has not ended",
    "batch_expired": "the batch ended before the record's turn",
    "batch_error": "the batch runner failed at the record",
    "batch_missing": "no batch result holds the record",
    "quota": "the account's quota is used up",
}

_TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|maximum (?:context|model length)|too many tokens|prompt is too long", re.I
)
_REMEDIES = {
    "connection": "Is it running? Check --base-url.",
    "timeout": "Is it overloaded? Try fewer at once, or a longer --timeout.",
    "unauthorized": "Check OPENAI_API_KEY.",
    "forbidden": "Check what the key may use.",
    "not_found": "Check the model's name and --base-url.",
    "rejected": "Check the model's name and the options that it takes.",
    "quota": "Raise the account's limit; the same command goes on from there.",
}


def with_remedy(said: str, reason: str) -> str:
    """A message on an endpoint that cannot be used, and what to do about it."""
    remedy = _REMEDIES.get(reason)
    return f"{said.rstrip('.')}. {remedy}" if remedy else said


_QUOTA = re.compile(r"insufficient_quota|billing_hard_limit|exceeded your current quota|credit balance", re.I)
_FILTER = re.compile(r"content_filter|content_policy|responsible ai", re.I)
_KEY = re.compile(r"\b(?:(?:sk|pk|rk|gsk|xai)[-_]|AIza|Bearer )[\w\-*.]{8,}")
_LONGEST_DETAIL = 500


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed request.

    action: "retry" (back off, then again), "slow" (a rate limit: everybody waits, the row loses no try), "row" (this
    row will not get better), "run" (no row will). reason: a code of REASONS. retry_after_s: what the server asked for.
    """

    action: Literal["retry", "slow", "row", "run"]
    reason: str
    detail: str
    http_status: int | None = None
    retry_after_s: float | None = None


def status_fault(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """What an HTTP status other than 2xx means, with the server's own message as the detail."""
    if status < 400:
        target = headers.get("location") or "nowhere"
        return Fault("row", "not_found", f"the server redirects to {target[:_LONGEST_DETAIL]}", status)
    code, detail = _message(body)
    words = f"{code} {detail}"
    wait = retry_after(headers)
    if _QUOTA.search(words) and status in (402, 403, 429):
        return Fault("run", "quota", detail, status)
    if status == 402:
        return Fault("run", "quota", detail, status)
    if status == 429:
        return Fault("slow", "rate_limited", detail, status, wait)
    if status in (408, 409) or status >= 500:
        return Fault("retry", "timeout" if status == 408 else "server_error", detail, status, wait)
    if status == 401:
        return Fault("run", "unauthorized", detail, status)
    if status == 413 or _TOO_LONG.search(words):
        return Fault("row", "too_long", detail, status)
    if _FILTER.search(words):
        return Fault("row", "content_filter", detail, status)
    reason = {403: "forbidden", 404: "not_found"}.get(status, "rejected")
    return Fault("row", reason, detail, status)


def _message(body: bytes) -> tuple[str, str]:
    """(code, message) of an error body in any of the shapes in use; the start of the text when it is none of them."""
    try:
        parsed: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = re.sub(r"<[^>]*>|\s+", " ", body[:4000].decode("utf-8", "replace"))
        return "", " ".join(text.split())[:_LONGEST_DETAIL] or "no message"
    inner = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    if isinstance(inner, dict):
        code = " ".join(str(inner[key]) for key in ("code", "type", "param") if inner.get(key))
        return code, str(inner.get("message") or inner.get("detail") or inner)[:_LONGEST_DETAIL]
    return "", str(inner)[:_LONGEST_DETAIL]


def redact(text: str, key: str | None) -> str:
    """The text without the key, and without anything else that has the shape of one."""
    if key and len(key) > 4:
        text = text.replace(key, "[key]")
    return _KEY.sub("[key]", text)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that the server asks to wait, from `retry-after-ms` or `retry-after` (seconds or a date); None if not.

    >>> retry_after({"retry-after": "1.5"}), retry_after({"retry-after-ms": "20"}), retry_after({})
    (1.5, 0.02, None)
    """
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        given = headers.get("retry-after")
        if given is None:
            return None
        try:
            return max(0.0, float(given))
        except ValueError:
            date = email.utils.parsedate_to_datetime(given)
            return max(0.0, date.timestamp() - (time.time() if now is None else now))
    except ValueError:
        return None
