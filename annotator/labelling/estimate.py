"""What a labelling run would ask for and cost, without sending anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from annotator.budget import price_of
from annotator.fingerprint import fingerprint
from annotator.judges import Judge, StudentJudge, Usage
from annotator.judges.answers import AnswerForm
from annotator.judges.cascade import CascadeJudge
from annotator.labelling.cascading import Foresight
from annotator.labelling.chunking import asked_window, check_chunks
from annotator.labelling.rows import Window
from annotator.labelling.spending import votes_of
from annotator.labelling.token_count import token_count
from annotator.readers import Batch, SeenIds, Shard, read_records
from annotator.readers.tables import filled_shards
from annotator.taxonomy import Kind

if TYPE_CHECKING:
    from annotator.judges.cache import Answer, AnswerCache

_ROWS = 1024
_EVIDENCE_CHARS = 80
_MARK_TOKENS = 8  # of two messages, four each
_SAMPLED_ANSWERS = 1000
_SHORTEST_PREFIX, _PREFIX_STEP = 1024, 128  # tokens: what OpenAI's prompt cache holds


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would do. records = cached + to_ask + repeated; bad rows are no records.

    repeated: records whose very text is asked for already. With `chunks`, these three count chunks.
    input_tokens, output_tokens: of what would be sent, the schema of the answer among it; measured on `measured_on`
    answers that the cache holds of this judge. Without any, what a reasoning model thinks to itself is not counted.
    cost_usd: without any discount for the provider's prompt cache, so at most; None when no price is known.
    cost_with_prompt_cache_usd: if the provider serves the instructions, which all requests begin with, from its cache
    for all but the first, at its discount.
    by_student: records that the student of a cascade labels itself; then records = by_student + cached + to_ask +
    repeated. asked_low, asked_high: 95 % interval of the records that it does not, where it looked at a sample only;
    to_ask, tokens and cost are then scaled up from it.
    """

    records: int
    cached: int
    repeated: int
    to_ask: int
    bad: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    cost_with_prompt_cache_usd: float | None
    model: str
    by_student: int | None = None
    asked_low: int | None = None
    asked_high: int | None = None
    measured_on: int = 0

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
    chunks: int | None = None,
) -> Estimate:
    """Read the records, look into the cache, and add up tokens; the arguments are those of `label`.

    Raises:
        BadInput: as `label`.
    """
    from annotator.judges.cache import AnswerCache

    check_chunks(chunks, max_input_tokens, judge)
    asked = judge.asked if isinstance(judge, CascadeJudge) else judge
    message = None if isinstance(asked, StudentJudge) else asked.prompt.user
    records = _records(inputs, judge.kind, columns)
    identity = fingerprint(asked.identity)
    windows = (
        asked_window(shard, index, batch, identity, message=message, max_input_tokens=max_input_tokens, chunks=chunks)
        for shard, index, batch in records
    )
    if isinstance(judge, StudentJudge):
        sizes = [(len(window.ids), len(window.bad)) for window in windows]
        count, bad = (sum(size[which] for size in sizes) for which in (0, 1))
        return Estimate(count, 0, 0, count, bad, 0, 0, 0.0, 0.0, judge.name)
    cache = AnswerCache(cache_dir) if cache_dir is not None and Path(cache_dir).exists() else None
    forecast = _Forecast(judge, cache)
    for window in windows:
        forecast.look_at(window)
    if cache:
        cache.close()
    return forecast.estimate()


def _records(
    inputs: Sequence[str | Path], kind: Kind, columns: Mapping[str, str]
) -> Iterator[tuple[Shard, int, Batch]]:
    seen = SeenIds()
    for shard in filled_shards(inputs):
        batches = read_records(shard, kind=kind, columns=columns, batch_rows=_ROWS, seen=seen)
        yield from ((shard, index, batch) for index, batch in enumerate(batches))


@dataclass(slots=True)
class _Counts:
    """Of records that are put to the judge: all, those in the cache, those to ask for, and the tokens of the latter."""

    records: float = 0
    cached: float = 0
    to_ask: float = 0
    tokens: float = 0

    def plus(self, other: _Counts, times: float) -> _Counts:
        """The sum of these and of so many times the other's."""
        both = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return _Counts(*(mine + times * theirs for mine, theirs in both))


