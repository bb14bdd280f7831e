"""The student's half of a cascade: it labels what it is sure of, and foresees how much is left to ask."""

from __future__ import annotations

import math
from collections.abc import Sequence

from annotator.fingerprint import fingerprint
from annotator.judges.cache import Answer
from annotator.judges.cascade import CascadeJudge
from annotator.labelling.rows import Labelled, Window, keys_of
from annotator.labelling.tally import Tally

_LOOKED_AT = 20_000  # so many records are all put to the student in a forecast; a minute or less
_ONE_IN = 10  # of the records after those
_Z = 1.959964  # two-sided 95 %
_FIELDS = ("evidence", "background_condition", "task_type", "solving_operation", "output_constraint")


def settle_sure(window: Window, judge: CascadeJudge) -> None:
    """Give the records of a window that the student is sure of their outcome; the others stay open."""
    if not window.texts:
        return
    labels = judge.predict(window.texts)
    sure = labels["is_sure"].to_list()
    student, fields = judge.student, [*_FIELDS, *(("exercise", "quality") if judge.kind == "document" else ())]
    # Their keys are the student's own, so that no label of its is ever taken for a paid answer.
    keys = keys_of(window.texts, fingerprint(student.identity))
    for place, row in enumerate(labels.iter_rows(named=True)):
        if sure[place]:
            label = {name: row[name] for name in fields}
            answer = Answer(label, student.name, "student", (1, 0, 0, 0), row["confidence"])
            window.keys[place] = keys[place]
            window.outcomes[place] = Labelled(answer, cached=False, judge=student.name)


def division_note(tally: Tally, judge: CascadeJudge) -> str:
    """Who labelled how much, in one sentence."""
    sure = tally.models[judge.student.name]
    return (
        f"{sure:,} records labelled by {judge.student.name} (confidence {judge.below:g} or more), "
        f"{tally.records - sure:,} put to {judge.asked.name}."
    )


class Foresight:
    """Which records of a run would be put to the LLM: the student looks at the first 20,000, and at one in ten after.

    The tenth is chosen by the hash of the request, so the forecast does not depend on the order within it.
    """

    def __init__(self, judge: CascadeJudge) -> None:
        self._judge = judge
        self._records = self._first_asked = self._sampled = self._sampled_asked = 0

    def unsure(self, window: Window) -> tuple[list[int], list[int]]:
        """The places of records that the LLM would be asked for: among those all looked at, and among the sampled."""
        places = range(len(window.texts))
        border = max(0, min(len(places), _LOOKED_AT - self._records))
        self._records += len(places)
        sampled = [place for place in places[border:] if int(window.keys[place][:8], 16) % _ONE_IN == 0]
        first_asked, sampled_asked = (self._doubted(window, some) for some in (places[:border], sampled))
        self._first_asked += len(first_asked)
        self._sampled += len(sampled)
        self._sampled_asked += len(sampled_asked)
        return first_asked, sampled_asked

    def _doubted(self, window: Window, places: Sequence[int]) -> list[int]:
        if not places:
            return []
        sure = self._judge.predict([window.texts[place] for place in places])["is_sure"]
        return [place for place, is_sure in zip(places, sure, strict=True) if not is_sure]

    @property
    def scale(self) -> float:
        """How many records each sampled one stands for."""
        return max(0, self._records - _LOOKED_AT) / self._sampled if self._sampled else 0.0

    def asked_between(self) -> tuple[int, int] | None:
        """95 % interval of the number of records under the threshold (Wilson 1927); None when all were looked at."""
        if not self._sampled:
            return None
        unseen, tries = self._records - _LOOKED_AT, self._sampled
        share = self._sampled_asked / tries
        centre = share + _Z**2 / (2 * tries)
        reach = _Z * math.sqrt(share * (1 - share) / tries + _Z**2 / (4 * tries**2))
        low, high = ((centre + sign * reach) / (1 + _Z**2 / tries) for sign in (-1, 1))
        return self._first_asked + math.floor(unseen * low), self._first_asked + math.ceil(unseen * high)
