"""Judges: interchangeable ways to get labels for records. `open_judge("openai:gpt-5-mini", ...)` opens one.

A judge of the asking kind answers one `Request` at a time (`Judge.ask`): a chat endpoint, a provider that instructor
speaks, a script. A student (`StudentJudge`) labels whole columns of texts. Both carry `kind`, `name` and `identity`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from annotator.errors import AnnotatorError, BadInput, did_you_mean
from annotator.prompts import Prompt
from annotator.taxonomy import Kind, Taxonomy

_ACCOUNT_HEADERS = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}
STRATEGIES = ("json_schema", "tools", "json_object")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the model is asked to answer; part of every cache key.

    temperature, seed: sent when not None; an endpoint that refuses one is asked without it.
    max_output_tokens: of the first try; an answer that was cut short is tried again with four times as many.
    logprobs: ask for those of the answer's tokens, for a confidence; an endpoint that refuses them gives none.
    """

    temperature: float | None = 0.0
    max_output_tokens: int = 1024
    seed: int | None = None
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast and how patiently an endpoint is asked; never part of a cache key.

    concurrency: most requests in flight; fewer are used while the endpoint pushes back.
    rpm, tpm: requests and tokens a minute; None = learnt from the endpoint's x-ratelimit headers, if it sends them.
    timeout_s: of one request. attempts: tries of one request before connection, timeout and 5xx faults fail the row.
    reasks: further tries when an answer is invalid, each built from the original prompt plus one short complaint; with
    one, a record goes out twice at most.
    first_wait_s, longest_wait_s: of the jittered exponential back-off; a longer Retry-After is honoured all the same.
    patience_s: how long one row may wait out rate limits (429) in all. deadline_s: of the whole run.
    """

    concurrency: int = 64
    rpm: float | None = None
    tpm: float | None = None
    timeout_s: float = 120.0
    attempts: int = 6
    reasks: int = 1
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    patience_s: float = 3600.0
    deadline_s: float | None = None


@dataclass(slots=True)
class Usage:
    """What was sent and spent, as the server counted it: `input_tokens` includes `cached_input_tokens`."""

    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0

    def add(self, other: Usage) -> None:
        """Add the counts of `other` to these."""
        self.requests += other.requests
        self.input_tokens += other.input_tokens
        self.cached_input_tokens += other.cached_input_tokens
        self.output_tokens += other.output_tokens


@dataclass(frozen=True, slots=True)
class Request:
    """One record to be labelled: `user` is the message that holds it, fenced (`Prompt.user`)."""

    record_id: str
    user: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A valid label and what it took.

    label: field -> value, exactly the fields of `schema.label_model`. model: the model that the server says it served.
    strategy: how the form was enforced. usage: of all tries. confidence: a probability, where the judge gives one.
    """

    label: dict[str, Any]
    model: str
    strategy: str
    usage: Usage
    finish_reason: str = "stop"
    confidence: float | None = None


