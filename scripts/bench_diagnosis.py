"""Is the verdict right? Faults with a known cause, alone and beside a real weakness, in the logs of four harnesses.

    python scripts/bench_diagnosis.py --seeds 20 -o bench_diagnosis.json

For each cause and harness: how often verdict and cause are right with the fault alone, and with a weak slice besides
(a quarter of the items lose two thirds); "no fault" has the slice only, and "noise" nothing at all. A cause is left
out ("-") for harnesses whose logs do not hold its evidence. `annotator.simulate_faults` makes the logs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from annotator.diagnose import diagnose
from annotator.diagnosis.causes import INCOMPARABLE
from annotator.readers import read_items, read_samples
from annotator.simulate_faults import FAULTS, HARNESSES, VISIBLE_IN, Run, exam, with_fault, write_log

WHOLE_RUN = ("decoding_changed", "bos")  # nothing can be compared, so nothing can be said
NEVER_DATA = (
    "termination",
    "end_marker",
    "generation_cap",
    "stop_string",
    "whitespace",
    "extraction",
    "answer_position",
)


def acceptable(cause: str, share: float, *, weak: bool) -> set[tuple[str, str | None]]:
    """The verdicts and causes that a careful analyst may give.

    share: how much of the drop is the fault's; the rest is the weak slice's. Near one half nobody can be sure.
    """
    if cause == "noise":
        return {("data", None)} if weak else {("inconclusive", "noise")}
    if cause in WHOLE_RUN:
        return {("inconclusive", cause)}
    if share >= 0.75:
        return {("not_data", cause)}
    return {("not_data", cause), ("inconclusive", cause)}


def one(cause: str, harness: str, seed: int, *, weak: bool) -> tuple[dict, float]:
    """The diagnosis of a faulty run, and the share of the drop that is the fault's."""
    faultless, reference, _ = exam(seed, weak=weak)
    candidate, scored = with_fault(cause, faultless, reference, seed=seed)
    drop, real = (total(reference) - total(run) for run in (candidate, faultless))
    with tempfile.TemporaryDirectory() as folder:
        here = write_log(candidate, Path(folder, "a"), harness=harness)
        there = write_log(scored, Path(folder, "b"), harness=harness)
        found = diagnose(read_items([there]), read_samples([here]), reference=read_samples([there]), bootstraps=300)
    return found, 1 - max(real, 0) / drop if drop > 0 else 0.0


def total(run: Run) -> float:
    return sum(output.score for output in run.outputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    right: dict[tuple, int] = Counter()
    asked: dict[tuple, int] = Counter()
    confusion: dict[str, Counter] = defaultdict(Counter)
    wrong: list[dict] = []
    residual_seen = residual_asked = 0
    for cause in FAULTS:
        for weak in (False, True):
            for harness in HARNESSES:
                if harness not in VISIBLE_IN.get(cause, HARNESSES):
                    continue
                for seed in range(options.first_seed, options.first_seed + options.seeds):
                    found, share = one(cause, harness, seed, weak=weak)
                    wanted = acceptable(cause, share, weak=weak)
                    key = (cause, weak, harness)
                    asked[key] += 1
                    got = (found["verdict"], found["cause"])
                    right[key] += got in wanted
                    confusion[" or ".join(sorted(verdict for verdict, _ in wanted))][found["verdict"]] += 1
                    if got not in wanted:
                        wrong.append({"cause": cause, "weak": weak, "harness": harness, "seed": seed, "got": got})
                    if weak and cause not in (*INCOMPARABLE, "noise"):
                        residual_asked += 1
                        residual_seen += bool((found["residual"]["low"] or 0) > 0)
            print(line(cause, weak, right, asked), flush=True)
    every, good = sum(asked.values()), sum(right.values())
    false_data = [row for row in wrong if row["cause"] in NEVER_DATA and not row["weak"] and row["got"][0] == "data"]
    print(f"\nright verdict and cause: {good} of {every} ({good / every:.1%})")
    print("wanted -> given:", {name: dict(counts) for name, counts in confusion.items()})
    print(f"'data' for a pure fault of termination, length or extraction: {len(false_data)}")
    print(f"the weakness beside a fault shows in the residual: {residual_seen} of {residual_asked}")
    if options.out:
        cells = [
            dict(zip(("cause", "weak", "harness"), key)) | {"right": right[key], "of": asked[key]} for key in asked
        ]
        summary = {
            "right": good,
            "of": every,
            "false_data": len(false_data),
            "residual": [residual_seen, residual_asked],
        }
        options.out.write_text(json.dumps({"summary": summary, "cells": cells, "wrong": wrong}, indent=1) + "\n")


def line(cause: str, weak: bool, right: dict, asked: dict) -> str:
    cells = []
    for harness in HARNESSES:
        key = (cause, weak, harness)
        cells.append(f"{right[key]:3d}/{asked[key]:<3d}" if asked[key] else "   -   ")
    name = {("noise", True): "no fault"}.get((cause, weak), cause)
    return f"{name:18} {'with a weak slice' if weak else 'alone':18} " + "  ".join(cells)


if __name__ == "__main__":
    main()
