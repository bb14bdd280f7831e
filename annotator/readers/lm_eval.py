"""lm-evaluation-harness: `samples_TASK_DATE.jsonl`, a row a document and filter, and `results_DATE.json` beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from annotator.errors import BadInput
from annotator.readers.columns import ITEMS
from annotator.readers.compressed import chunks
from annotator.readers.logs import LogRecord, parse_json
from annotator.readers.records import option_name
from annotator.readers.shards import Shard
from annotator.readers.tables import stream_rows
from annotator.readers.values import as_float, as_json, as_text, flatten

_NAME = re.compile(r"^samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d\-:.]+)\.jsonl")
_FIXED = {
    "doc_id",
    "doc",
    "target",
    "arguments",
    "resps",
    "filtered_resps",
    "filter",
    "metrics",
    "doc_hash",
    "prompt_hash",
    "target_hash",
    "schema_version",
}

_PASSAGES = ("passage", "context", "article", "story", "support")  # what a question is about, where it stands apart


def records(shard: Shard) -> Iterator[LogRecord]:
    """The samples of one log.

    A generated answer gives one record for each repeat (`resps[0]`), a multiple-choice question one record whose
    response is the likeliest continuation. The item's prompt is the question field of its document if it has one
    (few-shot examples are no part of the item), else the prompt that was sent.
    """
    named = _NAME.match(shard.path.name)
    results = _results(shard.path, named)
    task = named["task"] if named else _only_task(results)
    shared = _shared(results, task, shard.path)
    functions = _filter_functions(results, task)
    for rows in stream_rows(shard):
        if rows.bad:
            row, fault = rows.bad[0]
            raise BadInput(fault, where=shard.place(row), remedy="The log may be cut short; copy it again.")
        for number, row in zip(rows.numbers, rows.values):
            yield from _row_records(number, row, task, shared, functions)


def _row_records(
    number: int,
    row: Mapping[str, Any],
    task: str | None,
    shared: Mapping[str, Any],
    functions: Mapping[Any, Sequence[str]],
) -> Iterator[LogRecord]:
    requests = _requests(row["arguments"])
    prompt = as_text(requests[0][0])
    settings = next((part for part in requests[0][1:] if isinstance(part, dict)), {})
    options = None if settings or len(requests) < 2 else [as_text(request[1]) or "" for request in requests]
    item = _item(row, task, prompt, options)
    scores = {
        name: row[name] for name in row.get("metrics") or [key for key in row if key not in _FIXED] if name in row
    }
    repeats = row["resps"][0] if row["resps"] else []
    filtered = row.get("filtered_resps") or []
    parsed = filtered[0] if filtered else None
    sample = {
        **shared,
        "item_id": item["item_id"],
        "prompt": prompt,
        "target": as_text(row.get("target")),
        "filter": row.get("filter"),
        "max_tokens": settings.get("max_gen_toks", settings.get("max_tokens")),
        "stop": settings.get("until"),
        "temperature": settings.get("temperature"),
        "top_p": settings.get("top_p"),
        "do_sample": settings.get("do_sample"),
        "seed": settings.get("seed"),
        "doc_hash": row.get("doc_hash"),
        "prompt_hash": row.get("prompt_hash"),
        "target_hash": row.get("target_hash"),
    }
    if not settings:  # likelihoods: one request an option
        yield LogRecord(number, item, {**sample, "sample_index": 0, **_likelihoods(row, options)}, scores)
        return
    answers = [as_text(answer) for answer in repeats] or [None]
    for index, response in enumerate(answers):
        own, mine, level = _of_repeat(index, len(answers), parsed, scores, functions.get(row.get("filter")))
        repeat = {"sample_index": index, "response": response, "parsed_answer": as_text(own), "score_level": level}
        yield LogRecord(number, item, {**sample, **repeat}, mine)


def _of_repeat(
    index: int, repeats: int, parsed: Any, scores: Mapping[str, Any], functions: Sequence[str] | None
) -> tuple[Any, dict[str, Any], str]:
    """What a filter and the metrics say of one repeat: its extracted answer, its scores, and whose scores they are.

    Lists of as many are one each. A filter that takes the first answer scores that one and no other. Any other (a
    majority vote, pass@k, a filter whose definition is not known) has one score that stands for the whole item.
    """
    if repeats == 1:
        return parsed[0] if isinstance(parsed, list) and len(parsed) == 1 else parsed, dict(scores), "sample"
    own = parsed[index] if isinstance(parsed, list) and len(parsed) == repeats else parsed
    if scores and all(isinstance(value, list) and len(value) == repeats for value in scores.values()):
        return own, {name: value[index] for name, value in scores.items()}, "sample"
    if functions and functions[-1] == "take_first" and "majority_vote" not in functions:
        return (own, dict(scores), "sample") if index == 0 else (None, {}, "sample")
    return own, dict(scores), "item"


def _requests(arguments: Any) -> list[list[Any]]:
    """The arguments of each request: as the log writes them, {"gen_args_0": {"arg_0": ...}}, or as plain lists."""
    requests = list(arguments.values()) if isinstance(arguments, dict) else list(arguments)
    return [list(request.values()) if isinstance(request, dict) else list(request) for request in requests]


def _item(row: Mapping[str, Any], task: str | None, prompt: str | None, options: list[str] | None) -> dict[str, Any]:
    document = row["doc"] if isinstance(row["doc"], dict) else {"doc": row["doc"]}
    question = _first(document, ITEMS["prompt"], str)
    if question is not None:
        passages = [document[name] for name in _PASSAGES if isinstance(document.get(name), str)]
        question = "\n\n".join([*passages, question])
    choices = _first(document, ITEMS["choices"], list | dict)
    extras = {f"doc.{name}": value for name, value in flatten(document).items()}
    return {
        "item_id": f"{task}/{row['doc_id']}" if task else str(row["doc_id"]),
        "benchmark": task,
        "task": document.get("subject", task),
        "prompt": question or prompt,
        "target": _option(as_text(row.get("target")), options),
        "choices": choices or options,
        **extras,
    }


def _option(target: str | None, options: Sequence[str] | None) -> str | None:
    """A multiple-choice target by the letter that `item_text` gives it; the harness writes its 0-based index."""
    if options and target is not None and target.isdecimal() and int(target) < len(options):
        return option_name(int(target))
    return target


def _first(document: Mapping[str, Any], names: Sequence[str], kind: Any) -> Any:
    return next((document[name] for name in names if isinstance(document.get(name), kind)), None)


def _likelihoods(row: Mapping[str, Any], options: list[str] | None) -> dict[str, Any]:
    """What a multiple-choice request says: the log-likelihood of each option and whether it was greedy."""
    pairs = [response[0] if isinstance(response, list) and response else None for response in row["resps"]]
    values = [as_float(pair[0]) if isinstance(pair, list | tuple) and pair else as_float(pair) for pair in pairs]
    found: dict[str, Any] = {"logprobs": as_json(values), "score_level": "sample"}
    known = [value for value in values if value is not None]
    if options and len(known) == len(options):
        best = max(range(len(known)), key=known.__getitem__)
        found |= {"response": options[best], "parsed_answer": str(best)}
    return found


# the results file ----------------------------------------------------------------------------------------------------


def _results(path: Path, named: re.Match[str] | None) -> dict[str, Any]:
    """The results file of a log: that of the same date, else the newest in its folder."""
    try:
        beside = sorted(path.parent.glob("results_*.json"))
    except OSError:
        return {}
    same = [one for one in beside if named and named["date"] in one.name]
    for candidate in same or beside[-1:]:
        value = parse_json(b"".join(chunks(candidate)), where=str(candidate))
        if isinstance(value, dict):
            return value
    return {}


def _only_task(results: Mapping[str, Any]) -> str | None:
    tasks = list(results.get("configs") or {})
    return tasks[0] if len(tasks) == 1 else None


def _filter_functions(results: Mapping[str, Any], task: str | None) -> dict[Any, list[str]]:
    """Filter -> the names of its functions in order; a task without filters takes the first answer, as "none"."""
    config = (results.get("configs") or {}).get(task)
    if config is None:
        return {}
    return {
        one.get("name"): [step.get("function") for step in one.get("filter") or []]
        for one in config.get("filter_list") or [{"name": "none", "filter": [{"function": "take_first"}]}]
    }


def _shared(results: Mapping[str, Any], task: str | None, path: Path) -> dict[str, Any]:
    """The columns that are the same for all samples of a log."""
    config = results.get("config") or {}
    task_config = (results.get("configs") or {}).get(task) or {}

    def of_task(section: str) -> Any:
        return (results.get(section) or {}).get(task)

    shared = {
        "harness": "lm_eval",
        "harness_version": results.get("lm_eval_version") or results.get("git_hash"),
        "task": task,
        "task_version": of_task("versions"),
        "task_hash": of_task("task_hashes"),
        "num_fewshot": of_task("n-shot"),
        "context_length": results.get("max_length"),
        "system_instruction_sha": results.get("system_instruction_sha"),
        "chat_template_sha": results.get("chat_template_sha"),
        "fewshot_as_multiturn": results.get("fewshot_as_multiturn"),
        "eot_token_id": results.get("eot_token_id"),
        "model_args": as_text(config.get("model_args")),
        "git_hash": results.get("git_hash"),
        "output_type": task_config.get("output_type"),
        "gen_kwargs": config.get("gen_kwargs"),
        "model_revision": config.get("model_revision"),
        "model_dtype": config.get("model_dtype"),
        "random_seed": config.get("random_seed"),
        "fewshot_seed": config.get("fewshot_seed"),
    }
    for name in ("bos", "eos", "pad"):
        token, token_id = (results.get(f"tokenizer_{name}_token") or [None, None])[:2]
        shared |= {f"{name}_token": token, f"{name}_token_id": token_id}
    run = results.get("model_name") or config.get("model")
    if not run and "__" in path.parent.name:  # the harness writes into a folder named ORGANISATION__MODEL
        run = path.parent.name
    return shared | ({"run": run} if run else {})
