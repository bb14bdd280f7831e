"""NeMo-Skills: `output-rs0.jsonl`, `output-rs1.jsonl`, ...: the same items in order, one file a sampling seed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from annotator.errors import BadInput
from annotator.readers.logs import LogRecord
from annotator.readers.shards import Shard
from annotator.readers.tables import stream_rows
from annotator.readers.values import as_text

_NAME = re.compile(r"^(?P<task>.*?)[_\-.]*output(-rs(?P<seed>\d+))?([_\-.]chunk_?\d+)?\.")
_VERDICTS = ("is_correct", "symbolic_correct", "judge_correct", "proof_status", "judgement")
_KNOWN = {
    "generation", "predicted_answer", "expected_answer", "problem", "question", "id", "num_generated_tokens",
    "num_input_tokens", "finish_reason", "options", "error_message",
}  # fmt: skip


def records(shard: Shard) -> Iterator[LogRecord]:
    """The lines of one seed's file. The seed is the sample index; an item without an id is known by its line.

    The files name neither model nor prompt. The task is the part of the name before "output", else the folder.
    """
    named = _NAME.match(shard.path.name)
    folder = shard.path.resolve().parent.name
    task = (named["task"] if named else "") or folder
    seed = int(named["seed"]) if named and named["seed"] else 0
    for rows in stream_rows(shard):
        if rows.bad:
            row, fault = rows.bad[0]
            raise BadInput(fault, where=shard.place(row), remedy="The log may be cut short; copy it again.")
        for number, row in zip(rows.numbers, rows.values):
            yield _record(number, row, task, seed)


def _record(number: int, row: Mapping[str, Any], task: str, seed: int) -> LogRecord:
    prompt = as_text(row.get("problem") or row.get("question"))
    own_id = row["id"] if row.get("id") is not None else number
    item = {
        "item_id": f"{task}/{own_id}",
        "benchmark": task,
        "task": row.get("subset_for_metrics") or row.get("type") or task,
        "prompt": prompt,
        "target": as_text(row.get("expected_answer")),
        "choices": row.get("options") if isinstance(row.get("options"), list) else None,
    }
    sample = {
        **{name: value for name, value in row.items() if name not in _KNOWN},
        "harness": "nemo_skills",
        "task": task,
        "item_id": item["item_id"],
        "sample_index": seed,
        "response": row.get("generation"),
        "parsed_answer": as_text(row.get("predicted_answer")),
        "finish_reason": row.get("finish_reason"),
        "input_tokens": row.get("num_input_tokens"),
        "output_tokens": row.get("num_generated_tokens"),
        "error": row.get("error_message") or None,
    }
    scores = {name: _verdict(name, row[name]) for name in _VERDICTS if row.get(name) is not None}
    scores |= {name: value for name, value in row.items() if isinstance(value, bool) and name not in scores}
    return LogRecord(number, item, sample, scores)


def _verdict(name: str, value: Any) -> Any:
    """Its way of saying right or wrong as a boolean: a proof "completed", "Judgement: Yes"."""
    if name == "proof_status":
        return value == "completed"
    if name == "judgement" and isinstance(value, str):
        said = re.search(r"judge?ment:\s*\**\s*(yes|no)\b", value, re.IGNORECASE)
        return said[1].lower() == "yes" if said else None
    return value
