"""Inspect: `.eval` logs (a zip with one JSON file a sample) and `.json` logs."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import zstandard

from annotator.errors import BadInput
from annotator.readers.logs import LogRecord, parse_json, read_json
from annotator.readers.shards import Shard
from annotator.readers.values import as_json, as_text, flatten

_MEMBER_BYTES = 1 << 30
_ZSTD_METHOD = 93  # Python's zipfile knows it from 3.14 on
_ZIP_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    zstandard.ZstdError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,  # an encrypted member, or a compression that zipfile does not know
)
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_SAMPLE_NAME = re.compile(r"^samples/(?P<id>.+)_epoch_(?P<epoch>\d+)\.json$")


def records(shard: Shard) -> Iterator[LogRecord]:
    """The samples of one log, by id and epoch. Nothing is unpacked to disk; a member of over 1 GB is refused."""
    with shard.path.open("rb") as opened:
        zipped = opened.read(2) == b"PK"
    if zipped or shard.path.name.endswith(".eval"):
        yield from _zip_records(shard)
        return
    log = read_json(shard.path)
    shared = _shared(log)
    for row, sample in enumerate(log.get("samples") or []):
        yield _record(row, sample, shared, log)


def _zip_records(shard: Shard) -> Iterator[LogRecord]:
    where = str(shard.path)
    try:
        with shard.path.open("rb") as opened, zipfile.ZipFile(opened) as archive:
            members = {info.filename: info for info in archive.infolist()}
            start = members.get("header.json") or members.get("_journal/start.json")  # the latter in a crashed run
            if start is None:
                raise BadInput("holds no header.json", where=where, remedy="Is it an Inspect log?")
            header = parse_json(_member(archive, opened, start, where), where=f"{where}, {start.filename}")
            shared = _shared(header)
            names = sorted((name for name in members if name.startswith("samples/")), key=_sample_order)
            for row, name in enumerate(names):
                raw = _member(archive, opened, members[name], where)
                yield _record(row, parse_json(raw, where=f"{where}, {name}"), shared, header)
    except _ZIP_FAULTS as error:
        raise BadInput(
            f"cannot be read as a zip ({error})", where=where, remedy="It may be empty or cut short; copy it again."
        ) from None


def _sample_order(name: str) -> tuple[Any, ...]:
    match = _SAMPLE_NAME.match(name)
    if match is None:
        return (2, name)
    sample_id = match["id"]
    number = (0, int(sample_id), "") if sample_id.isdecimal() else (1, 0, sample_id)
    return (*number, int(match["epoch"]))


def _member(archive: zipfile.ZipFile, opened: BinaryIO, info: zipfile.ZipInfo, where: str) -> bytes:
    """The bytes of one member, whatever it is compressed with, at most 1 GB of them."""
    if info.file_size > _MEMBER_BYTES:
        what = f"member {info.filename} says it holds {info.file_size >> 20} MB"
        raise BadInput(what, where=where, remedy="Members of over 1 GB are not read; is this log genuine?")
    if info.compress_type != _ZSTD_METHOD:
        return archive.read(info)  # stops at the size that the directory states, and checks the CRC
    opened.seek(info.header_offset)
    fields = _LOCAL_HEADER.unpack(opened.read(_LOCAL_HEADER.size))
    opened.seek(info.header_offset + _LOCAL_HEADER.size + fields[-2] + fields[-1])  # behind name and extra field
    packed = opened.read(info.compress_size)
    with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
        plain = reader.read(info.file_size + 1)
    if len(plain) != info.file_size or zlib.crc32(plain) != info.CRC:
        raise BadInput(f"member {info.filename} is damaged", where=where, remedy="Copy the log again.")
    return plain


def _shared(log: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that are the same for all samples of a log."""
    run = log["eval"]
    plan = (log.get("plan") or {}).get("config") or {}
    settings = {**(run.get("model_generate_config") or {}), **plan}
    return {
        "harness": "inspect",
        "harness_version": (run.get("packages") or {}).get("inspect_ai"),
        "run": run.get("model"),
        "task": run.get("task"),
        "task_version": run.get("task_version"),
        "max_tokens": settings.get("max_tokens"),
        "stop": settings.get("stop_seqs"),
        "temperature": settings.get("temperature"),
        "top_p": settings.get("top_p"),
        "seed": settings.get("seed"),
        "model_args": as_json(run["model_args"]) if run.get("model_args") else None,
        "task_args": as_json(run["task_args"]) if run.get("task_args") else None,
        "log_status": log.get("status"),
    }


