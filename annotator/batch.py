"""The OpenAI Batch API: requests handed in now, and answered within a day at half the price.

The ledger, a folder, is written before anything is submitted and says what was; a batch whose creation it has not seen,
because the process was killed just then, is found again by its metadata. For files alone see `batch_files`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from annotator.batch_files import Collected, Failures, Offline, from_file, request_lines, take_in, to_file
from annotator.errors import BadInput, ServiceFailure
from annotator.fingerprint import fingerprint
from annotator.judges.chat import ChatJudge
from annotator.judges.faults import redact
from annotator.label import label
from annotator.labelling.tally import LabelSummary, Progress
from annotator.tables import write_json, write_probe, write_whole

__all__ = ["Collected", "Entry", "collect", "from_file", "status", "submit", "to_file"]

_MOST_LINES = 50_000
_MOST_BYTES = 200_000_000
_ROWS = 1024
_STORED_AT_ONCE = 1000
_METADATA_KEY = "annotator_requests"
_ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(slots=True)
class Entry:
    """One batch. requests: its file in the ledger; digest: SHA-256 of it, and its name at the provider.

    status: "planned", "uploaded", then as the provider says; collected: its answers are in the cache.
    """

    requests: str
    digest: str
    lines: int
    status: str = "planned"
    input_file_id: str | None = None
    batch_id: str | None = None
    collected: bool = False


def submit(
    inputs: Sequence[str | Path],
    *,
    judge: ChatJudge,
    ledger: str | Path,
    cache_dir: str | Path = "cache",
    columns: Mapping[str, str] = {},
    max_input_tokens: int | None = None,
    chunks: int | None = None,
) -> list[Entry]:
    """Submit everything that neither the cache nor a batch of this ledger answers; all batches of the ledger.

    May be killed anywhere and called again: what is written is submitted, what was submitted is not submitted again.

    Raises:
        BadInput: the ledger belongs to another judge or cannot be written. ServiceFailure: the provider refuses.
    """
    folder = Path(ledger)
    write_probe(folder)
    entries = _load(folder, judge)
    waiting = {line_key for entry in entries if not entry.collected for line_key in _keys(folder / entry.requests)}
    lines = request_lines(inputs, judge, cache_dir, columns, max_input_tokens, chunks, waiting)
    planned = _plan(folder, len(entries), lines)
    entries += planned
    _save(folder, judge, entries)
    with _client(judge) as client:
        ours = {entry.batch_id for entry in entries}
        known = _known_batches(client, ours) if None in ours else {}
        for entry in entries:
            if entry.batch_id is None:
                _submit_one(client, folder, judge, entries, entry, known.get(entry.digest))
    return entries


def status(*, judge: ChatJudge, ledger: str | Path) -> list[Entry]:
    """The batches of a ledger as they stand at the provider now; the ledger is brought up to date."""
    folder = Path(ledger)
    entries = _load(folder, judge)
    with _client(judge) as client:
        for entry in entries:
            if entry.batch_id is not None and entry.status not in _ENDED:
                entry.status = client.batches.retrieve(entry.batch_id).status
    _save(folder, judge, entries)
    return entries


def collect(
    inputs: Sequence[str | Path],
    *,
    out: str | Path,
    judge: ChatJudge,
    ledger: str | Path,
    cache_dir: str | Path = "cache",
    columns: Mapping[str, str] = {},
    max_input_tokens: int | None = None,
    chunks: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Collected, LabelSummary]:
    """Fetch the answers of all ended batches, completed or not, and write the label table; nothing is asked for.

    Records of batches that go on are failed rows with the reason "batch_pending" until a later `collect`.
    """
    folder = Path(ledger)
    entries = status(judge=judge, ledger=folder)
    failures = Failures()
    fetched = []
    with _client(judge) as client:
        for entry in entries:
            if entry.batch_id is not None and entry.status in _ENDED:
                fetched += _fetch(client, folder, entry)
            for key in _keys(folder / entry.requests):
                pending = entry.status not in _ENDED
                reason = "batch_pending" if pending else "batch_expired"
                failures.of[key] = reason, f"the batch is {entry.status}", None
    collected = take_in(fetched, judge, cache_dir, failures)
    for entry in entries:
        entry.collected = entry.collected or entry.status in _ENDED
    _save(folder, judge, entries)
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


def _plan(folder: Path, number: int, lines: Iterator[bytes]) -> list[Entry]:
    """Write the lines into files within the provider's limits."""
    planned = []
    pending = next(lines, None)
    while pending is not None:
        path = folder / f"requests-{number + len(planned):04}.jsonl"
        count, digest = 0, hashlib.sha256()

        def fill(temporary: Path) -> None:
            nonlocal pending, count
            size = 0
            with temporary.open("wb") as opened:
                while pending is not None and count < _MOST_LINES and size + len(pending) <= _MOST_BYTES:
                    opened.write(pending)
                    digest.update(pending)  # noqa: B023  called at once, within this turn of the loop
                    count, size = count + 1, size + len(pending)
                    pending = next(lines, None)

        write_whole(path, fill)
        if not count:
            raise BadInput("one request alone is larger than a batch file may be", where=str(path),
                           remedy="Cut long records with --max-input-tokens.")  # fmt: skip
        planned.append(Entry(path.name, digest.hexdigest(), count))
    return planned


