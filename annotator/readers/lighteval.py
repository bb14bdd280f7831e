"""lighteval: `details_TASK_DATE.parquet`, with `results_DATE.json` where the harness puts it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from annotator.readers.logs import LogRecord, read_json
from annotator.readers.shards import Shard
from annotator.readers.tables import stream_rows
from annotator.readers.values import as_json, as_text

_NAME = re.compile(r"^details_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d\-:.]+)\.parquet$")


def records(shard: Shard) -> Iterator[LogRecord]:
    """The samples of one log: one record for each of `model_response.text`, or one for a question of likelihoods."""
    named = _NAME.match(shard.path.name)
    shared = _shared(shard.path, named)
    for rows in stream_rows(shard, batch_rows=512):
        for number, row in zip(rows.numbers, rows.values):
            yield from _row_records(number, row, shared, named["task"] if named else None)


def _row_records(
    number: int, row: Mapping[str, Any], shared: Mapping[str, Any], named_task: str | None
) -> Iterator[LogRecord]:
    doc, response, scores = row["doc"], row["model_response"], row.get("metric") or row.get("metrics") or {}
    task = doc.get("task_name") or named_task or "lighteval"
    specific = {name: value for name, value in (doc.get("specific") or {}).items() if value is not None}
    item = _item(number, doc, task, specific)
    inputs = response.get("input_tokens") or []
    truncated = response.get("truncated_tokens_count")
    sample = {
        **shared,
        "item_id": item["item_id"],
        "task": task,
        "num_fewshot": len(doc.get("fewshot_samples") or []) or None,
        "prompt": _prompt(response.get("input")) or doc.get("query"),
        "max_tokens": doc.get("generation_size") or shared.get("max_tokens"),
        "stop": doc.get("stop_sequences"),
        "parsed_answer": as_text(specific.get("extracted_predictions")),
        "input_tokens": len(inputs) or None,
        "input_token_ids": inputs,
        "truncated_input_tokens": truncated if truncated is not None and truncated >= 0 else None,  # -1: not known
        "generation_grammar": doc.get("generation_grammar"),
    }
    present = {name: value for name, value in scores.items() if value is not None}
    texts = response.get("text") or []
    if not texts:
        yield LogRecord(number, item, {**sample, "sample_index": 0, **_likeliest(doc, response)}, present)
        return
    outputs, cleaned = response.get("output_tokens") or [], response.get("text_post_processed") or []
    reasonings = response.get("reasonings") or []
    for index, text in enumerate(texts):
        tokens = outputs[index] if index < len(outputs) else []
        own = {
            "sample_index": index,
            "response": text,
            "reasoning": reasonings[index] if index < len(reasonings) else None,
            "output_tokens": len(tokens) or None,
            "output_token_ids": tokens,
            "score_level": "sample" if len(texts) == 1 else "item",
        }
        if sample["parsed_answer"] is None and index < len(cleaned):
            own["parsed_answer"] = cleaned[index]
        yield LogRecord(number, item, {**sample, **own}, present)


def _item(number: int, doc: Mapping[str, Any], task: str, specific: Mapping[str, Any]) -> dict[str, Any]:
    choices = doc.get("choices") or []
    gold = doc.get("gold_index")
    golds = [index for index in (gold if isinstance(gold, list) else [gold]) if isinstance(index, int)]
    answers = [choices[index] for index in golds if 0 <= index < len(choices)]
    own_id = doc.get("id")
    return {
        "item_id": f"{task}/{own_id}" if own_id not in (None, "") else f"{task}/{number}",
        "benchmark": task,
        "task": task,
        "prompt": as_text(doc.get("original_query") or doc.get("query")),
        "target": as_text(answers),
        "choices": choices if len(choices) > max(1, len(answers)) else None,  # else they are only the accepted answers
        **{f"specific.{name}": value for name, value in specific.items() if not name.startswith("extracted_")},
    }


def _prompt(given: Any) -> str | None:
    return as_json(given) if isinstance(given, list | dict) else given


def _likeliest(doc: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    """What a question of likelihoods says: the log-probability of each choice, and the best choice."""
    values, choices = response.get("logprobs") or [], doc.get("choices") or []
    found: dict[str, Any] = {
        "logprobs": as_json(values),
        "argmax_logits_eq_gold": as_json(response.get("argmax_logits_eq_gold")),
    }
    if values and len(values) == len(choices):
        best = max(range(len(values)), key=values.__getitem__)
        found |= {"response": choices[best], "parsed_answer": choices[best]}
    return found


# the results file ----------------------------------------------------------------------------------------------------


def _shared(path: Path, named: re.Match[str] | None) -> dict[str, Any]:
    results = _results(path, named)
    general = results.get("config_general") or {}
    model = general.get("model_config") or {}
    generation = (model.get("generation_parameters") if isinstance(model, dict) else None) or {}
    task = (results.get("config_tasks") or {}).get(named["task"]) if named else None
    shared = {
        "harness": "lighteval",
        "harness_version": general.get("lighteval_sha"),
        "task_version": (task or {}).get("version"),
        "temperature": generation.get("temperature"),
        "top_p": generation.get("top_p"),
        "seed": generation.get("seed"),
        "max_tokens": generation.get("max_new_tokens"),
        "context_length": model.get("max_model_length") or model.get("max_length") if isinstance(model, dict) else None,
        "model_args": as_json(model) if model else None,
    }
    run = general.get("model_name") or (model.get("model_name") if isinstance(model, dict) else None) or _folder(path)
    return shared | ({"run": run} if run else {})


def _results(path: Path, named: re.Match[str] | None) -> dict[str, Any]:
    """The results of the same date: beside the details, or OUT/results/MODEL for OUT/details/MODEL/DATE."""
    if named is None:
        return {}
    name = f"results_{named['date']}.json"
    folders = [path.parent]
    absolute = path.resolve()
    if "details" in absolute.parts:
        at = len(absolute.parts) - 1 - absolute.parts[::-1].index("details")
        folders.append(Path(*absolute.parts[:at], "results", *absolute.parts[at + 1 : -2]))
    for folder in folders:
        if (folder / name).is_file():
            value = read_json(folder / name)
            return value if isinstance(value, dict) else {}
    return {}


def _folder(path: Path) -> str | None:
    """The model by the harness's folders: details/ORGANISATION/MODEL/DATE."""
    parts = path.resolve().parts[:-1]
    if "details" not in parts:
        return None
    at = len(parts) - 1 - parts[::-1].index("details")
    return "/".join(parts[at + 1 : -1]) or None
