#!/usr/bin/env python3
"""Requests a second, CPU and memory of labelling, beside bare clients and peers, against one local server.

    .venv/bin/python scripts/bench_label.py                         # ours, bare aiohttp, AsyncOpenAI, instructor
    .venv/bin/python scripts/bench_label.py --peer distilabel=peers/bin/python

Every contender labels the same items with the same system prompt and strict schema, in a process of its own, through
the server of tests/llm_server.py (fixed latency, no faults), which runs in another process. Each time is from the first
request to the last answer, so imports do not count (see bench_start.py); CPU is that of the client process over the
same span. Run it on a quiet machine and trust the ratios.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts"), str(ROOT)]

OURS = ("annotator", "aiohttp", "openai", "instructor")
PEERS = ("distilabel", "curator")


def main() -> None:
    """Run the contenders one after the other and print the table."""
    arguments = _arguments()
    if arguments.contender:
        from bench_contenders import run  # imported in the child only: each contender pays for its own imports

        print(json.dumps(run(arguments.contender, json.loads(Path(arguments.task).read_text()))))
        return
    pythons = dict.fromkeys(arguments.only or OURS, sys.executable)
    pythons |= dict(pair.split("=", 1) for pair in arguments.peer)
    results = {}
    for name, python in pythons.items():
        rounds = [_measure(name, python, arguments) for _ in range(arguments.rounds)]
        best = max((one for one in rounds if one), key=lambda one: one["rate"], default=None)
        if best is None:
            print(f"{name}: did not run", file=sys.stderr)
        else:
            results[name] = best
    _print(results, arguments)


def _measure(name: str, python: str, arguments: argparse.Namespace) -> dict[str, float] | None:
    from llm_faults import Faults
    from llm_server import LLMServer

    from annotator.prompts import load_prompt
    from annotator.schema import strict_json_schema
    from annotator.taxonomy import load_taxonomy

    taxonomy = load_taxonomy()
    prompt = load_prompt("item", taxonomy)
    # Slow contenders get fewer requests: a rate needs seconds, not a fixed number of requests.
    count = arguments.requests if name in ("annotator", "aiohttp", "openai") else arguments.requests // 4
    with LLMServer.spawn(Faults(latency_ms=arguments.latency_ms)) as server, tempfile.TemporaryDirectory() as folder:
        items = Path(folder, "items.jsonl")
        texts = [f"Item {k}: a train leaves at {k} o'clock. " + "When does it arrive? " * 20 for k in range(count)]
        rows = [json.dumps({"id": f"item-{k}", "prompt": text}) for k, text in enumerate(texts)]
        items.write_text("\n".join(rows) + "\n")
        task = Path(folder, "task.json")
        task.write_text(
            json.dumps(
                {
                    "base_url": server.base_url,
                    "concurrency": arguments.concurrency,
                    "items": str(items),
                    "folder": folder,
                    "system": prompt.system,
                    "users": [prompt.user(text) for text in texts],
                    "schema": strict_json_schema(taxonomy, "item"),
                }
            )
        )
        command = [python, __file__, "--contender", name, "--task", str(task)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            print(f"{name}: {done.stderr.strip()[-800:]}", file=sys.stderr)
            return None
        measured = json.loads(done.stdout.strip().splitlines()[-1])
        answered = len(server.stats().answered)
    if answered != count:
        print(f"{name}: {answered} of {count} answered", file=sys.stderr)
    return {
        "rate": answered / measured["seconds"],
        "cpu_ms": 1000 * measured["cpu"] / answered,
        "rss_mb": measured["rss_mb"],
        "requests": answered,
    }


def _print(results: dict[str, dict[str, float]], arguments: argparse.Namespace) -> None:
    """Every contender beside the plain loop, the fastest peer and bare aiohttp; then ours, in words."""
    peers = [name for name in results if name not in ("annotator", "aiohttp", "openai")]
    fastest = max(peers, key=lambda name: results[name]["rate"], default="none")
    print(f"{arguments.latency_ms:g} ms latency, {arguments.concurrency} concurrent, best of {arguments.rounds}")
    print(f"{'contender':12} {'requests':>9} {'requests/s':>11} {'x AsyncOpenAI':>14} {'x fastest peer':>15} "
          f"{'CPU ms/req':>11} {'x aiohttp':>10} {'peak MB':>8}")  # fmt: skip
    for name, one in results.items():
        loop, peer = _ratio(results, name, "openai", "rate"), _ratio(results, name, fastest, "rate")
        bare = _ratio(results, name, "aiohttp", "cpu_ms")
        print(f"{name:12} {one['requests']:9,.0f} {one['rate']:11,.0f} {loop:>14} {peer:>15} "
              f"{one['cpu_ms']:11.2f} {bare:>10} {one['rss_mb']:8.0f}")  # fmt: skip
        if name == "annotator":
            goals = (f"annotator: {loop} x the AsyncOpenAI loop (goal 2), {peer} x the fastest peer, {fastest} "
                     f"(goal 4), {bare} x the CPU of bare aiohttp (goal at most 3)")  # fmt: skip
    if "annotator" in results:
        print(goals)


def _ratio(results: dict[str, dict[str, float]], name: str, other: str, figure: str) -> str:
    return f"{results[name][figure] / results[other][figure]:.2f}" if other in results else "-"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=12_000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=OURS, help="Some of ours only.")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON",
                        help=f"A peer and the Python that has it: {', '.join(PEERS)}.")  # fmt: skip
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
