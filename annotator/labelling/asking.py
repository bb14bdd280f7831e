"""The engine behind `label` for judges that are asked record by record.

One event loop sends requests; reading, the answer cache and the writing of labels each have a thread of their own.
A record counts as done only after its answer is committed to the cache. Answers that come while the disk is busy with
a commit make up the next one: a lone answer is written at once, and a flood costs no more commits than the disk can do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from annotator.budget import Budget, Price
from annotator.errors import ServiceFailure, StoppedEarly
from annotator.judges import Judge, Reply, Request, Unanswered, Usage
from annotator.judges.cache import Answer, AnswerCache
from annotator.judges.faults import with_remedy
from annotator.labelling.chunking import record_outcome
from annotator.labelling.rows import Failure, Labelled, Window
from annotator.labelling.spending import Spending
from annotator.labelling.tally import Tally

_OPEN_WINDOWS = 16
_PROGRESS_EVERY_S = 0.2
_REVISIT_EVERY_S = 0.2
_CLAIMED_AT_ONCE = 64
# So many records in a row without one answer in between: the endpoint is down, not the records odd.
_FAILURES_IN_A_ROW = 16
_ENDPOINT_REASONS = {"connection", "timeout", "server_error", "bad_response", "rate_limited"}
_FIRST_REASONS = _ENDPOINT_REASONS | {"rejected", "forbidden", "not_found"}


@dataclass(frozen=True, slots=True)
class _Job:
    """A record to ask for: its place in a window, its cache key, and the message that holds it."""

    window: Window
    place: int
    key: str
    user: str


class Asking:
    """One run of a judge over windows of records.

    Args:
        finish: called (in a thread) with each window whose outcomes are all known.
        progress: called at most five times a second with the number of requests in flight.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        cache: AnswerCache | None,
        budget: Budget,
        price: Price | None,
        tally: Tally,
        finish: Callable[[Window], None],
        progress: Callable[[int], None],
    ) -> None:
        self._judge, self._cache, self._tally, self._finish, self._progress = judge, cache, tally, finish, progress
        self._spending = Spending(judge, budget, price, tally.usage)
        self._followers: dict[str, list[tuple[Window, int]]] = {}
        self._elsewhere: dict[str, tuple[Window, int]] = {}  # asked for by another process
        self._answered: list[tuple[_Job, Reply]] = []
        self._given_up: list[str] = []
        self._replies = self._in_flight = self._failures_in_a_row = 0

    @property
    def _stopped(self) -> str | None:
        return self._spending.stopped_by

    def run(self, windows: Iterator[Window]) -> None:
        """Ask for everything that the cache does not hold.

        Raises:
            StoppedEarly: a budget or the deadline. ServiceFailure: the judge cannot be used. What `windows` raises.
        """
        _run_to_its_end(self._run(windows))
        if self._stopped is not None:
            kept = " The" if self._cache is None else " Answers so far are kept; the"
            done = f"{self._tally.records:,} records"
            raise StoppedEarly(f"Stopped by {self._stopped} after {done}.{kept} same command goes on from there.")
        unusable = not self._tally.labelled and set(self._tally.failures) <= _FIRST_REASONS and self._spending.asked
        if unusable and self._tally.failed:
            raise self._service_failure(self._last_failure)

    async def _run(self, windows: Iterator[Window]) -> None:
        self._queue: asyncio.Queue[_Job | None] = asyncio.Queue(maxsize=2 * self._judge.pace.concurrency)
        self._open = asyncio.Semaphore(_OPEN_WINDOWS)
        self._news = asyncio.Event()
        self._finishing: set[asyncio.Future[None]] = set()
        self._threads = {name: ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("read", "store", "write")}
        # Twice as many workers as places at the gate: one that waits out a back-off holds nobody up.
        workers = [asyncio.create_task(self._work()) for _ in range(2 * self._judge.pace.concurrency)]
        tasks = [asyncio.create_task(self._produce(windows, len(workers))), *workers]
        helpers = [asyncio.create_task(each()) for each in (self._commit_in_groups, self._report, self._revisit)]
        try:
            await self._wait(tasks, helpers)
        finally:
            for task in (*tasks, *helpers):
                task.cancel()
            await asyncio.gather(*tasks, *helpers, return_exceptions=True)
            try:
                await self._commit()  # what was answered is paid for, however the run ends
                await asyncio.gather(*self._finishing)
            finally:
                await self._judge.close()
                for pool in self._threads.values():
                    pool.shutdown(wait=True)
                self._progress(0)

    async def _wait(self, tasks: list[asyncio.Task[None]], helpers: list[asyncio.Task[None]]) -> None:
        pending = {*tasks, *helpers}
        deadline = self._judge.pace.deadline_s
        ends = None if deadline is None else time.monotonic() + deadline
        while pending - {*helpers}:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if ends is not None and time.monotonic() >= ends:
                self._spending.stop(f"the deadline of {deadline:g} s")
                return

    async def _in_thread(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads[name], function, *arguments)

    async def _produce(self, windows: Iterator[Window], workers: int) -> None:
        while self._stopped is None:
            await self._open.acquire()
            window = await self._in_thread("read", next, windows, None)
            if window is None:
                break
            for place, outcome in enumerate(window.outcomes):
                if outcome is not None:  # by the student of a cascade, while the window was read
                    self._settle(window, place, outcome)
            await self._look_up(window)
            if not window.ids:
                self._write(window)
            unknown = [(window, place) for place, outcome in enumerate(window.outcomes) if outcome is None]
            for start in range(0, len(unknown), _CLAIMED_AT_ONCE):
                await self._line_up(unknown[start : start + _CLAIMED_AT_ONCE])
        while self._elsewhere and self._stopped is None:
            await asyncio.sleep(_REVISIT_EVERY_S)
        for _ in range(workers):
            await self._queue.put(None)

    async def _look_up(self, window: Window) -> None:
        if self._cache is None:
            return
        found = await self._in_thread("store", self._cache.get_many, window.keys)
        for place, answer in enumerate(found):
            if answer is not None:
                self._settle(window, place, Labelled(answer, cached=True))

    async def _line_up(self, records: Sequence[tuple[Window, int]]) -> None:
        fresh = {}
        for window, place in records:
            key = window.keys[place]
            if key in self._followers:  # the very same text is being asked for already
                self._followers[key].append((window, place))
            else:
                self._followers[key] = []
                fresh[key] = window, place
        await self._claim(fresh)

    async def _claim(self, records: dict[str, tuple[Window, int]]) -> None:
        """Line up records that no other process asks for; settle those answered meanwhile; put the others off."""
        theirs, answers = await self._in_thread("store", self._claim_in_store, list(records))
        for (key, (window, place)), answer in zip(records.items(), answers, strict=True):
            if answer is not None:
                self._settle_with_followers(key, window, place, Labelled(answer, cached=True))
                self._elsewhere.pop(key, None)
            elif key in theirs:
                self._elsewhere[key] = window, place
            else:
                await self._queue.put(_Job(window, place, key, self._judge.prompt.user(window.texts[place])))
                self._elsewhere.pop(key, None)

    def _claim_in_store(self, keys: list[str]) -> tuple[set[str], list[Answer | None]]:
        if self._cache is None:
            return set(), [None] * len(keys)
        theirs = self._cache.claims.take(keys)
        # Looked up after the claim: whoever had it before may have answered since this process looked first.
        answers = self._cache.get_many(keys)
        self._cache.claims.release(
            [key for key, answer in zip(keys, answers, strict=True) if answer is not None and key not in theirs]
        )
        return theirs, answers

    async def _revisit(self) -> None:
        """Look again after records that another process asks for: answered by now, or given up, or its owner dead."""
        while True:
            await asyncio.sleep(_REVISIT_EVERY_S)
            records = list(self._elsewhere.items())
            for start in range(0, len(records), _CLAIMED_AT_ONCE):
                await self._claim(dict(records[start : start + _CLAIMED_AT_ONCE]))

    async def _work(self) -> None:
        while (job := await self._queue.get()) is not None:
            reserved = await self._spending.reserve(job.user)
            if reserved is None:
                continue
            used, answered = Usage(), False
            self._in_flight += 1
            try:
                reply = await self._judge.ask(Request(job.window.ids[job.place], job.user))
            except Unanswered as failure:
                used = failure.usage
                self._tally.usage.add(used)
                self._fail(job, failure)
            else:
                used, answered = reply.usage, True
                self._tally.usage.add(used)
                self._failures_in_a_row = 0
                self._replies += 1
                self._answered.append((job, reply))
                self._news.set()
            finally:
                self._in_flight -= 1
                self._spending.settle(job.user, reserved, used, answered=answered)

    def _fail(self, job: _Job, failure: Unanswered) -> None:
        usage = failure.usage
        self._last_failure = failure
        answered = self._replies or self._tally.cached  # then the endpoint is sound, and the record is what it refuses
        counted = _ENDPOINT_REASONS if answered else _FIRST_REASONS
        self._failures_in_a_row = self._failures_in_a_row + 1 if failure.reason in counted else 0
        if self._failures_in_a_row >= _FAILURES_IN_A_ROW:
            raise self._service_failure(failure)
        spent = (usage.requests, usage.input_tokens, usage.cached_input_tokens, usage.output_tokens)
        outcome = Failure(failure.reason, failure.detail, failure.http_status, spent)
        self._settle_with_followers(job.key, job.window, job.place, outcome)
        self._given_up.append(job.key)
        self._news.set()

    def _service_failure(self, failure: Unanswered) -> ServiceFailure:
        status = f" ({failure.http_status})" if failure.http_status else ""
        said = f"{self._judge.name} cannot be used: {failure.reason}{status}: {failure.detail}"
        return ServiceFailure(with_remedy(said, failure.reason))

    async def _commit_in_groups(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._commit()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_EVERY_S)
            self._progress(self._in_flight)

    async def _commit(self) -> None:
        group, self._answered = self._answered, []
        given_up, self._given_up = self._given_up, []
        if not group and not given_up:
            return
        answers = [(job, Answer.of(reply)) for job, reply in group]
        if self._cache is not None:
            rows = [(job.key, answer) for job, answer in answers]
            try:
                await asyncio.shield(self._in_thread("store", self._store, rows, given_up))
            except asyncio.CancelledError:  # the write goes on in its thread; the last commit waits behind it
                self._answered = group + self._answered
                raise
        for job, answer in answers:
            self._settle_with_followers(job.key, job.window, job.place, Labelled(answer, cached=False))

    def _store(self, rows: list[tuple[str, Answer]], given_up: list[str]) -> None:
        assert self._cache is not None
        if rows:
            self._cache.put_many(rows)
        self._cache.claims.release([*(key for key, _ in rows), *given_up])

    def _settle_with_followers(self, key: str, window: Window, place: int, outcome: Labelled | Failure) -> None:
        self._settle(window, place, outcome)
        shared = replace(outcome, cached=True) if isinstance(outcome, Labelled) else outcome
        for following, at in self._followers.pop(key):
            self._settle(following, at, shared)

    def _settle(self, window: Window, place: int, outcome: Labelled | Failure) -> None:
        window.outcomes[place] = outcome
        window.missing -= 1
        settled = record_outcome(window, place, self._judge.taxonomy)
        if settled is not None:
            self._tally.count(settled)
        if window.missing == 0:
            self._write(window)

    def _write(self, window: Window) -> None:
        future = asyncio.ensure_future(self._in_thread("write", self._finish, window))
        self._finishing.add(future)
        future.add_done_callback(self._written)

    def _written(self, future: asyncio.Future[None]) -> None:
        self._open.release()
        if future.cancelled() or future.exception() is not None:
            self._spending.stop("a failure to write")  # the failure itself is raised when all is gathered
        else:
            self._finishing.discard(future)


def _run_to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run`, also where an event loop runs already, as in a notebook: then in a thread with its own loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def noted() -> None:
        task = asyncio.current_task()
        assert task is not None
        started.append((asyncio.get_running_loop(), task))
        await work

    with ThreadPoolExecutor(1, thread_name_prefix="asking") as thread:
        done = thread.submit(asyncio.run, noted())
        try:
            done.result()
        except KeyboardInterrupt:  # it comes to the waiting thread; what was answered is still to be committed
            for loop, task in started:
                with suppress(RuntimeError):  # it has ended just now
                    loop.call_soon_threadsafe(task.cancel)
            raise
