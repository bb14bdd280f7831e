"""The ways in which the test server misbehaves, and the seeded decision which request meets which.

A decision depends on (seed, record, attempt number of that record) alone: never on time, on the order in which
requests arrive or on what else is in flight. So two runs that ask the same meet the same faults.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from statistics import NormalDist
from typing import Any

import orjson

# name: (status, error type, error code, message). An "_html" twin of each 5xx answers with a gateway's page instead.
_STATUS: dict[str, tuple[int, str, str | None, str]] = {
    "http_408": (408, "timeout", None, "Request timed out."),
    "http_409": (409, "conflict", None, "The request conflicts with another one."),
    "http_500": (500, "server_error", None, "The server had an error while processing your request."),
    "http_502": (502, "server_error", None, "Bad gateway."),
    "http_503": (503, "service_unavailable_error", None, "The engine is currently overloaded, please try again later."),
    "bad_request": (400, "invalid_request_error", None, "Invalid value for 'messages'."),
    "context_length": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens, but your messages resulted in 9001 tokens.",
    ),
    "unauthorized": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-****test."),
    "forbidden": (403, "permission_error", None, "You are not allowed to sample from this model."),
    "model_not_found": (404, "invalid_request_error", "model_not_found", "The model does not exist."),
    "too_large": (413, "invalid_request_error", None, "Request body too large."),
    "rate_limited": (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    "rate_limited_date": (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    "rate_limited_ms": (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    "rate_limited_bare": (429, "tokens", "rate_limit_exceeded", "Rate limit reached for tokens."),
    "insufficient_quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
}
_STATUS |= {f"{name}_html": _STATUS[name] for name in ("http_500", "http_502", "http_503")}

# The connection itself fails: no answer is ever complete, so none is counted as paid.
TRANSPORT_FAULTS = frozenset({"hang", "reset", "reset_in_body", "cut_in_body"})
# The text of the answer is spoilt.
SPOILT = frozenset(
    {"invalid_json", "code_fence", "wrong_enum", "wrong_type", "extra_field", "missing_field", "duplicate_item"}
    | {"empty_content", "length"}
)
# A complete reply of status 200 without a usable answer: it costs money, and must not be read as a label.
BAD_REPLIES = SPOILT | {"null_content", "refusal", "content_filter", "empty_choices", "html_200", "error_200"}
# A right answer, delivered oddly.
ODD_REPLIES = frozenset({"late", "slow_drip", "wrong_usage", "no_usage"})
FAULTS = frozenset(_STATUS) | TRANSPORT_FAULTS | BAD_REPLIES | ODD_REPLIES

HTML_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Faults:
    """How the server behaves; the default is a perfect server without delay. JSON of the same fields works too.

    Attributes:
        seed: chooses which (record, attempt) meets which fault.
        rates: probability of each fault, by name (see `FAULTS`); the sum is at most 1.
        first_attempts: `rates` hold for the first so many attempts of a record only; None: for all.
        markers: a text, and the fault of all records that contain it; a list gives the fault of the first attempt,
            of the second, ..., and "" or the end of the list is a right answer. They go before `rates`.
        latency_ms: time before an answer; its median if `latency_sigma`, that of a lognormal distribution, is not 0.
        retry_after_s: what the answers 429 say (not `rate_limited_bare`).
        drip_s: duration of a `slow_drip`. late_s: extra delay of a `late` answer, which others overtake.
        rpm, tpm: requests and tokens (of prompt and answer) per minute; 429 beyond. Buckets refill continuously.
        burst_s: seconds' worth of rpm and tpm that may come at once (60 as at OpenAI).
        rejects: features answered with 400: "json_schema", "json_object", "tools", or any key of the request body.
        ignores: features among the first three that are silently overlooked, as old gateways do.
        api_key: other keys get 401; None: every key is right.
        echoes_key: errors, refusals and HTML pages quote the key that came with the request.
        lost_replies: "METHOD /path": so many requests there are carried out, and then the connection is reset.
        batch_polls: how often a batch must be looked at until it has ended.
        batch_failed, batch_expired: share of a batch's lines that fail with 500, or never run.
        batch_empty_error_file: a batch without errors has the error file "" instead of null.
        vocabulary: prompts are counted by this vocabulary of bpe-openai ("o200k_base"); None: four characters a token.
    """

    seed: int = 0
    rates: Mapping[str, float] = field(default_factory=dict)
    first_attempts: int | None = None
    markers: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    latency_ms: float = 0
    latency_sigma: float = 0
    retry_after_s: float = 1
    drip_s: float = 1
    late_s: float = 0.5
    rpm: float | None = None
    tpm: float | None = None
    burst_s: float = 60
    rejects: Sequence[str] = ()
    ignores: Sequence[str] = ()
    api_key: str | None = None
    echoes_key: bool = False
    lost_replies: Mapping[str, int] = field(default_factory=dict)
    batch_polls: int = 1
    batch_failed: float = 0
    batch_expired: float = 0
    batch_empty_error_file: bool = False
    vocabulary: str | None = None

    def __post_init__(self) -> None:
        named = set(self.rates)
        for value in self.markers.values():
            named |= {value} if isinstance(value, str) else set(value)
        for name in sorted(named - FAULTS - {""}):
            near = difflib.get_close_matches(name, FAULTS, n=1)
            raise ValueError(f"{name!r} is not a fault." + (f" Did you mean {near[0]!r}?" if near else ""))
        if sum(self.rates.values()) > 1 + 1e-9:
            raise ValueError("the rates add up to more than 1")

    def fault(self, record: str, text: str, attempt: int) -> str | None:
        """The fault of the n-th attempt (from 1) of a record, given its hash and its text."""
        for marker, planned in self.markers.items():
            if marker in text:
                if isinstance(planned, str):
                    return planned or None
                return (planned[attempt - 1] or None) if attempt <= len(planned) else None
        if not self.rates or (self.first_attempts is not None and attempt > self.first_attempts):
            return None
        left = uniform(self.seed, record, attempt, "fault")
        for name, rate in self.rates.items():
            left -= rate
            if left < 0:
                return name
        return None

    def latency_s(self, record: str, attempt: int) -> float:
        """The delay of one answer in seconds."""
        if not self.latency_sigma:
            return self.latency_ms / 1000
        normal = _NORMAL.inv_cdf(max(uniform(self.seed, record, attempt, "latency"), 1e-9))
        return self.latency_ms / 1000 * math.exp(self.latency_sigma * normal)


def uniform(*of: Any) -> float:
    """A number in [0, 1) that depends on the arguments alone."""
    digest = hashlib.blake2b(repr(of).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def error_body(kind: str, code: str | None, message: str, param: str | None = None) -> bytes:
    """The JSON of an error as OpenAI's servers write it."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def error_reply(fault: str, retry_after_s: float) -> tuple[int, dict[str, str], bytes] | None:
    """(status, headers, body) of a fault that is an HTTP error; None for the other faults."""
    if fault not in _STATUS:
        return None
    status, kind, code, message = _STATUS[fault]
    headers = {"content-type": "application/json"}
    if fault == "rate_limited":
        headers["retry-after"] = f"{retry_after_s:g}"
    elif fault == "rate_limited_ms":
        headers["retry-after-ms"] = f"{retry_after_s * 1000:g}"
    elif fault == "rate_limited_date":  # whole seconds, rounded up: a date cannot say less
        headers["retry-after"] = formatdate(math.ceil(time.time() + retry_after_s), usegmt=True)
    if fault.endswith("_html"):
        return status, {"content-type": "text/html"}, HTML_PAGE
    return status, headers, error_body(kind, code, message)


