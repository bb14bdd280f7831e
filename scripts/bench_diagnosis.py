"""Is the verdict right? Faults with a known cause, alone, beside a real weakness and in both runs, in four log formats.

    python scripts/bench_diagnosis.py --seeds 20 -o bench_diagnosis.json

The 15 causes are those of `annotator.diagnosis.causes`. Each is put into the logs of two runs on one exam of 300 items,
in four conditions, as each of four harnesses writes them (`annotator.simulate_faults`), and read and diagnosed from
the files. A cause is left out ("-") for harnesses whose logs do not hold its evidence.

    alone     the fault in the candidate, which is otherwise as good as the reference
    beside    the fault, and a quarter of the items on which the candidate really loses two thirds
    slight    the same weakness, and a tenth of the fault
    none      no fault that could explain a drop: both runs have it alike, and are equally good

What counts as right. The simulator knows the score that the candidate would have without its fault, hence the share of
the drop that is the fault's.

    alone     "not_data", and the cause
    beside,   share >= .75: "not_data", and the cause
    slight    .5 to .75: that, or "inconclusive" with that cause (300 items cannot always show that it is over half)
              .25 to .5: "inconclusive" with that cause, or "data"; below .25: "data", or "inconclusive" with any
    none      "inconclusive", and noise
    always    prompt_changed and version_drift, which hit about half of the items: where "not_data" is right, so is
              "inconclusive" with that cause. To refuse the comparison is right, to acquit by the other half is better.
              decoding_changed and bos concern the whole run, so that nothing can be compared: "inconclusive", and the
              cause. The row "noise" has no fault at all: "noise" alone, and "data" beside a weakness.

So "data" is wrong whenever the fault is half of the drop or more, and "not_data" whenever it is less. The last lines
say how many of the right verdicts were the cautious ones, and how often "data" was said of a pure fault.
Every cell draws other exams, so that cells are independent.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from annotator.diagnose import diagnose
from annotator.readers import read_items, read_samples
from annotator.simulate_faults import FAULTS, HARNESSES, VISIBLE_IN, exam, with_fault, write_log

CONDITIONS = ("alone", "beside", "slight", "none")
WHOLE_RUN = ("decoding_changed", "bos")
REFUSAL_IS_RIGHT = ("prompt_changed", "version_drift")
SLIGHT = 0.1
Verdict = tuple[str, str | None]


def right(found: Verdict, cause: str, condition: str, share: float) -> bool:
    """Whether a verdict and its cause are right, by the table above."""
    verdict, _ = found
    if condition == "none" or (cause == "noise" and condition == "alone"):
        return found == ("inconclusive", "noise")
    if cause == "noise":
        return found == ("data", None)
    if cause in WHOLE_RUN:
        return found == ("inconclusive", cause)
    cautious = found == ("inconclusive", cause)
    if condition == "alone" or share >= 0.75:
        return found == ("not_data", cause) or (cautious and cause in REFUSAL_IS_RIGHT)
    if share >= 0.5:
        return found == ("not_data", cause) or cautious
    return verdict == "data" or cautious or (share < 0.25 and verdict == "inconclusive")


def asked(cause: str, condition: str, harness: str) -> bool:
    """Whether a cell makes sense: the log holds the evidence, and the condition differs from the others."""
    if harness not in VISIBLE_IN.get(cause, HARNESSES):
        return False
    return not (cause == "noise" and condition in ("slight", "none"))


def one(cause: str, condition: str, harness: str, seed: int) -> tuple[dict[str, Any], float]:
    """The diagnosis of a faulty run, and the share of the drop that is the fault's."""
    own = zlib.crc32(f"{cause} {condition} {harness}".encode())
    faultless, reference, _ = exam(own + seed, weak=condition in ("beside", "slight"))
    strength = SLIGHT if condition == "slight" else 1.0
    candidate, theirs = with_fault(
        cause, faultless, reference, seed=own + seed, strength=strength, in_both=condition == "none"
    )
    drop, real = (reference.correct - run.correct for run in (candidate, faultless))
    with tempfile.TemporaryDirectory() as folder:
        here = write_log(candidate, Path(folder, "a"), harness=harness)
        there = write_log(theirs, Path(folder, "b"), harness=harness)
        found = diagnose(read_items([there]), read_samples([here]), reference=read_samples([there]), bootstraps=300)
    return found, 1 - max(real, 0) / drop if drop > 0 else 0.0


