"""OpenCompass: `predictions/MODEL/DATASET.json` (or in parts, `DATASET_0.json` ...), `results/MODEL/DATASET.json`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from annotator.readers.compressed import chunks
from annotator.readers.logs import LogRecord, parse_json, read_json
from annotator.readers.shards import Shard
from annotator.readers.values import as_json, as_text

_PART = re.compile(r"^(?P<root>.+)_(?P<part>\d+)$")
_VERDICTS = ("correct", "is_correct", "cascade_correct")


def records(shard: Shard) -> Iterator[LogRecord]:
    """The samples of one predictions file, scored by the details of its results where they were dumped.

    A list of predictions gives one record each. Items are numbered through the parts of a data set. A results file
    that is read by itself gives what its details hold. The LEval predictions that OpenCompass ships (one JSON object a
    line: query, gt, MODEL_pred) are read too.
    """
    raw = b"".join(chunks(shard.path))
    if raw.split(b"\n", 1)[0].rstrip().endswith(b"}") and b'"gt"' in raw[:1_000_000] and b'_pred"' in raw:
        yield from _leval(shard, raw)
        return
    log = parse_json(raw, where=str(shard.path))
    details = log.get("details")
    root, offset = _root(shard.path)
    shared = {"harness": "opencompass", "task": root, "run": shard.path.resolve().parent.name}
    if details is not None and "0" not in log:
        pairs = [({}, detail) for detail in _listed(details)]
    else:
        scored = _details(shard.path, root)
        predictions = _listed(log)
        pairs = [
            (prediction, scored[offset + index] if offset + index < len(scored) else {})
            for index, prediction in enumerate(predictions)
        ]
    for index, (prediction, detail) in enumerate(pairs):
        yield from _samples(index, offset + index, prediction, detail, shared)


def _samples(
    row: int, number: int, prediction: Mapping[str, Any], detail: Mapping[str, Any], shared: Mapping[str, Any]
) -> Iterator[LogRecord]:
    prompt = prediction.get("origin_prompt", detail.get("prompt"))
    said = prediction.get("prediction", detail.get("origin_prediction", detail.get("prediction")))
    gold = prediction.get("gold", detail.get("references", detail.get("answer")))
    options = {name.removeprefix("label: "): value for name, value in prediction.items() if name.startswith("label: ")}
    item = {
        "item_id": f"{shared['task']}/{number}",
        "benchmark": shared["task"],
        "task": shared["task"],
        "prompt": _text(prompt) or _text(next(iter(options.values()), {}).get("testing input")),
        "target": as_text(gold),
    }
    verdict = next((detail[name] for name in _VERDICTS if detail.get(name) is not None), None)
    parsed = detail.get("pred", detail.get("predictions"))
    answers = said if isinstance(said, list) and not _is_chat(said) else [said]
    for index, answer in enumerate(answers):
        length, finish = prediction.get("res_length"), prediction.get("rollout")
        sample = {
            **shared,
            "item_id": item["item_id"],
            "sample_index": index,
            "prompt": as_json(prompt) if isinstance(prompt, list) else prompt,
            "response": _text(answer),
            "parsed_answer": as_text(_of(parsed, index, answers)),
            "input_tokens": _of(prediction.get("all_input_length"), index, answers),
            "output_tokens": _of(length, index, answers),
            "finish_reason": finish.get("finish_reason") if isinstance(finish, dict) else None,
            "perplexities": as_json({name: option.get("PPL") for name, option in options.items()}) if options else None,
            "score_level": "sample" if len(answers) == 1 or _fits(verdict, answers) else "item",
        }
        yield LogRecord(row, item, sample, {"correct": _verdict(_of(verdict, index, answers))})


def _fits(value: Any, answers: list[Any]) -> bool:
    return isinstance(value, list) and len(value) == len(answers)


def _of(value: Any, index: int, answers: list[Any]) -> Any:
    """The part of a value that belongs to one of several answers, where it is a list of as many."""
    return value[index] if _fits(value, answers) else value


def _verdict(value: Any) -> Any:
    if isinstance(value, list):  # several gradings of one answer
        value = value[0] if len(value) == 1 else None
    return value


def _text(value: Any) -> str | None:
    """A prompt or answer: a string, or a dialogue of {"role", "prompt"} turns."""
    if isinstance(value, list) and _is_chat(value):
        return "\n\n".join(str(turn.get("prompt", turn.get("content", ""))) for turn in value)
    return as_text(value)


def _is_chat(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(turn, dict) and ("prompt" in turn or "content" in turn) for turn in value)


def _listed(entries: Any) -> list[dict[str, Any]]:
    """{"0": ..., "1": ...} in the order of its numbers, or a list; beside the numbers may stand a "type"."""
    if isinstance(entries, dict):
        numbers = sorted(int(name) for name in entries if name.isdecimal())
        return [entries[str(number)] for number in numbers]
    return list(entries)


def _root(path: Path) -> tuple[str, int]:
    """A predictions file's data set, and how many of its items stand in the parts before.

    As the harness does, `DATASET_0` is taken for a part unless there is a file `DATASET`.
    """
    match = _PART.match(path.stem)
    if match is None or path.with_name(f"{match['root']}.json").exists():
        return path.stem, 0
    parts = [path.with_name(f"{match['root']}_{part}.json") for part in range(int(match["part"]))]
    if int(match["part"]) > 0 and not all(part.is_file() for part in parts):
        return path.stem, 0
    return match["root"], sum(len(_listed(read_json(part))) for part in parts)


def _details(path: Path, root: str) -> list[dict[str, Any]]:
    """The details of the results of a predictions file; none if they were not dumped."""
    absolute = path.resolve()
    if len(absolute.parts) < 4 or absolute.parts[-3] != "predictions":
        return []
    results = absolute.parents[2] / "results" / absolute.parts[-2] / f"{root}.json"
    if not results.is_file():
        return []
    log = read_json(results)
    return _listed(log.get("details") or []) if isinstance(log, dict) else []


def _leval(shard: Shard, raw: bytes) -> Iterator[LogRecord]:
    task = shard.path.name.split(".")[0]
    for number, line in enumerate(raw.split(b"\n")):
        if not line.strip():
            continue
        row = parse_json(line, where=shard.place(number))
        (name,) = [key for key in row if key.endswith("_pred")]
        item = {"item_id": f"{task}/{number}", "benchmark": task, "task": task, "prompt": as_text(row["query"]),
                "target": as_text(row["gt"])}  # fmt: skip
        rest = {key: value for key, value in row.items() if key not in ("query", "gt", name)}
        sample = {**rest, "harness": "opencompass", "item_id": item["item_id"], "run": name.removesuffix("_pred"),
                  "sample_index": 0, "task": task, "response": as_text(row[name])}  # fmt: skip
        yield LogRecord(number, item, sample)