class _Forecast:
    """What a run of a judge would ask for, window by window."""

    def __init__(self, judge: Judge, cache: AnswerCache | None) -> None:
        self._judge, self._cache = judge, cache
        self._foresight = Foresight(judge) if isinstance(judge, CascadeJudge) else None
        self._records = self._bad = 0
        self._all, self._sampled = _Counts(), _Counts()
        self._form = AnswerForm(judge.taxonomy, judge.kind)
        self._fixed_tokens = token_count(judge.prompt.system) + token_count(orjson.dumps(self._form.schema).decode())
        self._fixed_tokens += _MARK_TOKENS
        self._output_of_cached: list[int] = []
        self._input_of_cached = self._count_of_cached = 0  # as the server counted, and as we do
        self._asked: set[str] = set()

    def look_at(self, window: Window) -> None:
        """Add the records of a window."""
        self._records += len((window.records or window).ids)
        self._bad += len(window.bad)
        if self._foresight is None:
            self._count(window, range(len(window.ids)), self._all)
            return
        everyone, sampled = self._foresight.unsure(window)
        self._count(window, everyone, self._all)
        self._count(window, sampled, self._sampled)

    def _count(self, window: Window, places: Sequence[int], counts: _Counts) -> None:
        keys = [window.keys[place] for place in places]
        answers = self._cache.get_many(keys) if self._cache else [None] * len(keys)
        counts.records += len(keys)
        for place, key, answer in zip(places, keys, answers, strict=True):
            if answer is not None:
                counts.cached += 1
                if len(self._output_of_cached) < _SAMPLED_ANSWERS:
                    self._learn(window.texts[place], answer)
            elif key not in self._asked:
                self._asked.add(key)
                counts.to_ask += 1
                counts.tokens += token_count(self._judge.prompt.user(window.texts[place]))

    def _learn(self, text: str, answer: Answer) -> None:
        requests, sent, _, received = answer.usage
        self._output_of_cached.append(received)
        if requests == votes_of(self._judge) and sent:  # with one more ask, the record went out twice
            self._input_of_cached += sent
            self._count_of_cached += requests * (self._fixed_tokens + token_count(self._judge.prompt.user(text)))

    def estimate(self) -> Estimate:
        """All of it, with what was sampled scaled up."""
        judge, foresight = self._judge, self._foresight
        total = self._all.plus(self._sampled, foresight.scale if foresight else 0)
        to_ask = round(total.to_ask)
        votes = votes_of(judge)
        # Answers in the cache were counted by the very server that is to be asked.
        ratio = self._input_of_cached / self._count_of_cached if self._count_of_cached else 1.0
        usage = Usage(
            input_tokens=round(ratio * votes * (total.tokens + to_ask * self._fixed_tokens)),
            output_tokens=round(to_ask * _answer_tokens(self._form, self._output_of_cached, votes)),
        )
        # Schema and instructions are cached in whole steps: on average half a step of them is not.
        shared = max(0, self._fixed_tokens - _MARK_TOKENS - _PREFIX_STEP // 2)
        shared = shared if shared >= _SHORTEST_PREFIX else 0
        discounted = replace(usage, cached_input_tokens=max(0, votes * to_ask - 1) * shared)
        price = price_of(judge.model)
        low, high = (foresight and foresight.asked_between()) or (None, None)
        return Estimate(
            records=self._records,
            cached=round(total.cached),
            repeated=round(total.records) - round(total.cached) - to_ask,
            to_ask=to_ask,
            bad=self._bad,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=None if price is None else price.cost(usage),
            cost_with_prompt_cache_usd=None if price is None else price.cost(discounted),
            model=judge.model,
            by_student=self._records - round(total.records) if foresight else None,
            asked_low=low,
            asked_high=high,
            measured_on=len(self._output_of_cached),
        )


def _answer_tokens(form: AnswerForm, seen: Sequence[int], votes: int) -> float:
    """Tokens of one record's answers: the mean of those that are in the cache, else of labels of middling length."""
    if seen:
        return sum(seen) / len(seen)
    example: dict[str, Any] = {"evidence": "word " * (_EVIDENCE_CHARS // 5)}
    for name, field in form.schema["properties"].items():
        values = sorted(map(str, (field.get("items") or field).get("enum", ())), key=len)
        if values:
            middle = values[len(values) // 2]
            example[name] = [middle, middle] if "items" in field else middle
    return votes * token_count(orjson.dumps(example).decode())
