"""Request and result files of the OpenAI Batch API, which vllm run-batch and other runners read and write too.

A line's `custom_id` is the cache key of its request, so answers are joined by it, never by position, and go to the same
cache as those asked for one by one: then `label` has nothing left to ask.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from annotator.errors import BadInput
from annotator.fingerprint import fingerprint
from annotator.judges import Reply, Request, Unanswered
from annotator.judges.answers import InvalidAnswer
from annotator.judges.cache import Answer, AnswerCache
from annotator.judges.chat import ChatJudge
from annotator.judges.faults import redact, status_fault
from annotator.judges.wire import Wire
from annotator.label import label
from annotator.labelling.chunking import asked_window, check_chunks
from annotator.labelling.tally import LabelSummary, Progress
from annotator.readers import SeenIds, find_shards, read_records
from annotator.tables import write_whole

_ROWS = 1024
_STORED_AT_ONCE = 1000
_OWN_TEMPERATURE = re.compile(r"(?:o\d|gpt-5(?!-chat))")  # they refuse every temperature but the default


@dataclass(frozen=True, slots=True)
class Collected:
    """What result files gave. failures: reason -> lines; unknown: lines whose id is not one of ours."""

    answers: int
    failures: Mapping[str, int]
    unknown: int


@dataclass(slots=True)
class Failures:
    """Why lines have no label: cache key -> (reason, detail, http status)."""

    of: dict[str, tuple[str, str, int | None]] = field(default_factory=dict)


def to_file(
    inputs: Sequence[str | Path],
    path: str | Path,
    *,
    judge: ChatJudge,
    cache_dir: str | Path = "cache",
    columns: Mapping[str, str] = {},
    max_input_tokens: int | None = None,
    chunks: int | None = None,
) -> int:
    """Write the requests that the cache does not answer as one JSONL file, whole; how many they are.

    The lines are those of the OpenAI Batch API, which vllm run-batch and others read too.
    """
    count = 0

    def fill(temporary: Path) -> None:
        nonlocal count
        with temporary.open("wb") as opened:
            for line in request_lines(inputs, judge, cache_dir, columns, max_input_tokens, chunks):
                opened.write(line)
                count += 1

    write_whole(Path(path), fill)
    return count


def from_file(
    paths: Sequence[str | Path],
    inputs: Sequence[str | Path],
    *,
    out: str | Path,
    judge: ChatJudge,
    cache_dir: str | Path = "cache",
    columns: Mapping[str, str] = {},
    max_input_tokens: int | None = None,
    chunks: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Collected, LabelSummary]:
    """Read result files (output and error files, in any order) into the cache, and write the label table.

    Records without an answer are failed rows with the line's reason; nothing is sent.

    Raises:
        BadInput: a file that cannot be read, or a line that is no result.
    """
    failures = Failures()
    collected = take_in([Path(path) for path in paths], judge, cache_dir, failures)
    summary = label(
        inputs,
        out=out,
        judge=Offline(judge, failures),
        cache_dir=cache_dir,
        columns=columns,
        max_input_tokens=max_input_tokens,
        chunks=chunks,
        progress=progress,
    )
    return collected, summary


def request_lines(
    inputs: Sequence[str | Path],
    judge: ChatJudge,
    cache_dir: str | Path,
    columns: Mapping[str, str],
    max_input_tokens: int | None,
    chunks: int | None,
    waiting: set[str] | None = None,
) -> Iterator[bytes]:
    """The lines of all requests that neither the cache nor a file holds; `waiting` are the keys in other files."""
    check_chunks(chunks, max_input_tokens, judge)
    identity, wire = fingerprint(judge.identity), batch_wire(judge)
    cache = AnswerCache(cache_dir)
    written = set(waiting or ())
    seen = SeenIds()
    try:
        for shard in find_shards(inputs):
            batches = read_records(shard, kind=judge.kind, columns=columns, batch_rows=_ROWS, seen=seen)
            for index, batch in enumerate(batches):
                window = asked_window(
                    shard,
                    index,
                    batch,
                    identity,
                    message=judge.prompt.user,
                    max_input_tokens=max_input_tokens,
                    chunks=chunks,
                )
                for key, text, answer in zip(window.keys, window.texts, cache.get_many(window.keys), strict=True):
                    if answer is None and key not in written:
                        written.add(key)
                        yield request_line(key, wire.body(judge.prompt.user(text)))
    finally:
        cache.close()


def batch_wire(judge: ChatJudge) -> Wire:
    """How the requests of a batch are written: as the judge would ask online, as far as that is known beforehand.

    What an online run of the same judge has learnt of the endpoint (see `Manner`) holds here too. Without one, OpenAI's
    reasoning models are sent no temperature: online a refusal costs a moment, but here it would cost the whole batch.
    """
    manner = judge.wire.manner
    if _OWN_TEMPERATURE.match(judge.model.rsplit("/", 1)[-1]):
        manner = replace(manner, dropped=manner.dropped | {"temperature"})
    return Wire(manner, model=judge.model, system=judge.prompt.system, form=judge.form, sampling=judge.sampling)


def request_line(key: str, body: bytes) -> bytes:
    """One line of a request file."""
    return b'{"custom_id":"%b","method":"POST","url":"/v1/chat/completions","body":%b}\n' % (key.encode(), body)


def take_in(paths: Sequence[Path], judge: ChatJudge, cache_dir: str | Path, failures: Failures) -> Collected:
    """Put the answers of result files into the cache, and the reasons of the others into `failures`."""
    answers = unknown = 0
    reasons: Counter[str] = Counter()
    group: list[tuple[str, Answer]] = []
    cache = AnswerCache(cache_dir)
    try:
        for path in paths:
            for key, outcome in _results(path, judge):
                if key is None:
                    unknown += 1
                elif isinstance(outcome, Reply):
                    usage = outcome.usage
                    spent = (usage.requests, usage.input_tokens, usage.cached_input_tokens, usage.output_tokens)
                    group.append((key, Answer(outcome.label, outcome.model, outcome.strategy, spent)))
                    answers += 1
                else:
                    failures.of[key] = outcome.reason, outcome.detail, outcome.http_status
                    reasons[outcome.reason] += 1
                if len(group) >= _STORED_AT_ONCE:
                    cache.put_many(group)
                    group = []
        cache.put_many(group)
    finally:
        cache.close()
    return Collected(answers, dict(sorted(reasons.items())), unknown)


def _results(path: Path, judge: ChatJudge) -> Iterator[tuple[str | None, Any]]:
    try:
        with path.open("rb") as opened:
            for number, line in enumerate(opened, 1):
                if line.strip():
                    yield _result(line, f"{path}:{number}", judge)
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror or error})", where=str(path)) from None


def _result(line: bytes, where: str, judge: ChatJudge) -> tuple[str | None, Reply | Unanswered]:
    try:
        parsed = orjson.loads(line)
        key, response, error = parsed["custom_id"], parsed.get("response"), parsed.get("error")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        remedy = "Give the output and error files of a batch."
        raise BadInput("this line is no batch result", where=where, remedy=remedy) from None
    if not isinstance(key, str) or len(key) != 64:
        return None, Unanswered("batch_error", "")
    response = response if isinstance(response, dict) else {}
    status_code, body = response.get("status_code") or 200, response.get("body")
    if error or status_code >= 400 or not isinstance(body, dict):
        return key, _line_failure(error, status_code, body)
    try:
        return key, judge.reply_of(body)
    except Unanswered as failure:
        return key, failure
    except InvalidAnswer as invalid:
        return key, Unanswered(invalid.reason, invalid.complaint, http_status=status_code)


def _line_failure(error: Any, status_code: int, body: Any) -> Unanswered:
    """`error` is {"code", "message"}, or a text or an error object of another runner; a body may hold it instead."""
    code = error.get("code") if isinstance(error, dict) else None
    words = error if error else body
    if code == "batch_expired":
        return Unanswered("batch_expired", str(error.get("message") or "the batch expired"))
    if status_code >= 400:
        fault = status_fault(status_code, {}, orjson.dumps(words))
        reason = fault.reason if fault.action == "row" else "batch_error"
        return Unanswered(reason, redact(fault.detail, None), http_status=status_code)
    return Unanswered("batch_error", redact(str(words), None)[:500])


class Offline:
    """Stands in for a judge when everything that can be had is in the cache: it gives the lines' failures instead."""

    def __init__(self, judge: ChatJudge, failures: Failures) -> None:
        self.kind, self.name, self.model, self.prompt = judge.kind, judge.name, judge.model, judge.prompt
        self.taxonomy, self.pace, self.sampling = judge.taxonomy, judge.pace, judge.sampling
        self.identity, self.fixed_tokens = judge.identity, judge.fixed_tokens
        self._failures = failures
        self._hashed = hashlib.sha256(fingerprint(judge.identity).encode())

    async def ask(self, request: Request) -> Reply:
        """Raises why there is no answer."""
        digest = self._hashed.copy()
        digest.update(request.user.encode())
        unsent = ("batch_missing", "no result holds this record", None)
        reason, detail, http_status = self._failures.of.get(digest.hexdigest(), unsent)
        raise Unanswered(reason, detail, http_status=http_status)

    async def close(self) -> None:
        """Nothing to release."""