def measure(seeds: range, causes: list[str]) -> list[dict[str, Any]]:
    """One row a diagnosis: cause, condition, harness, seed, share, verdict, named, right, residual_low."""
    rows = []
    for cause in causes:
        for condition in CONDITIONS:
            cells = [harness for harness in HARNESSES if asked(cause, condition, harness)]
            for harness in cells:
                for seed in seeds:
                    found, share = one(cause, condition, harness, seed)
                    got = found["verdict"], found["cause"]
                    rows.append(
                        {"cause": cause, "condition": condition, "harness": harness, "seed": seed}
                        | {"share": round(share, 3), "verdict": got[0], "named": got[1]}
                        | {"right": right(got, cause, condition, share), "residual_low": found["residual"]["low"]}
                    )
            if cells:
                print(line(cause, condition, rows), flush=True)
    return rows


def line(cause: str, condition: str, rows: list[dict[str, Any]]) -> str:
    """The counts of one row of the table: right verdicts a harness, and what was said over all four."""
    mine = [row for row in rows if (row["cause"], row["condition"]) == (cause, condition)]
    cells = []
    for harness in HARNESSES:
        marks = [row["right"] for row in mine if row["harness"] == harness]
        cells.append(f"{sum(marks):3d}/{len(marks):<3d}" if marks else "   -   ")
    said = Counter(row["verdict"] for row in mine)
    counts = "  ".join(f"{said[verdict]:5d}" for verdict in ("not_data", "inconclusive", "data"))
    return f"{cause:17} {condition:7} {'  '.join(cells)}  {counts}"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over all cells."""
    pure = [row for row in rows if row["condition"] == "alone" and row["cause"] != "noise"]
    both = [row for row in rows if row["condition"] == "beside" and row["cause"] not in (*WHOLE_RUN, "noise")]
    faulty = [row for row in rows if row["condition"] != "none" and row["cause"] not in (*WHOLE_RUN, "noise")]
    mostly = [row for row in faulty if row["condition"] == "alone" or row["share"] >= 0.5]
    return {
        "right": sum(row["right"] for row in rows),
        "of": len(rows),
        "data_for_a_pure_fault": sum(row["verdict"] == "data" for row in pure),
        "pure_faults": len(pure),
        "data_for_half_or_more": sum(row["verdict"] == "data" for row in mostly),
        "half_or_more": len(mostly),
        "not_data_for_less": sum(row["verdict"] == "not_data" for row in rows if row not in mostly),
        "cautious": sum(row["verdict"] == "inconclusive" and row["right"] for row in mostly),
        "residual_seen": sum((row["residual_low"] or 0) > 0 for row in both),
        "residual_asked": len(both),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cause", action="append", choices=list(FAULTS), help="only this one; repeatable")
    parser.add_argument("-o", "--out", type=Path, help="write every diagnosis as JSON")
    options = parser.parse_args()
    head = "  ".join(f"{harness[:7]:7}" for harness in HARNESSES)
    print(f"right of asked    {'':7} {head}  not_data inconcl. data")
    rows = measure(range(options.first_seed, options.first_seed + options.seeds), options.cause or list(FAULTS))
    total = summary(rows)
    print(f"\nright verdict and cause: {total['right']} of {total['of']} ({total['right'] / total['of']:.1%})")
    print(f"  of these 'inconclusive' though the fault is half of the drop or more: {total['cautious']}")
    print(f"'data' for a pure fault: {total['data_for_a_pure_fault']} of {total['pure_faults']}")
    print(f"'data' where the fault is half or more: {total['data_for_half_or_more']} of {total['half_or_more']}")
    print(f"'not_data' where it is less, or nothing can be said: {total['not_data_for_less']}")
    print(f"the weakness beside a fault shows in the residual: {total['residual_seen']} of {total['residual_asked']}")
    print(f"CPU: {time.process_time() / 60:.1f} min")
    if options.out:
        options.out.write_text(json.dumps({"summary": total, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
