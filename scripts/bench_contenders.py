"""The contenders of bench_label.py: each labels the users' messages of a task and reports seconds, CPU and memory."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import Callable
from typing import Any


def run(name: str, task: dict[str, Any]) -> dict[str, float]:
    """Seconds and CPU seconds from the first request on, and the peak memory of this process in MB."""
    seconds, cpu = CONTENDERS[name](task)
    return {"seconds": seconds, "cpu": cpu, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - cpu


def annotator(task: dict[str, Any]) -> tuple[float, float]:
    """Everything on: validation, cache on disk, retries, adaptive concurrency, progress, label table."""
    import tenacity  # noqa: F401  imported before the clock starts, as for the others

    from annotator.judges import Pace, open_judge
    from annotator.label import label
    from annotator.prompts import load_prompt
    from annotator.schema import label_model
    from annotator.taxonomy import load_taxonomy

    taxonomy = load_taxonomy()
    label_model(taxonomy, "item")  # builds the validator, and imports pydantic for it
    judge = open_judge(
        "openai:test-model",
        kind="item",
        taxonomy=taxonomy,
        prompt=load_prompt("item", taxonomy),
        base_url=task["base_url"],
        pace=Pace(concurrency=task["concurrency"]),
    )
    folder = task["folder"]
    out, cache = f"{folder}/labels.parquet", f"{folder}/cache"
    return _timed(lambda: label([task["items"]], out=out, judge=judge, cache_dir=cache, progress=lambda now: None))


def _messages(task: dict[str, Any], user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": task["system"]}, {"role": "user", "content": user}]


def _form(task: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "item_label", "strict": True, "schema": task["schema"]}}


async def _for_all(task: dict[str, Any], ask: Callable[[str], Any]) -> None:
    """The usual loop: as many workers as may be in flight, each taking the next message."""
    users = iter(task["users"])

    async def work() -> None:
        for user in users:
            await ask(user)

    await asyncio.gather(*(work() for _ in range(task["concurrency"])))


def aiohttp(task: dict[str, Any]) -> tuple[float, float]:
    """The floor in Python: bare aiohttp, json, and validation of the label."""
    import aiohttp

    from annotator.schema import label_model
    from annotator.taxonomy import load_taxonomy

    model = label_model(load_taxonomy(), "item")

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def ask(user: str) -> None:
                body = {"model": "test-model", "messages": _messages(task, user), "response_format": _form(task)}
                content = json.dumps(body | {"temperature": 0}).encode()
                headers = {"content-type": "application/json", "authorization": "Bearer none"}
                url = f"{task['base_url']}/chat/completions"
                async with session.post(url, data=content, headers=headers) as response:
                    answer = json.loads(await response.read())
                model.model_validate_json(answer["choices"][0]["message"]["content"])

            await _for_all(task, ask)

    return _timed(lambda: asyncio.run(main()))


def openai(task: dict[str, Any]) -> tuple[float, float]:
    """A bare `AsyncOpenAI().chat.completions.create` loop, without validation, cache or anything else."""
    from openai import AsyncOpenAI

    async def main() -> None:
        async with AsyncOpenAI(base_url=task["base_url"], api_key="none") as client:

            async def ask(user: str) -> None:
                answer = await client.chat.completions.create(
                    model="test-model", messages=_messages(task, user), response_format=_form(task), temperature=0
                )
                json.loads(answer.choices[0].message.content)

            await _for_all(task, ask)

    return _timed(lambda: asyncio.run(main()))


def instructor(task: dict[str, Any]) -> tuple[float, float]:
    """instructor used plainly, in its JSON-schema mode."""
    import instructor
    from openai import AsyncOpenAI

    from annotator.schema import label_model
    from annotator.taxonomy import load_taxonomy

    model = label_model(load_taxonomy(), "item")

    async def main() -> None:
        client = instructor.from_openai(
            AsyncOpenAI(base_url=task["base_url"], api_key="none"), mode=instructor.Mode.JSON_SCHEMA
        )

        async def ask(user: str) -> None:
            await client.chat.completions.create(
                model="test-model", messages=_messages(task, user), response_model=model, temperature=0
            )

        await _for_all(task, ask)

    return _timed(lambda: asyncio.run(main()))


def distilabel(task: dict[str, Any]) -> tuple[float, float]:
    """distilabel's OpenAILLM with a JSON response format, one batch of as many inputs as may be in flight at a time."""
    from distilabel.models import OpenAILLM

    llm = OpenAILLM(model="test-model", base_url=task["base_url"], api_key="none")
    llm.load()
    inputs = [_messages(task, user) for user in task["users"]]
    size = task["concurrency"]

    def work() -> None:
        for start in range(0, len(inputs), size):
            llm.generate(inputs=inputs[start : start + size], temperature=0, response_format={"type": "json_object"})

    return _timed(work)


def curator(task: dict[str, Any]) -> tuple[float, float]:
    """bespokelabs-curator's LLM over a list of prompts, with its own cache and progress.

    Its token counter wants to download a vocabulary; here it counts four characters a token, which costs it less.
    """
    import os

    import tiktoken

    class Counter:
        def encode(self, text: str, **_: Any) -> range:
            return range(len(text) // 4)

    tiktoken.get_encoding = tiktoken.encoding_for_model = lambda *_: Counter()

    os.environ |= {"OPENAI_API_KEY": "none", "CURATOR_CACHE_DIR": f"{task['folder']}/curator", "TELEMETRY_ENABLED": "0"}
    from bespokelabs import curator

    llm = curator.LLM(
        model_name="test-model",
        backend="openai",
        generation_params={"temperature": 0},
        backend_params={
            "base_url": task["base_url"],
            "max_concurrent_requests": task["concurrency"],
            "max_requests_per_minute": 10**6,
            "max_tokens_per_minute": 10**10,
        },
    )
    inputs = [_messages(task, user) for user in task["users"]]
    return _timed(lambda: llm(inputs))


CONTENDERS: dict[str, Callable[[dict[str, Any]], tuple[float, float]]] = {
    "annotator": annotator,
    "aiohttp": aiohttp,
    "openai": openai,
    "instructor": instructor,
    "distilabel": distilabel,
    "curator": curator,
}
