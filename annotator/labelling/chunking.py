"""Long records in several chunks: each is labelled by itself, and the labels are merged to that of the record."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from annotator.errors import BadInput
from annotator.excerpt import consecutive
from annotator.judges import Judge, StudentJudge
from annotator.judges.cache import Answer
from annotator.judges.cascade import CascadeJudge
from annotator.labelling.rows import Failure, Labelled, Window, keys_of, make_window
from annotator.readers import Batch, Shard
from annotator.taxonomy import MAX_OPERATIONS, Taxonomy


def check_chunks(chunks: int | None, max_input_tokens: int | None, judge: Judge | StudentJudge) -> None:
    """Raise BadInput unless records can be put to the judge in so many chunks (None = they are not)."""
    if chunks is None:
        return
    if max_input_tokens is None or chunks < 2:
        remedy = "Give 2 or more, and --max-input-tokens for the size of one."
        raise BadInput("chunks need a number and a size", where="--chunks", remedy=remedy)
    if isinstance(judge, StudentJudge | CascadeJudge):
        remedy = "A student reads a document whole: leave --chunks out, or ask an LLM alone."
        raise BadInput(f"{judge.name} does not label chunks", where="--chunks", remedy=remedy)


def asked_window(
    shard: Shard,
    index: int,
    batch: Batch,
    identity: str,
    *,
    message: Callable[[str], str] | None,
    max_input_tokens: int | None,
    chunks: int | None,
) -> Window:
    """The window of a batch of records as a judge is asked about them: `make_window`, or one place for each chunk.

    Chunks lie one after another in the window; its `records` is then the window of the records themselves.
    """
    if chunks is None or max_input_tokens is None:
        return make_window(shard, index, batch, identity, message=message, max_input_tokens=max_input_tokens)
    records = make_window(shard, index, batch, identity, message=message)
    texts: list[str] = []
    owners: list[int] = []
    for place, text in enumerate(records.texts):
        parts, records.truncated[place] = consecutive(text, max_input_tokens, chunks)
        texts += parts
        owners += [place] * len(parts)
    keys = keys_of(texts if message is None else [message(text) for text in texts], identity)
    window = Window(
        index=index,
        shard=shard,
        ids=[records.ids[place] for place in owners],
        rows=[records.rows[place] for place in owners],
        texts=texts,
        truncated=[records.truncated[place] for place in owners],
        keys=keys,
        bad=records.bad,
        outcomes=[None] * len(texts),
        missing=len(texts),
        records=records,
        owners=owners,
    )
    for place in range(len(records.ids)):
        of_record = [keys[at] for at in _chunks_of(window, place)]
        records.keys[place] = of_record[0] if len(of_record) == 1 else _joint_key(of_record)
    return window


def record_outcome(window: Window, place: int, taxonomy: Taxonomy) -> Labelled | Failure | None:
    """What becomes of the record at a place whose outcome has just come; None while other chunks of it are open."""
    if window.records is None:
        return window.outcomes[place]
    owner = window.owners[place]
    chunks = _chunks_of(window, owner)
    outcomes = [outcome for at in chunks if (outcome := window.outcomes[at]) is not None]
    if len(outcomes) < len(chunks):
        return None
    merged = _merged(outcomes, [len(window.texts[at]) for at in chunks], taxonomy)
    window.records.outcomes[owner] = merged
    return merged


def _chunks_of(window: Window, owner: int) -> range:
    return range(bisect_left(window.owners, owner), bisect_right(window.owners, owner))


def _joint_key(keys: Sequence[str]) -> str:
    return hashlib.sha256("".join(keys).encode()).hexdigest()


def _merged(outcomes: Sequence[Labelled | Failure], weights: Sequence[int], taxonomy: Taxonomy) -> Labelled | Failure:
    """One failed chunk fails the record; the answers to the others stay in the cache, and a retry asks for it alone."""
    if len(outcomes) == 1:
        return outcomes[0]
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Failure):
            usage = [sum(counts) for counts in zip(*(_usage(each) for each in outcomes), strict=True)]
            detail = f"chunk {number} of {len(outcomes)}: {outcome.detail}"
            return Failure(outcome.reason, detail, outcome.http_status, usage)
    answers = [outcome.answer for outcome in outcomes if isinstance(outcome, Labelled)]
    known = [answer.confidence for answer in answers if answer.confidence is not None]
    confidence = None
    if len(known) == len(answers):
        confidence = sum(c * weight for c, weight in zip(known, weights, strict=True)) / sum(weights)
    answer = Answer(
        merge_chunks([answer.label for answer in answers], weights, taxonomy),
        "+".join(sorted({answer.model for answer in answers})),
        "+".join(sorted({answer.strategy for answer in answers})),
        [sum(counts) for counts in zip(*(answer.usage for answer in answers), strict=True)],
        confidence,
    )
    return Labelled(answer, cached=all(isinstance(outcome, Labelled) and outcome.cached for outcome in outcomes))


def _usage(outcome: Labelled | Failure) -> Sequence[int]:
    if isinstance(outcome, Failure):
        return outcome.usage
    return (0, 0, 0, 0) if outcome.cached else outcome.answer.usage


def merge_chunks(labels: Sequence[dict[str, Any]], weights: Sequence[int], taxonomy: Taxonomy) -> dict[str, Any]:
    """The label of a record, given those of its chunks in their order.

    Args:
        labels: all with the same fields. weights: lengths of the chunks, in characters.

    A field with one value gets the value of the chunks that are longest together; of equals, the one that comes first.
    Operations are those named by chunks that are together at least half as long as all, the best supported first and at
    most three; if there is none, the best supported one. Grades are weighted medians, the lower of two. The evidence is
    that of the chunk that agrees with the merged label in most fields, the first of several.
    """
    merged: dict[str, Any] = {}
    for name, first in labels[0].items():
        values = [label[name] for label in labels]
        if name == "evidence":
            merged[name] = ""
        elif isinstance(first, list):
            merged[name] = _supported(values, weights)
        elif name == "quality":
            merged[name] = _median(values, weights, values)
        elif name == "exercise":
            levels = taxonomy.grade_values("exercise")
            merged[name] = _median(values, weights, [levels.index(value) for value in values])
        else:
            merged[name] = _longest(values, weights)
    if "evidence" in merged:
        agreeing = [sum(label[name] == merged[name] for name in merged if name != "evidence") for label in labels]
        merged["evidence"] = labels[agreeing.index(max(agreeing))]["evidence"]
    return merged


def _longest(values: Sequence[Hashable], weights: Sequence[int]) -> Any:
    support: dict[Any, int] = defaultdict(int)  # keeps the order of first chunks, and max() takes the first of equals
    for value, weight in zip(values, weights, strict=True):
        support[value] += weight
    return max(support, key=support.__getitem__)


def _supported(lists: Sequence[list[Any]], weights: Sequence[int]) -> list[Any]:
    support: dict[Any, int] = defaultdict(int)
    for members, weight in zip(lists, weights, strict=True):
        for member in members:
            support[member] += weight
    best_first = sorted(support, key=lambda member: -support[member])
    return [member for member in best_first if 2 * support[member] >= sum(weights)][:MAX_OPERATIONS] or best_first[:1]


def _median(values: Sequence[Any], weights: Sequence[int], ranks: Sequence[int]) -> Any:
    below = 0
    in_order = sorted(zip(ranks, weights, values, strict=True), key=lambda graded: graded[0])
    for _, weight, value in in_order:
        below += weight
        if 2 * below >= sum(weights):
            return value
    raise AssertionError("weights are positive, so some value reaches half of them")
