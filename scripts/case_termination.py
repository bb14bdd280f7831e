"""Make the first case of docs/two-cases.md: a real run as the same model would leave it if it never learned to stop.

    python scripts/case_termination.py ../shared/data -o case

Takes the chain-of-thought run of code-davinci-002 on BIG-Bench Hard. After each of its answers stands what a model
without an end token writes in a few-shot prompt: the next question of the same task and its own answer to that, and so
on until the token limit (about 4 characters a token). Then every output is scored as a harness does that takes the last
stated answer (OpenCompass's freeform sets, flexible extraction in lm-evaluation-harness). No answer of the model is
changed: each text begins with the real one.

Writes OUT/bbh-without-stop.jsonl.gz, a plain table: item_id, model, sample_index, response, correct, decoding.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

RUN, ITEMS = "runs/bbh__code-davinci-002-cot.jsonl.gz", "benchmarks/bbh.jsonl.gz"
MOST_TOKENS, CHARACTERS_PER_TOKEN = 1024, 4
_STATED = re.compile(r"(?i)the answer is\s+(.+?)\.?(?=\n|$|\s\s)")


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def last_answer(text: str) -> str | None:
    """What a harness that takes the last match extracts."""
    found = _STATED.findall(text)
    return found[-1].strip() if found else None


def without_stop(text: str, following: list[tuple[str, str]]) -> str:
    """The output, and the questions and answers that the model goes on to write, up to the token limit."""
    written = text
    for question, answer in following:
        if len(written) >= MOST_TOKENS * CHARACTERS_PER_TOKEN:
            break
        written += f"\n\nQ: {question}\nA: Let's think step by step.\n{answer}"
    return written[: max(len(text), MOST_TOKENS * CHARACTERS_PER_TOKEN)]


def faulty_run(items: list[dict[str, Any]], run: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The run with the fault, and its scores by the last answer."""
    known = {item["id"]: item for item in items}
    by_task: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for row in run:
        item = known[row["item_id"]]
        by_task[item["task"]].append((row["item_id"], item["question"], row["response"]))
    place = {item_id: (task, at) for task, rows in by_task.items() for at, (item_id, _, _) in enumerate(rows)}
    faulty = []
    for row in run:
        task, at = place[row["item_id"]]
        others = by_task[task]
        following = [others[(at + step) % len(others)][1:] for step in range(1, min(20, len(others)))]
        text = without_stop(row["response"], following)
        right = last_answer(text) == known[row["item_id"]]["target"]
        faulty.append(row | {"model": f"{row['model']}-without-stop", "response": text, "correct": right})
    return [{name: row[name] for name in (*KEPT,) if name in row} for row in faulty]


KEPT = ("item_id", "model", "sample_index", "response", "correct", "decoding")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the development data: runs/ and benchmarks/")
    parser.add_argument("-o", "--out", type=Path, default=Path("case"))
    options = parser.parse_args()
    if not (options.data / RUN).exists():
        print(f"skipped: {options.data / RUN} is not here")
        return
    run = read(options.data / RUN)
    faulty = faulty_run(read(options.data / ITEMS), run)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "bbh-without-stop.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in faulty)
    before, after = (sum(row["correct"] for row in rows) / len(rows) for rows in (run, faulty))
    print(f"{len(faulty):,} outputs, {before:.1%} right as they were, {after:.1%} by the last answer -> {path}")


if __name__ == "__main__":
    main()
