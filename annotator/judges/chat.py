"""The hot path: any OpenAI-compatible chat endpoint, with request bodies that are encoded once but for the record."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson

from annotator.errors import BadInput, ServiceFailure
from annotator.excerpt import token_estimate
from annotator.fingerprint import fingerprint
from annotator.judges import Pace, Reply, Request, Sampling, Unanswered, Usage
from annotator.judges.answers import AnswerForm, InvalidAnswer
from annotator.judges.completion import count_tokens, read_label
from annotator.judges.confidence import confidence_of
from annotator.judges.endpoint import Endpoint
from annotator.judges.faults import Fault, status_fault, with_remedy
from annotator.judges.flow import Gate
from annotator.judges.manner import Learner, Memory
from annotator.judges.retrying import TryAgain, try_again
from annotator.judges.wire import Wire
from annotator.prompts import Prompt
from annotator.taxonomy import Taxonomy

_USUAL_OUTPUT = 120.0
_GROWTH = 4  # of the output limit, after an answer that was cut short


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
        headers: Mapping[str, str],
        pace: Pace,
        sampling: Sampling,
        strategy: str,
        endpoint_name: str | None,
        cache_dir: str | Path | None,
    ) -> None:
        if not api_key and base_url is None:
            remedy = "Set OPENAI_API_KEY, or give --base-url for a server of your own."
            raise BadInput("no key for OpenAI", where=f"openai:{model}", remedy=remedy)
        self.endpoint = Endpoint(base_url, api_key=api_key, headers=headers, timeout_s=pace.timeout_s)
        self.kind, self.taxonomy, self.prompt, self.pace, self.sampling = prompt.kind, taxonomy, prompt, pace, sampling
        self.model, self.name = model, f"openai:{model}"
        self.form = AnswerForm(taxonomy, prompt.kind)
        self.fixed_tokens = self.form.fixed_tokens(prompt.system)
        self.gate = Gate(pace)
        self._learner = Learner(strategy, Memory(cache_dir, self.endpoint.base_url, model) if cache_dir else None)
        self._answered = False
        self._output_tokens = _USUAL_OUTPUT  # running mean, to reserve from the token bucket
        self.identity = {
            "api": "chat",
            "endpoint": endpoint_name or endpoint_kind(self.endpoint.host),
            "model": model,
            "sampling": [sampling.temperature, sampling.max_output_tokens, sampling.seed],
            "strategy": strategy,
            "schema": fingerprint(self.form.schema),
            "prompt": prompt.fingerprint,
        }
        if sampling.logprobs:  # only then, so that answers that were paid for without them are still found
            self.identity["logprobs"] = True
        self._wire: Wire | None = None

    def with_seed(self, seed: int) -> Self:
        """The same judge, on the same connections and under the same limits, with another seed."""
        other = copy.copy(self)
        other.sampling = replace(self.sampling, seed=seed)
        other.identity = self.identity | {"sampling": [*self.identity["sampling"][:2], seed]}
        other._wire = None
        return other

    @property
    def wire(self) -> Wire:
        """What encodes requests in the manner that the endpoint wants, as far as it is known by now."""
        wire, manner = self._wire, self._learner.manner
        if wire is None or wire.manner is not manner:
            wire = self._wire = Wire(
                manner, model=self.model, system=self.prompt.system, form=self.form, sampling=self.sampling
            )
        return wire

    async def ask(self, request: Request) -> Reply:
        """See `Judge.ask`. An invalid answer is asked again `pace.reasks` times, with a complaint about the last."""
        usage = Usage()
        complaint, growth, reasks_left = "", 1, self.pace.reasks
        while True:
            wire, answer = await self._send(request.user, complaint, growth, usage)
            strategy = wire.manner.strategy
            try:
                label = self._read(answer, usage)
            except InvalidAnswer as invalid:
                complaint = invalid.complaint
                if invalid.reason == "truncated_answer":  # the limit was too small; that says nothing of the form
                    growth *= _GROWTH
                else:
                    self._learner.heard(strategy, valid=False)
                if reasks_left == 0:
                    detail = self.endpoint.redact(complaint)
                    raise Unanswered(invalid.reason, detail, http_status=200, usage=usage) from None
                reasks_left -= 1
            else:
                self._learner.heard(strategy, valid=True)
                return self._reply(answer, label, strategy, usage)

    def reply_of(self, answer: dict[str, Any]) -> Reply:
        """The reply in a chat completion that came by another way, such as a batch file.

        Raises:
            Unanswered, InvalidAnswer: there is no valid label in it.
        """
        if not isinstance(answer.get("choices"), list):
            raise Unanswered("bad_response", "not a chat completion")
        usage = Usage(requests=1)
        count_tokens(answer, usage)
        return self._reply(answer, self._read(answer, usage), self.wire.manner.strategy, usage)

    def _read(self, answer: dict[str, Any], usage: Usage) -> dict[str, Any]:
        try:
            return read_label(answer, self.form, usage)
        except Unanswered as refused:
            refused.detail = self.endpoint.redact(refused.detail)
            raise

    def _reply(self, answer: dict[str, Any], label: dict[str, Any], strategy: str, usage: Usage) -> Reply:
        choice = answer["choices"][0]
        return Reply(
            label=label,
            model=str(answer.get("model") or self.model),
            strategy=strategy,
            usage=usage,
            finish_reason=str(choice.get("finish_reason") or "stop"),
            confidence=confidence_of(choice) if self.sampling.logprobs else None,
        )

    def open_files_client(self) -> Any:
        """A synchronous client of the same endpoint, for its files and batches."""
        return self.endpoint.files_client()

    async def _send(self, user: str, complaint: str, growth: int, usage: Usage) -> tuple[Wire, dict[str, Any]]:
        """One answered request, after as many tries as the pace allows; the wire it went by, and the parsed body."""
        try:
            return await self._once(user, complaint, growth, usage)
        except TryAgain as first:
            return await try_again(first, lambda: self._once(user, complaint, growth, usage), self.pace, usage)

    async def _once(self, user: str, complaint: str, growth: int, usage: Usage) -> tuple[Wire, dict[str, Any]]:
        while True:
            wire = self.wire
            content = wire.body(user, complaint=complaint, growth=growth)
            reserved = self.fixed_tokens + token_estimate(user) + int(self._output_tokens)
            answer, fault = await self._pass_gate(content, reserved, usage)
            if fault is None:
                self._answered = True
                return wire, answer
            if growth > 1 and fault.action == "row" and fault.reason in ("rejected", "too_long"):
                # The record fitted at first: what is refused is the room that we asked for to finish the answer.
                raise Unanswered("truncated_answer", fault.detail, http_status=fault.http_status, usage=usage)
            if not self._learner.adapt(wire.manner, fault):
                self._raise(fault, usage)

    async def _pass_gate(self, content: bytes, reserved: int, usage: Usage) -> tuple[dict[str, Any], Fault | None]:
        started = await self.gate.enter(reserved)
        usage.requests += 1
        fault: Fault | None = None
        try:
            headers, answer, fault = await self._post(content)
            if fault is None or fault.http_status is not None:
                before = usage.output_tokens
                spent = count_tokens(answer, usage)
                if fault is None:
                    self._output_tokens += 0.05 * (usage.output_tokens - before - self._output_tokens)
                self.gate.learn(headers, reserved=reserved, used=spent or reserved)
        finally:
            slow = fault is not None and (fault.action == "slow" or fault.reason == "timeout")
            self.gate.leave(started, overloaded=slow, failed=fault is not None)
        return answer, fault

    async def _post(self, content: bytes) -> tuple[Mapping[str, str], dict[str, Any], Fault | None]:
        """(headers, parsed body, fault) of one request."""
        try:
            status, headers, body = await self.endpoint.post(content)
        except (aiohttp.ClientError, OSError) as error:
            return {}, {}, self.endpoint.fault_of(error)
        if status >= 300:
            fault = status_fault(status, headers, body)
            return headers, {}, replace(fault, detail=self.endpoint.redact(fault.detail))
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
            detail = f"not a chat completion: {body[:200].decode('utf-8', 'replace')}"
            return headers, {}, Fault("retry", "bad_response", self.endpoint.redact(detail), status)
        return headers, answer, None

    def _raise(self, fault: Fault, usage: Usage) -> None:
        if fault.action == "slow":
            self.gate.pause(fault.retry_after_s)
        if fault.action in ("slow", "retry"):
            raise TryAgain(fault)
        # Nothing has been answered yet, and the server says that model or key are wrong: no other record fares better.
        hopeless = fault.reason in ("forbidden", "not_found") and not self._answered
        if fault.action == "run" or hopeless:
            where = f"{self.name} at {self.endpoint.base_url}"
            raise ServiceFailure(
                with_remedy(f"{where}: {fault.reason} ({fault.http_status}): {fault.detail}", fault.reason)
            )
        raise Unanswered(fault.reason, fault.detail, http_status=fault.http_status, usage=usage)

    async def close(self) -> None:
        """See `Judge.close`."""
        await self.endpoint.close()


def endpoint_kind(host: str) -> str:
    """What kind of endpoint a host is, for cache keys: a public one by its name, any private one as "private".

    A served model moves from node to node and from port to port of one's own cluster, and its answers stay paid for.

    >>> endpoint_kind("api.openai.com"), endpoint_kind("127.0.0.1")
    ('api.openai.com', 'private')
    """
    host = host.lower()
    if "." not in host or ":" in host or host.replace(".", "").isdigit() or host.endswith((".local", ".internal")):
        return "private"
    return host
