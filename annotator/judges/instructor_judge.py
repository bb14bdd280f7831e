"""Every other provider that instructor speaks: Anthropic, Gemini, Mistral, Cohere, Bedrock, ...

Slower than `openai:` by an order of magnitude in CPU a request (instructor builds classes and schemas each time), which
matters little at the rates of a hosted provider.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from annotator.errors import BadInput, ServiceFailure
from annotator.excerpt import token_estimate
from annotator.fingerprint import fingerprint
from annotator.judges import Pace, Reply, Request, Sampling, Unanswered, Usage
from annotator.judges.answers import AnswerForm
from annotator.judges.chat import endpoint_kind
from annotator.judges.endpoint import split_address
from annotator.judges.faults import Fault, redact, retry_after, status_fault
from annotator.judges.flow import Gate
from annotator.judges.retrying import TryAgain, try_again
from annotator.prompts import Prompt
from annotator.taxonomy import Taxonomy

_ANSWER_TOKENS = 120
_MODES = {"json_schema": "JSON_SCHEMA", "tools": "TOOLS", "json_object": "JSON"}
_OPTIONAL = ("temperature", "seed", "max_tokens")


class InstructorJudge:
    """A model behind `instructor.from_provider`. See `Judge` for the attributes that all judges have.

    Keys of other providers than OpenAI are read by the provider's own client from its own environment variable; headers
    and a cache folder, which other judges use, have no use here.
    """

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
        headers: Mapping[str, str],
        cache_dir: str | Path | None,
    ) -> None:
        provider, slash, bare = model.partition("/")
        if not slash or not provider or not bare:
            remedy = "Write instructor:anthropic/claude-haiku-4-5, say."
            raise BadInput("no provider", where=f"instructor:{model}", remedy=remedy)
        if provider == "openai" and not api_key and base_url is None:
            raise BadInput("no key for OpenAI", where=f"instructor:{model}", remedy="Set OPENAI_API_KEY.")
        self._check(model, base_url, sampling)
        self.kind, self.taxonomy, self.prompt, self.pace, self.sampling = prompt.kind, taxonomy, prompt, pace, sampling
        self.model, self.name = bare, f"instructor:{model}"
        self.form = AnswerForm(taxonomy, prompt.kind)
        self.fixed_tokens = self.form.fixed_tokens(prompt.system)
        self.gate = Gate(pace)
        self._provider, self._spec, self._base_url = provider, model, base_url
        self._key = api_key if provider == "openai" else None
        self._strategy = strategy
        self._sent = {name: value for name, value in self._fields().items() if value is not None}
        self._client: Any = None
        self._answered = False
        self.identity = {
            "api": f"instructor:{provider}",
            "endpoint": endpoint_name or (endpoint_kind(urlsplit(base_url).hostname or "") if base_url else provider),
            "model": bare,
            "sampling": [sampling.temperature, sampling.max_output_tokens, sampling.seed],
            "strategy": strategy,
            "schema": fingerprint(self.form.schema),
            "prompt": prompt.fingerprint,
        }

    @staticmethod
    def _check(model: str, base_url: str | None, sampling: Sampling) -> None:
        """Refuse what only `openai:` can do."""
        where, remedy = f"instructor:{model}", "Use openai:MODEL."
        if base_url is not None and split_address(base_url).username is not None:
            raise BadInput("no user and password can be sent from here", where=where, remedy=remedy)
        if sampling.logprobs:
            raise BadInput("log-probabilities cannot be had from here", where=where, remedy=remedy)

    def with_seed(self, seed: int) -> Self:
        """The same judge under the same limits, with another seed; providers that take none sample anyway."""
        other = copy.copy(self)
        other.sampling = replace(self.sampling, seed=seed)
        other.identity = self.identity | {"sampling": [*self.identity["sampling"][:2], seed]}
        other._sent = {name: value for name, value in other._fields().items() if value is not None}
        return other

    def _fields(self) -> dict[str, Any]:
        sampling = self.sampling
        return {
            "temperature": sampling.temperature,
            "seed": sampling.seed if self._provider == "openai" else None,
            "max_tokens": sampling.max_output_tokens,
        }

    async def ask(self, request: Request) -> Reply:
        """See `Judge.ask`. Invalid answers are asked again by instructor itself, `pace.reasks` times."""
        usage = Usage()
        try:
            return await self._once(request, usage)
        except TryAgain as first:
            return await try_again(first, lambda: self._once(request, usage), self.pace, usage)

    async def _once(self, request: Request, usage: Usage) -> Reply:
        reserved = self.fixed_tokens + token_estimate(request.user) + _ANSWER_TOKENS
        while True:
            started = await self.gate.enter(reserved)
            fault: Fault | None = None
            try:
                label, completion = await self._create(request, usage)
            except Exception as error:  # providers share no base class; what they raise is told apart by its shape
                fault = self._fault(error, usage)
            finally:
                slow = fault is not None and (fault.action == "slow" or fault.reason == "timeout")
                self.gate.leave(started, overloaded=slow, failed=fault is not None)
            if fault is None:
                self._answered = True
                _count(getattr(completion, "usage", None) or getattr(completion, "usage_metadata", None), usage)
                served = str(getattr(completion, "model", None) or self.model)
                fields = {name: getattr(label, name) for name in self.form.model.model_fields}
                return Reply(fields, model=served, strategy=f"instructor/{self._mode}", usage=usage)
            if fault.reason == "rejected" and self._drop_field(fault.detail):
                continue
            self._raise(fault, usage)

    async def _create(self, request: Request, usage: Usage) -> tuple[Any, Any]:
        from instructor.core.hooks import Hooks

        def count(*_: Any, **__: Any) -> None:
            usage.requests += 1

        hooks = Hooks()
        hooks.on("completion:kwargs", count)
        messages = [{"role": "system", "content": self.prompt.system}, {"role": "user", "content": request.user}]
        return await self._open_client().create_with_completion(
            response_model=self.form.model, messages=messages, max_retries=self.pace.reasks, hooks=hooks, **self._sent
        )

    def _open_client(self) -> Any:
        if self._client is None:
            import instructor

            logging.getLogger("instructor").setLevel(logging.CRITICAL)  # it prints what the dead-letter file holds
            options: dict[str, Any] = {"timeout": self.pace.timeout_s, "max_retries": 0}
            if self._key or self._base_url:
                options["api_key"] = self._key or "none"
            if self._base_url:
                options["base_url"] = self._base_url
            if self._strategy in _MODES:
                options["mode"] = instructor.Mode[_MODES[self._strategy]]
            try:
                self._client = self._from_provider(options)
            except Exception as error:  # an extra that is not installed, a missing key, an unknown provider
                message = redact(str(error), self._key).splitlines()[0]
                raise ServiceFailure(f"{self.name} cannot be opened: {message}") from None
        return self._client

    def _from_provider(self, options: dict[str, Any]) -> Any:
        import instructor

        try:
            return instructor.from_provider(self._spec, async_client=True, **options)
        except TypeError:  # some providers' clients take no time-out or retry count; the gate has its own
            kept = {name: value for name, value in options.items() if name not in ("timeout", "max_retries")}
            return instructor.from_provider(self._spec, async_client=True, **kept)

    @property
    def _mode(self) -> str:
        return str(getattr(self._client.mode, "value", self._client.mode))

    def _drop_field(self, detail: str) -> bool:
        for name in _OPTIONAL:
            if name in self._sent and re.search(rf"\b{name}\b", detail):
                self._sent = {other: value for other, value in self._sent.items() if other != name}
                if name == "max_tokens" and self._provider == "openai":
                    self._sent["max_completion_tokens"] = self.sampling.max_output_tokens
                return True
        return False

    def _fault(self, error: Exception, usage: Usage) -> Fault:
        """The same codes as for `openai:`, from instructor's errors and the providers' errors inside them."""
        if isinstance(error, ServiceFailure):
            raise error
        completion = getattr(error, "last_completion", None)
        _count(getattr(error, "total_usage", None) or getattr(completion, "usage", None), usage)
        attempts = getattr(error, "failed_attempts", None) or []
        causes = [error, error.__cause__, *(attempt.exception for attempt in attempts[-1:])]
        for cause in causes:
            if cause is not None and (fault := _provider_fault(cause)):
                return replace(fault, detail=redact(fault.detail, self._key))
        last = next((cause for cause in reversed(causes) if cause is not None), error)
        names = {type(cause).__name__ for cause in causes if cause is not None}
        detail = redact(str(last), self._key)[:500]
        if "IncompleteOutputException" in names:
            return Fault("row", "truncated_answer", detail)
        if detail.startswith("Unable to generate a response"):  # instructor's words for `message.refusal`
            return Fault("row", "refusal", detail)
        if "JSONDecodeError" in names or "Invalid JSON" in detail or "json_invalid" in detail:
            return Fault("row", "invalid_json", detail)
        return Fault("row", "invalid_label", detail)

    def _raise(self, fault: Fault, usage: Usage) -> None:
        if fault.action == "slow":
            self.gate.pause(fault.retry_after_s)
        if fault.action in ("slow", "retry"):
            raise TryAgain(fault)
        hopeless = fault.reason in ("forbidden", "not_found") and not self._answered
        if fault.action == "run" or hopeless:
            raise ServiceFailure(f"{self.name}: {fault.reason} ({fault.http_status}): {fault.detail}")
        raise Unanswered(fault.reason, fault.detail, http_status=fault.http_status, usage=usage)

    async def close(self) -> None:
        """See `Judge.close`."""
        client, self._client = self._client, None
        inner = getattr(client, "client", None)
        if hasattr(inner, "close"):
            closing = inner.close()
            if hasattr(closing, "__await__"):
                await closing


def _provider_fault(error: BaseException) -> Fault | None:
    status = next(
        (value for name in ("status_code", "code", "status") if isinstance(value := getattr(error, name, None), int)),
        None,
    )
    response = getattr(error, "response", None)
    headers: Mapping[str, str] = getattr(response, "headers", None) or {}
    if status is not None and status >= 400:
        content = getattr(response, "content", None)
        body = content if isinstance(content, bytes) and content else str(error).encode()
        return status_fault(status, headers, body)
    name = type(error).__name__
    if "Timeout" in name:
        return Fault("retry", "timeout", str(error) or name, None, retry_after(headers))
    if "Connect" in name or isinstance(error, OSError):
        return Fault("retry", "connection", str(error) or name)
    return None


def _count(counts: Any, usage: Usage) -> None:
    """Add token counts in the OpenAI, Anthropic or Gemini form."""
    usage.input_tokens += _first(counts, "prompt_tokens", "input_tokens", "prompt_token_count")
    usage.output_tokens += _first(counts, "completion_tokens", "output_tokens", "candidates_token_count")
    details = getattr(counts, "prompt_tokens_details", None)
    usage.cached_input_tokens += _first(details, "cached_tokens") or _first(
        counts, "cache_read_input_tokens", "cached_content_token_count"
    )


def _first(counts: Any, *names: str) -> int:
    for name in names:
        value = getattr(counts, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return 0
