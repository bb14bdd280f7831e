"""Several votes on each record: samples of one judge (self-consistency), several judges, or both."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from annotator.errors import BadInput
from annotator.fingerprint import fingerprint
from annotator.judges import Reply, Request, Unanswered, Usage
from annotator.judges.cache import Answer, AnswerCache
from annotator.judges.merging import merge_votes

# What a judge may say of one record: then it abstains. A fault of the endpoint leaves the vote open instead.
_ABSTENTIONS = {
    "refusal", "content_filter", "truncated_answer", "empty_answer", "invalid_json", "invalid_label", "too_long",
}  # fmt: skip
_MERGE_RULE = 1  # part of every merged label's identity


class PanelJudge:
    """Judges that vote, behind the face of one. See `Judge` for the attributes that all judges have.

    Each vote is an answer of its own in the cache, under the identity that it has outside the panel: one more judge, or
    one more sample, costs its own requests only. How votes are merged says `merge_votes`; the reply's confidence is the
    share of votes behind the least supported axis. A record needs valid votes of more than half of the panel.

    Args:
        judges: of one kind, taxonomy and prompt.
        samples: of each judge; from 2 on with seeds 1, 2, ..., which takes a temperature above 0.
        cache_dir: where votes are kept; None = nowhere, and an interrupted record is paid again.

    votes: how many requests a record takes. fixed_tokens: of one of them.

    Raises:
        BadInput: samples of a temperature of 0 would all be the same.
    """

    def __init__(self, judges: Sequence[Any], *, samples: int, cache_dir: str | Path | None) -> None:
        first = judges[0]
        if samples > 1 and first.sampling.temperature == 0:
            remedy = "Give --temperature 0.7, say."
            raise BadInput("votes at temperature 0 would all be the same", where="--votes", remedy=remedy)
        self.kind, self.taxonomy, self.prompt = first.kind, first.taxonomy, first.prompt
        self.pace, self.sampling, self.fixed_tokens = first.pace, first.sampling, first.fixed_tokens
        self.model = "+".join(dict.fromkeys(judge.model for judge in judges))
        self.name = "+".join(judge.name for judge in judges) + (f" x{samples}" if samples > 1 else "")
        seeds = range(1, samples + 1)
        self.voters = [judge.with_seed(seed) if samples > 1 else judge for judge in judges for seed in seeds]
        self.votes = len(self.voters)
        self._identities = [fingerprint(voter.identity) for voter in self.voters]
        self.identity: dict[str, Any] = {"api": "panel", "merge": _MERGE_RULE, "voters": self._identities}
        self._kept = None if cache_dir is None else _Votes(cache_dir)

    async def ask(self, request: Request) -> Reply:
        """See `Judge.ask`. The usage is of votes that were asked for now; those from the cache were paid before."""
        keys = [_key(identity, request.user) for identity in self._identities]
        known = await self._kept.find(keys) if self._kept else [None] * len(keys)
        open_votes = [place for place, answer in enumerate(known) if answer is None]
        outcomes = await asyncio.gather(
            *(self.voters[place].ask(request) for place in open_votes), return_exceptions=True
        )
        usage = Usage()
        for outcome in outcomes:
            if isinstance(outcome, Reply | Unanswered):
                usage.add(outcome.usage)
        paid = {place: Answer.of(reply) for place, reply in zip(open_votes, outcomes) if isinstance(reply, Reply)}
        if self._kept and paid:
            await self._kept.keep([(keys[place], answer) for place, answer in paid.items()])
        valid = [answer for place in range(self.votes) if (answer := known[place] or paid.get(place)) is not None]
        self._refuse(outcomes, len(valid), usage)
        return _merged(valid, usage)

    def _refuse(self, outcomes: Sequence[Any], valid: int, usage: Usage) -> None:
        """Raise what keeps the record from a label: a fault of an endpoint, or too few valid votes."""
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for failure in failures:
            if not isinstance(failure, Unanswered):
                raise failure
        failures.sort(key=lambda failure: failure.reason in _ABSTENTIONS)  # the first one stays the first
        if failures and (failures[0].reason not in _ABSTENTIONS or 2 * valid <= self.votes):
            first = failures[0]
            raise Unanswered(first.reason, first.detail, http_status=first.http_status, usage=usage)

    async def close(self) -> None:
        """See `Judge.close`."""
        for voter in self.voters:
            await voter.close()
        if self._kept:
            self._kept.close()


def _key(identity: str, user: str) -> str:
    """The cache key that the request has when its judge is asked alone (see `labelling.rows.keys_of`)."""
    return hashlib.sha256(f"{identity}{user}".encode()).hexdigest()


def _merged(answers: Sequence[Answer], usage: Usage) -> Reply:
    label, share = merge_votes([answer.label for answer in answers])
    return Reply(
        label=label,
        model="+".join(sorted({answer.model for answer in answers})),
        strategy="+".join(sorted({answer.strategy for answer in answers})),
        usage=usage,
        confidence=share,
    )


class _Votes:
    """Single votes in the answer cache, in a thread of their own.

    They are written in groups: those that come while the disk is busy make up the next one.
    """

    def __init__(self, cache_dir: str | Path) -> None:
        self._folder = cache_dir
        self._cache: AnswerCache | None = None
        self._waiting: list[tuple[str, Answer]] = []
        self._lock = asyncio.Lock()
        self._thread: ThreadPoolExecutor | None = None

    async def find(self, keys: Sequence[str]) -> list[Answer | None]:
        """The votes under some keys, None where there is none."""
        return await self._in_thread("get_many", keys)  # type: ignore[no-any-return]

    async def keep(self, votes: Sequence[tuple[str, Answer]]) -> None:
        """Keep some votes; on disk when this returns."""
        self._waiting += votes
        async with self._lock:
            group, self._waiting = self._waiting, []
            if group:
                await self._in_thread("put_many", group)

    async def _in_thread(self, method: str, argument: Any) -> Any:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="votes")

        def call() -> Any:
            if self._cache is None:
                self._cache = AnswerCache(self._folder)
            return getattr(self._cache, method)(argument)

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def close(self) -> None:
        """Close the cache and end the thread; the next call opens both again."""
        thread, self._thread = self._thread, None
        if thread is not None:
            if self._cache is not None:
                thread.submit(self._cache.close).result()
                self._cache = None
            thread.shutdown()
            self._lock = asyncio.Lock()  # a lock belongs to the event loop that first waited for it