def spoil(fault: str, answer: Any) -> str:
    """The text of an answer after a fault that spoils its content: complete, but not what was asked for."""
    text = answer if isinstance(answer, str) else orjson.dumps(answer).decode()
    if fault == "code_fence":
        return f"Here is the label:\n```json\n{text}\n```"
    if fault == "empty_content":
        return ""
    if isinstance(answer, dict) and fault in _SPOILERS:
        spoilt = dict(answer)
        if _SPOILERS[fault](spoilt):
            return orjson.dumps(spoilt).decode()
    return text[: max(1, len(text) // 2)]  # invalid_json, length, and answers that have no such field to spoil


def _wrong_enum(answer: dict[str, Any]) -> bool:
    for key, value in reversed(answer.items()):
        if isinstance(value, str) and key not in ("evidence", "quote"):
            answer[key] = "no_such_value"
            return True
    return False


def _wrong_type(answer: dict[str, Any]) -> bool:
    for key in reversed(answer):
        answer[key] = {"value": answer[key]}
        return True
    return False


def _missing_field(answer: dict[str, Any]) -> bool:
    return bool(answer) and answer.popitem() is not None


def _extra_field(answer: dict[str, Any]) -> bool:
    answer["confidence_note"] = "quite sure"
    return True


def _duplicate_item(answer: dict[str, Any]) -> bool:
    for key, value in answer.items():
        if isinstance(value, list) and value:
            answer[key] = [value[0], value[0]]
            return True
    return False


_SPOILERS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "wrong_enum": _wrong_enum,
    "wrong_type": _wrong_type,
    "missing_field": _missing_field,
    "extra_field": _extra_field,
    "duplicate_item": _duplicate_item,
}
