#!/usr/bin/env python3
"""Labelling under faults, random kill -9 and two processes on one cache; says whether every promise held.

    .venv/bin/python scripts/chaos_label.py --records 20000 --kills 10
    .venv/bin/python scripts/chaos_label.py --records 600 --kills 3       # as in the tests

Promises: every record ends exactly once, as a label or in the dead-letter file; no answer that was on disk is paid for
again; labels equal those of a calm run byte for byte.

What a kill may cost: the requests that the killed process had in flight (at most its concurrency), and answers that it
had and was just writing (those that came while the disk was busy with the commit before). The second number is counted
at each kill as right answers that the server had sent less answers in the cache; it includes the other process's, which
are not lost.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

# 30 % in all, of every kind.
RATES = {
    "http_500": 0.02, "http_502_html": 0.02, "http_503": 0.02, "http_408": 0.01, "http_409": 0.01,
    "rate_limited": 0.01, "rate_limited_bare": 0.005, "rate_limited_ms": 0.01,
    "hang": 0.003, "reset": 0.02, "reset_in_body": 0.02, "cut_in_body": 0.02, "slow_drip": 0.005, "late": 0.005,
    "invalid_json": 0.02, "wrong_enum": 0.02, "extra_field": 0.01, "missing_field": 0.01, "duplicate_item": 0.005,
    "empty_content": 0.005, "length": 0.01, "refusal": 0.005, "content_filter": 0.005,
    "html_200": 0.01, "no_usage": 0.01, "wrong_usage": 0.005, "wrong_type": 0.005,
    "empty_choices": 0.005, "null_content": 0.005, "rate_limited_date": 0.001,
}  # fmt: skip
CONCURRENCY = 32
TOKENS_PER_MINUTE = 100_000_000
LABEL_COLUMNS = ["record_id", "background_condition", "task_type", "solving_operation", "output_constraint", "evidence"]


def main() -> None:
    """Run the chaos and print what held; exit code 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _label(**json.loads(arguments.child))
        return
    with tempfile.TemporaryDirectory() as folder:
        report = chaos(Path(folder), records=arguments.records, kills=arguments.kills, seed=arguments.seed)
    print(json.dumps(report, indent=2))
    sys.exit(0 if all(report["held"].values()) else 1)


def chaos(folder: Path, *, records: int, kills: int, seed: int) -> dict[str, Any]:
    """Two processes with one cache and an output each label the same items, and are killed and started again."""
    from llm_faults import Faults
    from llm_server import LLMServer

    import annotator.judges.cache  # noqa: F401  loaded before anything is counted

    items = folder / "items.jsonl"
    items.write_text("".join(f'{{"id": "r{k}", "prompt": "What is {k} plus {k}?"}}\n' for k in range(records)))
    draw = random.Random(seed)
    started = time.monotonic()
    behaviour = Faults(
        seed=seed, rates=RATES, latency_ms=10, latency_sigma=0.5, retry_after_s=0.2, drip_s=0.3, tpm=TOKENS_PER_MINUTE
    )
    with LLMServer.spawn(behaviour) as server:
        tasks = [
            {"items": str(items), "out": str(folder / f"{name}.parquet"), "cache": str(folder / "cache"),
             "url": server.base_url}
            for name in ("a", "b")
        ]  # fmt: skip
        running = [_start(task) for task in tasks]
        unwritten = []
        for kill in range(kills):
            target = records * (kill + draw.random()) * 0.9 / kills
            while len(server.stats().answered) < target and any(process.poll() is None for process in running):
                time.sleep(0.1)
            which = draw.randrange(2)
            running[which].send_signal(signal.SIGKILL)
            running[which].wait()
            on_disk = _answers_on_disk(folder / "cache")  # counted first: the other process goes on
            unwritten.append(len(server.stats().answered) - on_disk)
            running[which] = _start(tasks[which])
        codes = [process.wait() for process in running]
        paid = server.stats()
        server.configure(Faults())
        _label(str(items), str(folder / "calm.parquet"), str(folder / "calm-cache"), server.base_url)
    costs = {"answered_but_not_on_disk_at_each_kill": unwritten, "seconds": round(time.monotonic() - started, 1)}
    at_most = kills * CONCURRENCY + sum(max(0, answers) for answers in unwritten)
    return _verdict(folder, records, codes, paid, at_most) | {"kills": kills} | costs


def _answers_on_disk(cache: Path) -> int:
    from annotator.errors import BadInput
    from annotator.judges.cache import cache_stats

    try:
        return int(cache_stats(cache)["answers"])
    except BadInput:  # killed before it had one
        return 0


def _start(task: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "--child", json.dumps(task)])


def _label(items: str, out: str, cache: str, url: str) -> None:
    from annotator.judges import Pace, open_judge
    from annotator.label import label
    from annotator.prompts import load_prompt
    from annotator.taxonomy import load_taxonomy

    taxonomy = load_taxonomy()
    judge = open_judge(
        "openai:test-model",
        kind="item",
        taxonomy=taxonomy,
        prompt=load_prompt("item", taxonomy),
        base_url=url,
        pace=Pace(concurrency=CONCURRENCY, timeout_s=2, first_wait_s=0.05, longest_wait_s=0.5),
    )
    label([items], out=out, judge=judge, cache_dir=cache)


def _verdict(folder: Path, records: int, codes: list[int], paid: Any, twice_at_most: int) -> dict[str, Any]:
    import polars as pl

    calm = pl.read_parquet(folder / "calm.parquet", columns=LABEL_COLUMNS)
    twice = sum(times - 1 for times in paid.answered.values())
    ended, equal, dead = [], [], []
    for name in ("a", "b"):
        table = pl.read_parquet(folder / f"{name}.parquet")
        failed = set(table.filter(pl.col("status") == "failed")["record_id"])
        letters = folder / f"{name}.parquet.failed.jsonl"
        lines = letters.read_text().splitlines() if letters.exists() else []
        ended.append(table["record_id"].to_list() == calm["record_id"].to_list())
        ended.append(sorted(json.loads(line)["record_id"] for line in lines) == sorted(failed))
        good = ~pl.col("record_id").is_in(list(failed))
        equal.append(table.filter(good).select(LABEL_COLUMNS).equals(calm.filter(good)))
        dead.append(len(failed))
    return {
        "records": records,
        "exit_codes": codes,
        "requests": paid.requests,
        "outcomes": dict(sorted(paid.outcomes.items())),
        "answered_right": len(paid.answered),
        "paid_twice": twice,
        "dead_letters": dead,
        "held": {
            "every_record_ends_once": all(ended),
            "labels_equal_a_calm_run": all(equal),
            "paid_twice_at_most_what_was_in_flight_or_unwritten": twice <= twice_at_most,
            "finished": codes == [0, 0],
        },
    }


if __name__ == "__main__":
    main()
