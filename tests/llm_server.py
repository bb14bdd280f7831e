"""A real HTTP server that speaks OpenAI chat completions and batches, and misbehaves on purpose.

In a test, in a thread of its own, or as a process that outlives a killed client:

    with LLMServer(Faults(seed=1, rates={"http_503": 0.1}, latency_ms=50)) as server:
        client = AsyncOpenAI(base_url=server.base_url, api_key="any")
        ...
        assert not server.stats().paid_twice

    with LLMServer.spawn(Faults(latency_ms=50)) as server: ...

By hand: `python tests/llm_server.py --port 0 --latency-ms 50 --rate http_503=0.1` prints one JSON line with the port.
`GET /__stats` gives the books (see llm_book.Stats), `POST /__config` takes new faults (see llm_faults.Faults; fields
left out keep their value), `GET /__requests?last=N` gives the last request bodies. The books live as long as the
server.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self

import orjson
from aiohttp import web
from llm_application import Application
from llm_book import Stats
from llm_completions import Answer
from llm_faults import Faults


async def serve(app: Application, port: int, ready: Callable[[int], None], stop: asyncio.Event) -> None:
    """Serves on the loopback interface until `stop`; `ready` is told the port."""
    loop = asyncio.get_running_loop()

    def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=2**30)

    server = web.Server(app.handle, request_factory=request, handler_cancellation=True, access_log=None)
    listener = await loop.create_server(server, "127.0.0.1", port, backlog=4096)
    ready(listener.sockets[0].getsockname()[1])
    await stop.wait()
    listener.close()
    await server.shutdown(0.1)


class LLMServer:
    """The server in a thread of this process, from `with` to its end. `spawn` gives it a process of its own instead.

    `answer` may replace the drawn answers: it gets the request's body and returns a dict (sent as JSON) or a text.
    """

    def __init__(self, faults: Faults | None = None, *, answer: Answer | None = None, port: int = 0) -> None:
        self.faults = faults or Faults()
        self.port = port
        self._answer = answer

    @classmethod
    def spawn(cls, faults: Faults | None = None, *, port: int = 0) -> SpawnedServer:
        """The server in a process, which ends with the `with` block or with this process, not with its clients."""
        return SpawnedServer(faults, port=port)

    @property
    def base_url(self) -> str:
        """For OpenAI clients: http://127.0.0.1:PORT/v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> Stats:
        """A copy of the books, as of now."""
        return Stats.from_json(self._call("GET", "/__stats"))

    def requests(self, last: int = 20) -> list[dict[str, Any]]:
        """The bodies of the last chat requests, oldest first; at most 200 are kept."""
        return self._call("GET", f"/__requests?last={last}")

    def configure(self, faults: Faults | None = None, **changes: Any) -> None:
        """Behave otherwise from now on: as `faults` say, or as now but for the fields given. The books go on."""
        self.faults = dataclasses.replace(faults or self.faults, **changes)
        self._call("POST", "/__config", dataclasses.asdict(self.faults))

    def _call(self, method: str, path: str, value: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, None if value is None else orjson.dumps(value))
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise RuntimeError(f"{method} {path}: {response.status} {body.decode()}")
            return orjson.loads(body)
        finally:
            connection.close()

    def __enter__(self) -> Self:
        started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="llm-server", daemon=True)
        self._thread.start()
        self.port = started.result(timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=30)

    def _run(self, started: Future[int]) -> None:
        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            await serve(Application(self.faults, self._answer), self.port, started.set_result, self._stop)

        try:
            asyncio.run(main())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)


class SpawnedServer(LLMServer):
    """The server in a process of its own; see `LLMServer.spawn`."""

    def __enter__(self) -> Self:
        config = json.dumps(dataclasses.asdict(self.faults))
        command = [sys.executable, __file__, "--port", str(self.port), "--config", config, "--until-stdin-closes"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server did not start; it ended with {self._process.wait()}")
        self.port = json.loads(line)["port"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """Of the server's process."""
        return self._process.pid


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--config", default="{}", help="JSON of llm_faults.Faults; the options below go before it")
    parser.add_argument("--rate", action="append", default=[], metavar="FAULT=P", help="may be repeated")
    parser.add_argument("--marker", action="append", default=[], metavar="TEXT=FAULT", help="may be repeated")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the parent process does")
    numbers = "latency_ms latency_sigma retry_after_s drip_s late_s rpm tpm burst_s batch_failed batch_expired"
    for name in numbers.split():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float)
    for name in ("seed", "first_attempts", "batch_polls"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    for name in ("rejects", "ignores"):
        parser.add_argument(f"--{name}", nargs="+", metavar="FEATURE")
    parser.add_argument("--api-key")
    return parser.parse_args(argv)


def _faults(arguments: argparse.Namespace) -> Faults:
    names = {each.name for each in dataclasses.fields(Faults)}
    given = {name: value for name, value in vars(arguments).items() if name in names and value is not None}
    faults = dataclasses.replace(Faults(**json.loads(arguments.config)), **given)
    rates = dict(one.rsplit("=", 1) for one in arguments.rate)
    markers = dict(one.rsplit("=", 1) for one in arguments.marker)
    rates = {**faults.rates, **{name: float(rate) for name, rate in rates.items()}}
    return dataclasses.replace(faults, rates=rates, markers={**faults.markers, **markers})


async def _main(arguments: argparse.Namespace) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    if arguments.until_stdin_closes:
        loop.add_reader(0, lambda: os.read(0, 1) or (loop.remove_reader(0), stop.set()))
    app = Application(_faults(arguments))
    gc.freeze()  # a benchmark server: what was loaded so far need not be searched for garbage again
    await serve(app, arguments.port, lambda port: print(json.dumps({"port": port}), flush=True), stop)


if __name__ == "__main__":
    asyncio.run(_main(_arguments(None)))