class Unanswered(AnnotatorError):
    """One record got no valid label; the run goes on.

    reason: a stable code (see `faults.REASONS`). detail: the server's or the validator's words, without keys.
    """

    def __init__(self, reason: str, detail: str, *, http_status: int | None = None, usage: Usage | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.http_status, self.usage = reason, detail, http_status, usage or Usage()


class Judge(Protocol):
    """Something that can be asked for a label.

    kind: of the records it labels. name: its spec without secrets. model: what is asked for, the key to its price.
    prompt: the texts it is asked with. taxonomy: the vocabulary of its answers.
    fixed_tokens: about the input tokens of a request besides the record's message.
    pace: its limits. sampling: how long its answers may get, among others.
    identity: everything besides the user message that can change an answer, as JSON values.
    """

    kind: Kind
    name: str
    model: str
    prompt: Prompt
    taxonomy: Taxonomy
    fixed_tokens: int
    pace: Pace
    sampling: Sampling
    identity: dict[str, Any]

    async def ask(self, request: Request) -> Reply:
        """A valid label for one record.

        Raises:
            Unanswered: this record cannot be labelled.
            ServiceFailure: no record can.
        """
        ...

    async def close(self) -> None:
        """Release connections; the judge can be asked again afterwards (it reconnects)."""
        ...


@dataclass(frozen=True, slots=True)
class StudentJudge:
    """A distilled classifier behind the same face: it labels columns of texts, offline and without a prompt.

    student: has `predict(texts, kind) -> DataFrame` with the label columns, `confidence` and `evidence`.
    below: the confidence, in (0, 1], under which it abstains: the record gets no label; None = it labels everything.
    """

    kind: Kind
    name: str
    taxonomy: Taxonomy
    identity: dict[str, Any]
    student: Any = field(repr=False)
    below: float | None = None


def open_judge(
    spec: str | Sequence[str],
    *,
    kind: Kind,
    taxonomy: Taxonomy,
    prompt: Prompt | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    headers: Mapping[str, str] = {},
    pace: Pace | None = None,
    sampling: Sampling | None = None,
    strategy: str = "auto",
    endpoint_name: str | None = None,
    votes: int = 1,
    below: float | None = None,
    cache_dir: str | Path | None = None,
) -> Judge | StudentJudge:
    """Open the judge that `spec` names; nothing is sent yet.

    Args:
        spec: "openai:MODEL", "instructor:PROVIDER/MODEL", "student:PATH", "embedded", "embedded:accurate", or
            "cascade:STUDENT,LLM" of two of these: the student labels what it is sure of, the LLM the rest. Several
            LLMs vote (see `PanelJudge`).
        prompt: required by LLMs, ignored by students.
        base_url: of any OpenAI-compatible endpoint; None = OpenAI itself.
        api_key: sent to the endpoint, and never written anywhere.
        headers: sent with each request of "openai:", such as those of `account_headers`.
        strategy: how the answer's form is enforced: json_schema, tools, json_object, or auto (the first that works).
        endpoint_name: part of the cache key; tells apart two servers that serve different weights under one name.
        votes: how often an LLM is asked for each record, with as many seeds; more than one takes a temperature above 0.
        below: the student's confidence under which a student abstains (default: never), and a cascade asks its LLM
            (default .6; see `CascadeJudge`).
        cache_dir: where single votes are kept, and in which manner an endpoint wants to be asked; None = nowhere.

    Raises:
        BadInput: an unknown spec, a missing key, or a student that cannot be read.
    """
    if strategy != "auto" and strategy not in STRATEGIES:
        raise BadInput(f"{strategy!r} is not a strategy", where="--strategy", remedy=did_you_mean(strategy, STRATEGIES))
    if below is not None and not 0 < below <= 1:
        raise BadInput(f"{below:g} is no such threshold", where="--below", remedy="Give a confidence in (0, 1].")
    specs = (spec,) if isinstance(spec, str) else tuple(spec)
    asking: dict[str, Any] = {
        "kind": kind, "taxonomy": taxonomy, "prompt": prompt, "base_url": base_url, "api_key": api_key,
        "headers": headers, "pace": pace or Pace(), "sampling": sampling or Sampling(), "strategy": strategy,
        "endpoint_name": endpoint_name, "cache_dir": cache_dir,
    }  # fmt: skip
    if len(specs) == 1 and specs[0].startswith("cascade:"):
        from annotator.judges.cascade import DEFAULT_BELOW, CascadeJudge, specs_of

        student_spec, asked_spec = specs_of(specs[0])
        student = open_judge(student_spec, kind=kind, taxonomy=taxonomy)
        asked = open_judge(asked_spec, votes=votes, **asking)
        return CascadeJudge(student, asked, DEFAULT_BELOW if below is None else below)  # type: ignore[arg-type]
    if len(specs) == 1 and specs[0].partition(":")[0] in ("embedded", "student"):
        from annotator.judges.columns import open_student

        if votes > 1:
            raise BadInput("a student always says the same", where="--votes", remedy="Ask an LLM for several votes.")
        return open_student(specs[0], kind=kind, taxonomy=taxonomy, below=below)
    if len(set(specs)) < len(specs):
        raise BadInput("the same judge twice", where="--judge", remedy="Ask it several times with --votes.")
    judges = [_open_asked(each, together=len(specs) > 1, **asking) for each in specs]
    if below is not None:
        remedy = "Write --judge student:PATH, or cascade:student:PATH,openai:MODEL."
        raise BadInput("only a student has a threshold", where="--below", remedy=remedy)
    if len(judges) == votes == 1:
        return judges[0]
    from annotator.judges.panel import PanelJudge

    return PanelJudge(judges, samples=votes, cache_dir=cache_dir)


def account_headers(environment: Mapping[str, str]) -> dict[str, str]:
    """The headers that OpenAI's own client sends for its environment variables of organisation and project."""
    return {header: environment[name] for name, header in _ACCOUNT_HEADERS.items() if environment.get(name)}


def _open_asked(spec: str, *, together: bool, kind: Kind, **asking: Any) -> Any:
    """A judge that is asked record by record; `together`: it is to vote with others."""
    scheme, _, rest = spec.partition(":")
    if scheme not in ("openai", "instructor") or not rest:
        if together:
            raise BadInput(f"{spec!r} cannot vote with others", where="--judge", remedy="LLMs only can.")
        remedy = (
            "Use openai:MODEL, instructor:PROVIDER/MODEL, student:PATH, embedded, embedded:accurate or "
            "cascade:STUDENT,LLM."
        )
        raise BadInput(f"{spec!r} names no judge", where="--judge", remedy=remedy)
    if asking["prompt"] is None:
        raise BadInput("this judge needs a prompt", where=spec, remedy="Load one with load_prompt.")
    if scheme == "openai":
        from annotator.judges.chat import ChatJudge

        return ChatJudge(rest, **asking)
    from annotator.judges.instructor_judge import InstructorJudge

    return InstructorJudge(rest, **asking)
