"""The hot path: any OpenAI-compatible chat endpoint, through `AsyncOpenAI` with bodies that we encode ourselves.

CPU a request, measured on one machine: `chat.completions.create` 2.8 ms; `AsyncOpenAI.post` with raw bytes over its
aiohttp transport 0.55 ms; the HTTP client of that same `AsyncOpenAI`, with address and headers encoded once, 0.25 ms;
bare aiohttp 0.16 ms. So `AsyncOpenAI` sets up authentication, headers, time-outs and transport, and each request is
then sent by its HTTP client; retries and errors are ours anyway.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import orjson

from annotator.errors import BadInput, ServiceFailure
from annotator.excerpt import token_estimate
from annotator.fingerprint import fingerprint
from annotator.judges import STRATEGIES, Pace, Reply, Request, Sampling, Unanswered, Usage
from annotator.judges.answers import AnswerForm, InvalidAnswer
from annotator.judges.faults import Fault, redact, status_fault
from annotator.judges.flow import Gate
from annotator.judges.retrying import TryAgain, try_again
from annotator.judges.wire import Wire
from annotator.prompts import Prompt
from annotator.taxonomy import Taxonomy

OPENAI_URL = "https://api.openai.com/v1"
# Words by which endpoints say that they do not know our way of asking for a form, or a sampling field.
_FORM_REFUSED = re.compile(
    r"response_format|json_schema|json_object|\b(?:structured|strict|tools?|tool_choice|functions?|grammar)\b", re.I
)
_FIELD_UNKNOWN = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|extra|not permitted|not allowed|instead"
    r"|invalid (?:field|param|arg)",
    re.I,
)
_FIELDS = {name: name for name in ("temperature", "seed", "max_tokens")} | {"max_completion_tokens": "max_tokens"}
# A strategy under which this many answers were invalid, and none valid, is not enforced by the endpoint.
_INVALID_BEFORE_STEP = 6


class ChatJudge:
    """A model behind `POST {base_url}/chat/completions`. See `Judge` for the attributes that all judges have."""

    def __init__(
        self,
        model: str,
        *,
        prompt: Prompt,
        taxonomy: Taxonomy,
        base_url: str | None,
        api_key: str | None,
        pace: Pace,
        sampling: Sampling,
        strategy: str,
        endpoint_name: str | None,
    ) -> None:
        self.base_url = (base_url or OPENAI_URL).rstrip("/")
        if not self.base_url.startswith(("http://", "https://")):
            raise BadInput(f"{base_url!r} is no address", where="--base-url", remedy="Write http://host:port/v1, say.")
        if not api_key and base_url is None:
            remedy = "Set OPENAI_API_KEY, or give --base-url for a server of your own."
            raise BadInput("no key for OpenAI", where=f"openai:{model}", remedy=remedy)
        self.kind, self.taxonomy, self.prompt, self.pace, self.sampling = prompt.kind, taxonomy, prompt, pace, sampling
        self.model, self.name = model, f"openai:{model}"
        self.form = AnswerForm(taxonomy, prompt.kind)
        self.gate = Gate(pace)
        self._key = api_key or "none"  # servers without authentication ignore it, and the client wants one
        self._client: Any = None
        self._fixed_strategy = strategy != "auto"
        self._strategy = strategy if self._fixed_strategy else STRATEGIES[0]
        self._dropped: frozenset[str] = frozenset()
        self._tokens_field = "max_completion_tokens"
        self._answered = False
        self._outcomes: Counter[tuple[str, bool]] = Counter()  # (strategy, valid) -> answers
        self.fixed_tokens = self.form.fixed_tokens(prompt.system)
        self._output_tokens = 120.0  # running mean, to reserve from the token bucket
        self.identity = {
            "api": "chat",
            "endpoint": endpoint_name or endpoint_kind(self.base_url),
            "model": model,
            "sampling": [sampling.temperature, sampling.max_output_tokens, sampling.seed],
            "strategy": strategy,
            "schema": fingerprint(self.form.schema),
            "prompt": prompt.fingerprint,
        }
        self._build_wire()

    def _build_wire(self) -> None:
        self.wire = Wire(
            model=self.model,
            system=self.prompt.system,
            form=self.form,
            sampling=self.sampling,
            strategy=self._strategy,
            dropped=self._dropped,
            tokens_field=self._tokens_field,
        )

    async def ask(self, request: Request) -> Reply:
        """See `Judge.ask`. Asks again when an answer is invalid or cut short, at most `pace.reasks` times."""
        usage = Usage()
        complaint, growth = "", 1
        last = InvalidAnswer("empty_answer", "")
        for _ in range(1 + self.pace.reasks):
            wire, answer = await self._send(request.user, complaint, growth, usage)
            try:
                label = self._read(answer, usage)
            except InvalidAnswer as invalid:
                last, complaint = invalid, invalid.complaint
                growth = growth * 4 if invalid.reason == "truncated_answer" else growth
                if invalid.reason != "truncated_answer":  # the limit was too small; that says nothing of the form
                    self._judge_strategy(wire.strategy, valid=False)
                continue
            self._judge_strategy(wire.strategy, valid=True)
            return self._reply(answer, label, wire.strategy, usage)
        raise Unanswered(last.reason, redact(last.complaint, self._key), http_status=200, usage=usage)

    def reply_of(self, answer: dict[str, Any]) -> Reply:
        """The reply in a chat completion that came by another way, such as a batch file.

        Raises:
            Unanswered, InvalidAnswer: there is no valid label in it.
        """
        if not isinstance(answer.get("choices"), list):
            raise Unanswered("bad_response", "not a chat completion")
        usage = Usage(requests=1)
        _count(answer, usage)
        return self._reply(answer, self._read(answer, usage), self.wire.strategy, usage)

    def _reply(self, answer: dict[str, Any], label: dict[str, Any], strategy: str, usage: Usage) -> Reply:
        model = str(answer.get("model") or self.model)
        finish = str(answer["choices"][0].get("finish_reason") or "stop")
        return Reply(label=label, model=model, strategy=strategy, usage=usage, finish_reason=finish)

    def open_files_client(self) -> Any:
        """A synchronous client of the same endpoint, for its files and batches."""
        import openai

        return openai.OpenAI(api_key=self._key, base_url=self.base_url, timeout=self.pace.timeout_s)

    async def _send(self, user: str, complaint: str, growth: int, usage: Usage) -> tuple[Wire, dict[str, Any]]:
        """One answered request, after as many tries as the pace allows; the wire it went by, and the parsed body."""
        try:
            return await self._once(user, complaint, growth, usage)
        except TryAgain as first:
            return await try_again(first, lambda: self._once(user, complaint, growth, usage), self.pace, usage)

    async def _once(self, user: str, complaint: str, growth: int, usage: Usage) -> tuple[Wire, dict[str, Any]]:
        while True:
            wire = self.wire
            reserved = self.fixed_tokens + token_estimate(user) + int(self._output_tokens)
            started = await self.gate.enter(reserved)
            content = wire.body(user, complaint=complaint, growth=growth)
            usage.requests += 1
            fault: Fault | None = None
            answer: dict[str, Any] = {}
            try:
                headers, answer, fault = await self._post(content)
                if fault is None or fault.http_status is not None:
                    spent = _count(answer, usage)
                    self.gate.learn(headers, reserved=reserved, used=spent or reserved)
            finally:
                slow = fault is not None and (fault.action == "slow" or fault.reason == "timeout")
                self.gate.leave(started, overloaded=slow, failed=fault is not None)
            if fault is None:
                self._answered = True
                return wire, answer
            if growth > 1 and fault.action == "row" and fault.reason in ("rejected", "too_long"):
                # The record fitted at first: what is refused is the room that we asked for to finish the answer.
                raise Unanswered("truncated_answer", fault.detail, http_status=fault.http_status, usage=usage)
            if self._adapt(wire, fault):
                continue
            self._raise(fault, usage)

    async def _post(self, content: bytes) -> tuple[Any, dict[str, Any], Fault | None]:
        """(headers, parsed body, fault) of one request."""
        http, request = self._connect(content)
        try:
            # The client's own time-out is for each read: a server that drips a byte a second would never meet it.
            async with asyncio.timeout(self.pace.timeout_s):
                response = await http.send(request)
        except (self._httpx2.HTTPError, OSError) as error:
            return {}, {}, self._connection_fault(error)
        if response.status_code >= 400:
            fault = status_fault(response.status_code, response.headers, response.content)
            return response.headers, {}, replace(fault, detail=redact(fault.detail, self._key))
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
            detail = f"not a chat completion: {response.content[:200].decode('utf-8', 'replace')}"
            return response.headers, {}, Fault("retry", "bad_response", redact(detail, self._key), response.status_code)
        return response.headers, answer, None

    def _connect(self, content: bytes) -> tuple[Any, Any]:
        """(HTTP client, request). The client is made on first use, in the event loop that it will serve.

        openai is imported here and not above: it takes most of a second, and opening a judge must not.
        """
        if self._client is None:
            import httpx2
            import openai

            self._httpx2 = httpx2
            timeout = httpx2.Timeout(self.pace.timeout_s, connect=min(10.0, self.pace.timeout_s))
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=self.pace.concurrency)
            self._http = openai.DefaultAioHttpClient(timeout=timeout, limits=limits)
            self._client = openai.AsyncOpenAI(
                api_key=self._key, base_url=self.base_url, max_retries=0, timeout=timeout, http_client=self._http
            )
            self._address = httpx2.URL(f"{self.base_url}/chat/completions")
            both = {**self._client.default_headers, **self._client.auth_headers}
            headers = {name: value for name, value in both.items() if isinstance(value, str)}
            self._headers = httpx2.Headers(headers | {"content-type": "application/json"})
        return self._http, self._httpx2.Request("POST", self._address, headers=self._headers, content=content)

    def _connection_fault(self, error: BaseException) -> Fault:
        """A time-out or a broken connection; the transport calls some resets time-outs, so the cause decides."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, TimeoutError):
                return Fault("retry", "timeout", f"no answer within {self.pace.timeout_s:g} s")
            deepest, cause = cause, cause.__cause__
        return Fault("retry", "connection", redact(f"{type(deepest).__name__}: {deepest}", self._key))

    async def close(self) -> None:
        """See `Judge.close`."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    def _read(self, answer: dict[str, Any], usage: Usage) -> dict[str, Any]:
        choices = answer["choices"]
        if not choices or not isinstance(choices[0], dict):
            raise InvalidAnswer("empty_answer", "The answer was empty. Answer with the JSON object only.")
        message = choices[0].get("message")
        message = message if isinstance(message, dict) else {}
        finish = choices[0].get("finish_reason")
        if message.get("refusal"):
            raise Unanswered("refusal", redact(str(message["refusal"])[:500], self._key), http_status=200, usage=usage)
        if finish == "content_filter":
            raise Unanswered("content_filter", "the provider's filter stopped the answer", http_status=200, usage=usage)
        text = _text_of(message.get("content"))
        calls = message.get("tool_calls")
        if isinstance(calls, list) and calls and isinstance(calls[0], dict):
            text = str((calls[0].get("function") or {}).get("arguments") or text)
        if finish == "length":
            try:
                return self.form.read(text)  # complete all the same, when the limit fell behind the last bracket
            except InvalidAnswer:
                raise InvalidAnswer("truncated_answer", "The answer was cut off. Keep it short.") from None
        return self.form.read(text)

    def _judge_strategy(self, strategy: str, *, valid: bool) -> None:
        """Count an answer; leave a strategy that the endpoint accepts but does not enforce."""
        self._outcomes[strategy, valid] += 1
        hopeless = self._outcomes[strategy, False] >= _INVALID_BEFORE_STEP and not self._outcomes[strategy, True]
        if not valid and hopeless and strategy == self._strategy:
            self._step_down()

    def _adapt(self, wire: Wire, fault: Fault) -> bool:
        """Whether the request should be sent again in another form, because the endpoint does not know this one."""
        if wire is not self.wire:
            return fault.reason in ("rejected", "server_error")  # refused in a form that was given up in the meantime
        unproven = not self._outcomes[wire.strategy, True]
        if fault.reason not in ("rejected", "server_error") or not unproven:
            return False
        if fault.reason == "rejected" and _FIELD_UNKNOWN.search(fault.detail):
            for word, name in _FIELDS.items():
                if re.search(rf"\b{word}\b", fault.detail) and self._drop(word, name):
                    return True
        return bool(_FORM_REFUSED.search(fault.detail)) and self._step_down()

    def _drop(self, word: str, name: str) -> bool:
        if name == "max_tokens" and self._tokens_field == "max_completion_tokens" == word:
            self._tokens_field = "max_tokens"
        elif name not in self._dropped:
            self._dropped |= {name}
        else:
            return False
        self._build_wire()
        return True

    def _step_down(self) -> bool:
        place = STRATEGIES.index(self._strategy)
        if self._fixed_strategy or place + 1 == len(STRATEGIES):
            return False
        self._strategy = STRATEGIES[place + 1]
        self._build_wire()
        return True

    def _raise(self, fault: Fault, usage: Usage) -> None:
        if fault.action == "slow":
            self.gate.pause(fault.retry_after_s)
        if fault.action in ("slow", "retry"):
            raise TryAgain(fault)
        # Nothing has been answered yet, and the server says that model or key are wrong: no other record fares better.
        hopeless = fault.reason in ("forbidden", "not_found") and not self._answered
        if fault.action == "run" or hopeless:
            where = f"{self.name} at {self.base_url}"
            raise ServiceFailure(f"{where}: {fault.reason} ({fault.http_status}): {fault.detail}")
        raise Unanswered(fault.reason, fault.detail, http_status=fault.http_status, usage=usage)


def _count(answer: dict[str, Any], usage: Usage) -> int:
    """Add the server's token counts to `usage`; all tokens of this answer, 0 when it does not say."""
    counts = answer.get("usage")
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


def endpoint_kind(base_url: str) -> str:
    """What kind of endpoint an address is, for cache keys: a public host by its name, any private one as "private".

    A served model moves from node to node and from port to port of one's own cluster, and its answers stay paid for.

    >>> endpoint_kind("https://api.openai.com/v1"), endpoint_kind("http://127.0.0.1:8000/v1")
    ('api.openai.com', 'private')
    """
    host = (urlsplit(base_url).hostname or "").lower()
    if "." not in host or ":" in host or host.replace(".", "").isdigit() or host.endswith((".local", ".internal")):
        return "private"
    return host


def _text_of(content: Any) -> str:
    """The text of a message: a string, or the text parts of a list, as some gateways send it."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
