#!/usr/bin/env python3
"""Peak memory and speed of `label` over many short records: cached, unusable, or refused by the judge.

    .venv/bin/python scripts/bench_memory.py cached --records 1000000
    .venv/bin/python scripts/bench_memory.py unusable --records 1000000
    .venv/bin/python scripts/bench_memory.py refused --records 200000     # real HTTP requests: minutes

Prints what became of the records, records per second of CPU time, the peak, and the resident memory along the way.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from annotator.fingerprint import fingerprint
from annotator.judges import Pace, open_judge
from annotator.judges.cache import Answer, AnswerCache
from annotator.judges.scripted import ScriptedJudge
from annotator.label import label
from annotator.labelling.rows import make_window
from annotator.prompts import load_prompt
from annotator.readers import find_shards, read_records
from annotator.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
LABEL = {
    "evidence": "",
    "background_condition": TAXONOMY.values("background_condition", "item")[0],
    "task_type": TAXONOMY.values("task_type", "item")[0],
    "solving_operation": list(TAXONOMY.values("solving_operation", "item")[:2]),
    "output_constraint": TAXONOMY.values("output_constraint", "item")[0],
}
SAMPLES = 12


class Silent(ScriptedJudge):
    """Always the same label, and no memory of who asked."""

    def __init__(self) -> None:
        super().__init__(lambda request: LABEL)

    async def ask(self, request: Any) -> Any:
        """See `Judge.ask`."""
        self.asked.clear()
        return await super().ask(request)


def main() -> None:
    """Make the records, label them, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["cached", "unusable", "refused"])
    parser.add_argument("--records", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, judge_for(arguments.mode) as judge:
        folder = Path(name)
        items = write_items(folder / "items.jsonl", arguments.records, empty=arguments.mode == "unusable")
        if arguments.mode == "cached":
            fill(items, judge, folder / "cache")
        report = measured(
            lambda: label([items], out=folder / "labels.parquet", judge=judge, cache_dir=folder / "cache")
        )
    print(json.dumps({"mode": arguments.mode} | report, indent=2))


@contextmanager
def judge_for(mode: str) -> Iterator[Any]:
    """A scripted judge, or one behind a server that refuses 98 of 100 records."""
    if mode != "refused":
        yield Silent()
        return
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from llm_faults import Faults
    from llm_server import LLMServer

    with LLMServer.spawn(Faults(rates={"refusal": 0.98})) as server:
        yield open_judge(
            "openai:test-model", kind="item", taxonomy=TAXONOMY, prompt=load_prompt("item", TAXONOMY),
            base_url=server.base_url, pace=Pace(concurrency=32),
        )  # fmt: skip


def write_items(path: Path, records: int, *, empty: bool) -> Path:
    """Short items; with `empty` only one in a thousand has a text."""
    with path.open("w") as opened:
        for k in range(records):
            text = "" if empty and k % 1000 else f"What is {k} plus {k}?"
            opened.write(f'{{"id": "r{k}", "prompt": "{text}"}}\n')
    return path


def fill(items: Path, judge: Any, cache_dir: Path) -> None:
    """Put an answer to each item into the cache."""
    answer, identity = Answer(LABEL, "m", "scripted", (1, 900, 0, 60)), fingerprint(judge.identity)
    cache = AnswerCache(cache_dir)
    for shard in find_shards([items]):
        for index, batch in enumerate(read_records(shard, kind="item")):
            window = make_window(shard, index, batch, identity, message=judge.prompt.user)
            cache.put_many((key, answer) for key in window.keys)
    cache.close()


def measured(run: Callable[[], Any]) -> dict[str, Any]:
    """What the run did, and what it took. Memory in MB, of this process."""
    resident: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1):
            status = Path("/proc/self/status").read_text()
            resident.append(int(status.split("VmRSS:")[1].split()[0]) // 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu, wall = time.process_time(), time.monotonic()
    try:
        summary = run()
    finally:
        over.set()
        watcher.join()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    counts = {name: getattr(summary, name) for name in ("records", "labelled", "failed", "cached", "failures")}
    return counts | {
        "seconds": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "records_per_cpu_s": round(summary.records / cpu),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "resident_mb": resident[:: max(1, len(resident) // SAMPLES)],
    }


if __name__ == "__main__":
    main()
