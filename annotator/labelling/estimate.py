"""What a labelling run would ask for and cost, without sending anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from annotator.budget import price_of
from annotator.excerpt import token_estimate
from annotator.fingerprint import fingerprint
from annotator.judges import Judge, StudentJudge, Usage
from annotator.judges.answers import AnswerForm
from annotator.labelling.rows import make_window
from annotator.readers import SeenIds, read_records
from annotator.readers.tables import filled_shards

_ROWS = 1024
_EVIDENCE_CHARS = 80
_SAMPLED_ANSWERS = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would do. records = cached + to_ask + repeated; bad rows are no records.

    repeated: records whose very text is asked for already. input_tokens, output_tokens: of what would be sent.
    cost_usd: without any discount for the provider's prompt cache, so at most; None when no price is known.
    """

    records: int
    cached: int
    repeated: int
    to_ask: int
    bad: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    model: str

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return dataclasses.asdict(self)


def estimate(
    inputs: Sequence[str | Path],
    *,
    judge: Judge | StudentJudge,
    cache_dir: str | Path | None = "cache",
    columns: Mapping[str, str] = {},
    max_input_tokens: int | None = None,
) -> Estimate:
    """Read the records, look into the cache, and add up tokens; the arguments are those of `label`.

    Raises:
        BadInput: as `label`.
    """
    from annotator.judges.cache import AnswerCache

    asks = not isinstance(judge, StudentJudge)
    identity = fingerprint(judge.identity)
    cache = AnswerCache(cache_dir) if asks and cache_dir is not None and Path(cache_dir).exists() else None
    records = cached = bad = sent_tokens = 0
    output_of_cached: list[int] = []
    asked: set[str] = set()
    seen = SeenIds()
    for shard in filled_shards(inputs):
        for index, batch in enumerate(
            read_records(shard, kind=judge.kind, columns=columns, batch_rows=_ROWS, seen=seen)
        ):
            message = None if isinstance(judge, StudentJudge) else judge.prompt.user
            window = make_window(shard, index, batch, identity, message=message, max_input_tokens=max_input_tokens)
            records += len(window.ids)
            bad += len(window.bad)
            if isinstance(judge, StudentJudge):
                continue
            answers = cache.get_many(window.keys) if cache else [None] * len(window.keys)
            for key, text, answer in zip(window.keys, window.texts, answers, strict=True):
                if answer is not None:
                    cached += 1
                    if len(output_of_cached) < _SAMPLED_ANSWERS:
                        output_of_cached.append(answer.usage[3])
                elif key not in asked:
                    asked.add(key)
                    sent_tokens += token_estimate(judge.prompt.user(text))
    if cache:
        cache.close()
    if isinstance(judge, StudentJudge):
        return Estimate(records, 0, 0, records, bad, 0, 0, 0.0, judge.name)
    form = AnswerForm(judge.taxonomy, judge.kind)
    usage = Usage(
        input_tokens=sent_tokens + len(asked) * judge.fixed_tokens,
        output_tokens=len(asked) * _answer_tokens(form, output_of_cached),
    )
    price = price_of(judge.model)
    return Estimate(
        records=records,
        cached=cached,
        repeated=records - cached - len(asked),
        to_ask=len(asked),
        bad=bad,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost_usd=None if price is None else price.cost(usage),
        model=judge.model,
    )


def _answer_tokens(form: AnswerForm, seen: Sequence[int]) -> int:
    """Tokens of one answer: the mean of those that are in the cache, else of a label of middling length."""
    if seen:
        return round(sum(seen) / len(seen))
    example: dict[str, Any] = {"evidence": "x" * _EVIDENCE_CHARS}
    for name, field in form.schema["properties"].items():
        values = sorted(map(str, (field.get("items") or field).get("enum", ())), key=len)
        if values:
            middle = values[len(values) // 2]
            example[name] = [middle, middle] if "items" in field else middle
    return token_estimate(orjson.dumps(example).decode())
