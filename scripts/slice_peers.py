"""DivExplorer and SliceLine on the cases of scripts/bench_slices.py, in a Python of their own.

    python -m venv peers && peers/bin/pip install divexplorer sliceline
    python scripts/bench_slices.py --peers peers/bin/python

Reads one JSON document from standard input: a list of cases {columns: {axis: [value, ...]}, errors: [...],
differences: [...], smallest: items}. Writes {method: [{found: [[row, ...], ...], seconds: CPU}, ...]}, or
{"missing": reason} where a package cannot be imported.

Both know one value an axis, so they see the primary operation. They are run on the candidate's errors, as they are
meant, and on the paired differences, which is kinder.
"""

from __future__ import annotations

import json
import sys
import time
import warnings

import numpy as np


def divexplorer(table, outcome: np.ndarray, smallest: int, *, prune: bool) -> list[list[int]]:
    """The ten most divergent patterns with t > 3 (its own ranking and test), pruned of redundant ones if asked."""
    from divexplorer import DivergenceExplorer, DivergencePatternProcessor

    columns = list(table.columns)
    patterns = DivergenceExplorer(table.assign(outcome=outcome)).get_pattern_divergence(
        min_support=smallest / len(table), attributes=columns, quantitative_outcomes=["outcome"]
    )
    if prune:
        patterns = DivergencePatternProcessor(patterns, "outcome").redundancy_pruning(th_redundancy=0.02)
    good = patterns[(patterns["outcome_t"] > 3) & (patterns["outcome_div"] > 0)]
    good = good.sort_values("outcome_div", ascending=False).head(10)
    return [_rows(table, (predicate.split("=", 1) for predicate in itemset)) for itemset in good["itemset"]]


def sliceline(table, errors: np.ndarray, smallest: int) -> list[list[int]]:
    """The ten slices with the highest score, of at most three predicates."""
    from sliceline.slicefinder import Slicefinder

    finder = Slicefinder(alpha=0.99, k=10, max_l=3, min_sup=smallest, verbose=False)
    finder.fit(table.to_numpy(dtype=object), errors)
    named = [zip(table.columns, row) for row in finder.top_slices_]
    return [_rows(table, ((column, value) for column, value in row if value is not None)) for row in named]


def _rows(table, predicates) -> list[int]:
    inside = np.ones(len(table), dtype=bool)
    for column, value in predicates:
        inside &= (table[column] == value).to_numpy()
    return np.flatnonzero(inside).tolist()


METHODS = {
    "DivExplorer, errors": lambda table, case: divexplorer(table, case["errors"], case["smallest"], prune=False),
    "DivExplorer, paired, pruned": lambda table, case: divexplorer(
        table, case["differences"], case["smallest"], prune=True
    ),
    "SliceLine, errors": lambda table, case: sliceline(table, case["errors"], case["smallest"]),
    "SliceLine, paired": lambda table, case: sliceline(table, np.maximum(case["differences"], 0.0), case["smallest"]),
}


def main() -> None:
    warnings.simplefilter("ignore")
    try:
        import divexplorer  # noqa: F401
        import pandas
        import sliceline  # noqa: F401
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    found: dict[str, list[dict]] = {name: [] for name in METHODS}
    for case in json.load(sys.stdin):
        table = pandas.DataFrame(case["columns"])
        case |= {name: np.array(case[name]) for name in ("errors", "differences")}
        for name, method in METHODS.items():
            start = time.process_time()
            sets = method(table, case)
            found[name].append({"found": sets, "seconds": time.process_time() - start})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