def _record(row: int, sample: Mapping[str, Any], shared: Mapping[str, Any], log: Mapping[str, Any]) -> LogRecord:
    attachments = sample.get("attachments") or {}
    output = sample.get("output") or {}
    choice = (output.get("choices") or [{}])[0]
    usage = output.get("usage") or {}
    messages = _attached(sample.get("messages") or [], attachments)
    task = shared["task"]
    item = {
        "item_id": f"{task}/{sample['id']}",
        "benchmark": task,
        "task": task,
        "prompt": _question(_attached(sample.get("input"), attachments)),
        "target": as_text(sample.get("target")),
        "choices": sample.get("choices"),
        **{f"metadata.{name}": value for name, value in flatten(sample.get("metadata") or {}).items()},
    }
    scores = _scores(sample, log)
    first = next(iter(scores.values()), {})
    content = (choice.get("message") or {}).get("content")
    answer = _visible(content) if content is not None else output.get("completion") or None
    record = {
        **shared,
        "item_id": item["item_id"],
        "sample_index": int(sample.get("epoch") or 1) - 1,
        "response": _attached(answer, attachments),
        "reasoning": _attached(_reasoning(content), attachments),
        "finish_reason": choice.get("stop_reason"),
        "prompt": as_json(_before_answer(messages)) if messages else item["prompt"],
        "parsed_answer": as_text(first.get("answer")),
        "explanation": first.get("explanation"),
        "score_metadata": as_json(first["metadata"]) if first.get("metadata") else None,
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "reasoning_tokens": usage.get("reasoning_tokens"),
        "error": (sample.get("error") or {}).get("message") or output.get("error"),
        "limit": (sample.get("limit") or {}).get("type"),
        "messages": as_json(messages),
        "total_time_s": sample.get("total_time"),
        "working_time_s": sample.get("working_time"),
    }
    values = {name: value for scorer, score in scores.items() for name, value in _values(scorer, score.get("value"))}
    return LogRecord(row, item, record, values)


def _scores(sample: Mapping[str, Any], log: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Scorer -> its score, in the order in which the log lists its scorers. Version 1 logs have one, `score`."""
    scores = sample.get("scores") or {}
    if not scores and isinstance(sample.get("score"), dict):
        scores = {"score": sample["score"]}
    listed = [scorer.get("name") for scorer in (log.get("results") or {}).get("scores") or []]
    order = {name: place for place, name in reversed(list(enumerate(listed)))}
    return dict(sorted(scores.items(), key=lambda pair: order.get(pair[0], len(listed))))


def _values(scorer: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{scorer}/{name}", inner
    else:
        yield scorer, value


def _question(given: Any) -> str | None:
    """The text of a sample's input: a string, or the user's part of a conversation."""
    if isinstance(given, list):
        asked = [message for message in given if message.get("role") == "user"] or given
        return "\n\n".join(_visible(message.get("content")) or "" for message in asked)
    return as_text(given)


def _before_answer(messages: list[Any]) -> list[dict[str, Any]]:
    """The conversation up to the last answer of the model, without ids."""
    last = max((at for at, message in enumerate(messages) if message.get("role") == "assistant"), default=len(messages))
    return [{"role": message.get("role"), "content": message.get("content")} for message in messages[:last]]


def _visible(content: Any) -> str | None:
    """The text of a message: its text parts, without reasoning."""
    if not isinstance(content, list):
        return as_text(content)
    texts = [part.get("text") or "" for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "\n".join(texts) if texts else ""


def _reasoning(content: Any) -> str | None:
    if not isinstance(content, list):
        return None
    parts = [part.get("reasoning") or "" for part in content if isinstance(part, dict)]
    return "\n".join(part for part in parts if part) or None


def _attached(value: Any, attachments: Mapping[str, str]) -> Any:
    """A value with its "attachment://HASH" texts put back."""
    if isinstance(value, str) and value.startswith("attachment://"):
        return attachments.get(value.removeprefix("attachment://"), value)
    if isinstance(value, list):
        return [_attached(inner, attachments) for inner in value]
    if isinstance(value, dict):
        return {name: _attached(inner, attachments) for name, inner in value.items()}
    return value