def _keys(path: Path) -> list[str]:
    with path.open("rb") as opened:
        return [orjson.loads(line)["custom_id"] for line in opened]


# ---------------------------------------------------------------- the provider


class _client:
    """The provider's files and batches, with its errors in our words."""

    def __init__(self, judge: ChatJudge) -> None:
        self._judge = judge

    def __enter__(self) -> Any:
        self._open = self._judge.open_files_client()
        return self._open

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import openai

        self._open.close()
        if isinstance(error, openai.OpenAIError):
            message = redact(" ".join(str(error).split()), None)
            raise ServiceFailure(f"{self._judge.name}: the batch service refused: {message}") from None


def _known_batches(client: Any, ours: set[str | None]) -> dict[str, Any]:
    """Batches that the provider has and the ledger lacks, as after a kill, by the digest that was sent with them.

    One in the ledger may have expired with the same requests in it; those have to be submitted again.
    """
    known = {}
    for batch in client.batches.list(limit=100):
        digest = (batch.metadata or {}).get(_METADATA_KEY)
        if digest and batch.id not in ours:
            known[digest] = batch
    return known


def _submit_one(
    client: Any, folder: Path, judge: ChatJudge, entries: list[Entry], entry: Entry, known: Any | None
) -> None:
    # A reply that got lost must not make the client submit once more: the next call looks for the batch first.
    once = client.with_options(max_retries=0)
    if known is None:
        if entry.input_file_id is None:
            with (folder / entry.requests).open("rb") as opened:
                uploaded = once.files.create(file=(entry.requests, opened), purpose="batch")
            entry.input_file_id, entry.status = uploaded.id, "uploaded"
            _save(folder, judge, entries)
        known = once.batches.create(
            input_file_id=entry.input_file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={_METADATA_KEY: entry.digest},
        )
    entry.batch_id, entry.status = known.id, known.status
    _save(folder, judge, entries)


def _fetch(client: Any, folder: Path, entry: Entry) -> list[Path]:
    """Output and error file of a batch; whichever there are, since an expired batch has finished lines too."""
    batch = client.batches.retrieve(entry.batch_id)
    fetched = []
    for name, file_id in (("output", batch.output_file_id), ("errors", batch.error_file_id)):
        if file_id:
            path = folder / f"{entry.requests.removesuffix('.jsonl')}.{name}.jsonl"
            if not path.exists():
                content = client.files.content(file_id)
                write_whole(path, lambda temporary: content.write_to_file(temporary))  # noqa: B023
            fetched.append(path)
    return fetched


# ---------------------------------------------------------------- the ledger


def _load(folder: Path, judge: ChatJudge) -> list[Entry]:
    path = folder / "ledger.json"
    if not path.exists():
        return []
    try:
        raw = orjson.loads(path.read_bytes())
        entries = [Entry(**entry) for entry in raw["batches"]]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BadInput(f"this is no batch ledger ({error})", where=str(path)) from None
    if raw["judge"] != fingerprint(judge.identity):
        remedy = "Give the options it was submitted with, or another --ledger."
        raise BadInput("this ledger belongs to another judge or prompt", where=str(path), remedy=remedy)
    return entries


def _save(folder: Path, judge: ChatJudge, entries: Sequence[Entry]) -> None:
    batches = [dataclasses.asdict(entry) for entry in entries]
    write_json(folder / "ledger.json", {"judge": fingerprint(judge.identity), "name": judge.name, "batches": batches})
