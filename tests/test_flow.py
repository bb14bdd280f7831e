"""The gate: concurrency that follows push-back, buckets that keep to a rate, one pause for all."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

import pytest

from annotator.judges import Pace
from annotator.judges.faults import REASONS, redact, retry_after, status_fault
from annotator.judges.flow import Bucket, Gate


class Clock:
    """A clock that stands still until it is set."""

    now = 100.0

    def __call__(self):
        return self.now


async def fill(gate, out):
    """Send as long as the gate lets through."""
    while gate.in_flight < int(gate.limit):
        out.append(await gate.enter(10))


async def round_trip(gate, clock, out, *, overloaded=False):
    """All requests in flight are answered after 50 ms, and each makes room for others at once."""
    clock.now += 0.05
    for _ in range(len(out)):
        gate.leave(out.pop(0), overloaded=overloaded)
        await fill(gate, out)
    return int(gate.limit)


def test_concurrency_doubles_each_round_trip_and_is_halved_once_by_a_burst_of_pushback():
    """Slow start, one cut per episode, then one more place a round trip."""
    clock = Clock()
    gate = Gate(Pace(concurrency=64), clock=clock)

    async def run():
        out = []
        await fill(gate, out)
        grown = [await round_trip(gate, clock, out) for _ in range(3)]
        cut = await round_trip(gate, clock, out, overloaded=True)
        return grown, cut, await round_trip(gate, clock, out), await round_trip(gate, clock, out)

    grown, cut, first, second = asyncio.run(run())
    assert grown == [8, 16, 32]
    assert cut == 16
    assert cut <= first <= second == cut + 1


def test_concurrency_never_passes_what_was_allowed():
    """Whatever the endpoint puts up with."""
    clock = Clock()
    gate = Gate(Pace(concurrency=10), clock=clock)

    async def run():
        out = []
        await fill(gate, out)
        return [await round_trip(gate, clock, out) for _ in range(6)]

    assert max(asyncio.run(run())) == 10


def test_waiting_requests_go_in_order_and_a_cancelled_one_leaves_no_hole():
    """A place that is given to a task that was cancelled meanwhile goes to the next."""

    async def run():
        gate = Gate(Pace(concurrency=1))
        await gate.enter(1)
        order = []

        async def wait(name):
            await gate.enter(1)
            order.append(name)

        tasks = [asyncio.create_task(wait(name)) for name in "abc"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        for _ in range(3):
            gate.leave(0.0, overloaded=False)
            await asyncio.sleep(0.01)
        return order, gate.in_flight

    assert asyncio.run(run()) == (["a", "c"], 0)


def test_a_bucket_spaces_requests_evenly_and_takes_refunds():
    """60 a minute is one a second, less a margin of 1.5 %."""
    clock = Clock()
    bucket = Bucket(60, clock)
    clock.now += 0.0
    waits = [bucket.reserve(1) for _ in range(4)]
    step = 60 / (60 * 0.985)
    assert [round(wait, 6) for wait in waits] == [round(k * step, 6) for k in range(4)]
    bucket.refund(2)
    assert bucket.reserve(1) == pytest.approx(2 * step)
    assert Bucket(None, clock).reserve(10**9) == 0.0


def test_nobody_sends_inside_a_retry_after():
    """The pause holds for all, also for those that have a place already."""

    async def run():
        gate = Gate(Pace(concurrency=8))
        gate.pause(0.15)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.gather(*(gate.enter(1) for _ in range(4)))
        return loop.time() - begun

    assert asyncio.run(run()) >= 0.15


def test_retry_after_is_read_as_seconds_milliseconds_and_date():
    """Nonsense is no wish at all."""
    assert retry_after({"retry-after": "2"}) == 2.0
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after({"retry-after": formatdate(1_000_300, usegmt=True)}, now=1_000_000) == 300.0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("status", "body", "action", "reason"),
    [
        (429, b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}', "slow", "rate_limited"),
        (429, b'{"error": {"message": "No more.", "code": "insufficient_quota"}}', "run", "quota"),
        (401, b'{"error": {"message": "bad key"}}', "run", "unauthorized"),
        (403, b'{"detail": "no"}', "row", "forbidden"),
        (404, b"<html>Not Found</html>", "row", "not_found"),
        (400, b'{"error": {"message": "maximum context length is 8192"}}', "row", "too_long"),
        (413, b"", "row", "too_long"),
        (400, b'{"error": {"code": "content_filter", "message": "blocked"}}', "row", "content_filter"),
        (422, b'{"detail": [{"msg": "field required"}]}', "row", "rejected"),
        (408, b"", "retry", "timeout"),
        (503, b"<html>Bad gateway</html>", "retry", "server_error"),
    ],
)
def test_a_status_says_whether_to_retry_to_slow_down_or_to_give_up(status, body, action, reason):
    """Each with a reason code that is documented."""
    fault = status_fault(status, {}, body)
    assert (fault.action, fault.reason) == (action, reason)
    assert reason in REASONS
    assert "<" not in fault.detail


def test_keys_are_taken_out_of_messages():
    """One's own key wherever it stands, and anything that looks like one."""
    assert redact("Incorrect API key provided: sk-abcdef123456.", None) == "Incorrect API key provided: [key]"
    assert redact("token 0123456789 is wrong", "0123456789") == "token [key] is wrong"
