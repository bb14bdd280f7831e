"""Decides what each request to the test server gets, keeps the books of it, and delivers it, faults included."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import socket
import struct
from typing import Any

import orjson
from aiohttp import web
from llm_answers import record_hash, record_text
from llm_batches import Batches
from llm_book import Book, Bucket
from llm_completions import Answer, Completions, Rejected
from llm_faults import BAD_REPLIES, HTML_PAGE, ODD_REPLIES, TRANSPORT_FAULTS, Faults, error_body, error_reply

_CHAT_PATHS = ("/v1/", "/openai/deployments/")
_JSON = {"content-type": "application/json"}
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: closing sends RST instead of FIN


@dataclasses.dataclass
class Reply:
    """What a chat request will get. `usage` is set if it will be billed; `record` is the hash of its record."""

    status: int
    headers: dict[str, str]
    body: bytes
    outcome: str
    record: str = ""
    delay_s: float = 0
    usage: dict[str, Any] | None = None


class Application:
    """Answers every request of one server; all state is in memory and on one event loop."""

    def __init__(self, faults: Faults, answer: Answer | None = None) -> None:
        self.book = Book()
        self.completions = Completions(answer)
        self.batches = Batches(self._execute_line, lambda: self.faults)
        self.configure(faults)

    def configure(self, faults: Faults) -> None:
        """Take new faults; the rate limits start afresh."""
        self.faults = faults
        self._limits = {
            kind: Bucket(limit, faults.burst_s)
            for kind, limit in (("requests", faults.rpm), ("tokens", faults.tpm))
            if limit
        }
        self._replies_to_lose = dict(faults.lost_replies)
        self.completions.count_by(faults.vocabulary)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Routes one request. Plain comparisons: aiohttp's router would cost a good part of an answer."""
        path, method = request.path, request.method
        if path.startswith("/__"):
            return await self._control(request)
        if method == "POST" and path.startswith(_CHAT_PATHS) and path.endswith("/chat/completions"):
            return await self._chat(request)
        if self.faults.api_key and _key(request) != self.faults.api_key:
            return _response(*error_reply("unauthorized", 0))
        if path == "/v1/models":
            models = [{"id": "test-model", "object": "model", "created": 1_750_000_000, "owned_by": "tests"}]
            return _response(200, _JSON, orjson.dumps({"object": "list", "data": models}))
        if path.startswith(("/v1/files", "/v1/batches")):
            status, value = await self.batches.handle(request)
            self.book.stats.batches, self.book.stats.batch_lines = len(self.batches), self.batches.lines
            if self._replies_to_lose.get(f"{method} {path}", 0) > 0:
                self._replies_to_lose[f"{method} {path}"] -= 1
                return _reset(request)
            return _response(status, _JSON, value if isinstance(value, bytes) else orjson.dumps(value))
        return _response(404, _JSON, error_body("invalid_request_error", None, f"Unknown URL: {method} {path}"))

    async def _control(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/__stats":
            return _response(200, _JSON, orjson.dumps(self.book.stats.as_json()))
        if request.path == "/__requests":
            kept = list(self.book.bodies)[-int(request.query.get("last", "20")) :]
            return _response(200, _JSON, orjson.dumps([_readable(body) for body in kept]))
        if request.path == "/__config" and request.method == "POST":
            try:
                self.configure(dataclasses.replace(self.faults, **orjson.loads(await request.read())))
            except (TypeError, ValueError) as error:
                return _response(400, _JSON, error_body("invalid_request_error", None, str(error)))
            return _response(200, _JSON, orjson.dumps(dataclasses.asdict(self.faults)))
        return _response(404, _JSON, error_body("invalid_request_error", None, "Unknown control URL"))

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = await request.read()
        self.book.arrives(raw, request.headers, request.query_string)
        outcome, status = "abandoned", 0
        try:
            reply = self._decide(request, raw)
            status = reply.status
            if self.faults.echoes_key:
                reply.body = _with_key(reply.body, _key(request))
            if reply.outcome == "hang":
                outcome = "hang"
            if reply.delay_s:
                await asyncio.sleep(reply.delay_s)
            response = await _deliver(request, reply, self.faults)
            outcome = reply.outcome
            if reply.usage:
                self.book.pays(reply.usage)
                if outcome == "ok" or outcome in ODD_REPLIES:
                    self.book.answers(reply.record, reply.usage)
            return response
        except ConnectionError:  # the client went away while the reply was being written
            raise
        except Exception:
            outcome = "server_bug"  # such as an `answer` that raises: the test that looks at the outcomes will tell
            raise
        finally:
            self.book.ends(outcome, status)

    def _decide(self, request: web.BaseRequest, raw: bytes) -> Reply:
        faults = self.faults
        if faults.api_key and _key(request) != faults.api_key:
            return Reply(*error_reply("unauthorized", 0), outcome="bad_key")
        try:
            body = orjson.loads(raw)
            if isinstance(body, dict) and request.path.startswith("/openai/"):
                body.setdefault("model", request.path.split("/")[3])  # Azure names the deployment in the path alone
            self.completions.check(body, faults)
        except ValueError:
            problem = error_body("invalid_request_error", None, "We could not parse the JSON body of your request.")
            return Reply(400, _JSON, problem, "rejected")
        except Rejected as refused:
            problem = error_body("invalid_request_error", refused.code, refused.message, refused.param)
            return Reply(400, _JSON, problem, "rejected")
        text = record_text(body["messages"])
        record = record_hash(text)
        self.book.names(record)
        reply = self._over_limit(record, body) or self._perform(record, text, body)
        if self._limits:
            limits = [bucket.headers(kind) for kind, bucket in self._limits.items()]
            reply.headers = reply.headers | {name: value for each in limits for name, value in each.items()}
        return reply

    def _over_limit(self, record: str, body: dict[str, Any]) -> Reply | None:
        """The 429 of a request beyond the rate limits, or None, and then its units are taken.

        The answer's tokens are taken when it is made, so the bucket may owe a little: like a server, which cannot know.
        """
        if not self._limits:
            return None
        units = {"requests": 1, "tokens": self.completions.prompt_tokens(body)}
        for kind, bucket in self._limits.items():
            if (wait_s := bucket.wait_s(units[kind])) > 0:
                wait_s = math.ceil(wait_s * 1000) / 1000
                self.book.told_to_wait(record, wait_s)
                headers = {**_JSON, "retry-after-ms": f"{wait_s * 1000:.0f}", "retry-after": f"{math.ceil(wait_s)}"}
                said = f"Rate limit reached for {kind} per min. Please try again in {wait_s:.3f}s."
                return Reply(429, headers, error_body(kind, "rate_limit_exceeded", said), "limited")
        for kind, bucket in self._limits.items():
            bucket.take(units[kind])
        return None

    def _perform(self, record: str, text: str, body: dict[str, Any]) -> Reply:
        faults = self.faults
        attempt = self.book.attempt(record)
        fault = faults.fault(record, text, attempt)
        delay_s = faults.latency_s(record, attempt)
        if failed := fault and error_reply(fault, faults.retry_after_s):
            if any(name.startswith("retry-after") for name in failed[1]):
                self.book.told_to_wait(record, faults.retry_after_s)
            return Reply(*failed, outcome=fault, record=record, delay_s=delay_s)
        if fault in ("hang", "reset"):
            return Reply(0, {}, b"", fault, record, delay_s)
        made, usage = self.completions.complete(body, faults, fault)
        if "tokens" in self._limits:
            self._limits["tokens"].take(usage["completion_tokens"])
        if fault == "late":
            delay_s += faults.late_s
        if fault == "html_200":
            return Reply(200, {"content-type": "text/html"}, HTML_PAGE, fault, record, delay_s, usage)
        billed = None if fault in TRANSPORT_FAULTS else usage
        return Reply(200, _JSON, orjson.dumps(made), fault or "ok", record, delay_s, billed)

    def _execute_line(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """One line of a batch: the same answers, and those of the faults that can happen inside a batch."""
        try:
            self.completions.check(body, self.faults)
        except Rejected as refused:
            problem = error_body("invalid_request_error", refused.code, refused.message, refused.param)
            return 400, orjson.loads(problem)
        text = record_text(body["messages"])
        record = record_hash(text)
        fault = self.faults.fault(record, text, self.book.attempt(record))
        failed = fault and error_reply(fault, self.faults.retry_after_s)
        if failed and failed[1]["content-type"] == _JSON["content-type"]:
            return failed[0], orjson.loads(failed[2])
        made, usage = self.completions.complete(body, self.faults, fault)
        self.book.pays(usage)
        if fault not in BAD_REPLIES:
            self.book.answers(record, usage)
        return 200, made


def _key(request: web.BaseRequest) -> str:
    return request.headers.get("api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")


def _with_key(body: bytes, key: str) -> bytes:
    """The body of an error or a refusal with the key in its words, as careless gateways write them into their logs."""
    for opening in (b'"message":"', b'"refusal":"', b"<h1>"):
        body = body.replace(opening, opening + f"With the key {key}: ".encode())
    return body


def _readable(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


def _response(status: int, headers: dict[str, str], body: bytes) -> web.Response:
    return web.Response(status=status, headers=headers, body=body)


async def _deliver(request: web.BaseRequest, reply: Reply, faults: Faults) -> web.StreamResponse:
    """Sends a reply to its last byte, or fails to as its fault says."""
    fault, body = reply.outcome, reply.body
    if fault == "hang":
        await asyncio.Event().wait()  # until the client goes away or the server stops: both cancel this
    if fault == "reset":
        return _reset(request)
    if fault not in ("reset_in_body", "cut_in_body", "slow_drip"):
        response: web.StreamResponse = _response(reply.status, reply.headers, body)
        await response.prepare(request)
        await response.write_eof()
        return response
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_length = len(body)
    await response.prepare(request)
    if fault == "slow_drip":
        size = max(1, len(body) // 10)
        for start in range(0, len(body), size):
            await asyncio.sleep(faults.drip_s / 10)  # not after the last piece: the client goes when it has that
            await response.write(body[start : start + size])
        await response.write_eof()
        return response
    await response.write(body[: len(body) // 2])
    await asyncio.sleep(0.01)  # lets the client see the first half
    if fault == "reset_in_body":
        return _reset(request)
    request.transport.close()
    return response


def _reset(request: web.BaseRequest) -> web.Response:
    """Drops the connection with RST; what is returned goes nowhere."""
    request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    request.transport.abort()
    return web.Response()
