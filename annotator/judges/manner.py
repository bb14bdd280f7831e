"""How an endpoint wants to be asked: learnt from its refusals and its answers, and remembered across runs."""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from annotator.errors import BadInput
from annotator.judges import STRATEGIES
from annotator.judges.faults import Fault

# Words by which endpoints say that they do not know our way of asking for a form, or a sampling field.
_FORM_REFUSED = re.compile(
    r"response_format|json_schema|json_object|\b(?:structured|strict|tools?|tool_choice|functions?|grammar)\b", re.I
)
_FIELD_UNKNOWN = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|extra|not permitted|not allowed|not enabled|instead"
    r"|invalid (?:field|param|arg)",
    re.I,
)
_FIELDS = {name: name for name in ("temperature", "seed", "logprobs", "max_tokens")}
_FIELDS |= {"max_completion_tokens": "max_tokens"}
# A strategy under which this many answers were invalid, and none valid, is not enforced by the endpoint.
_INVALID_BEFORE_STEP = 6
_MEMORY_FORM = 1
# Servers are upgraded: after this long the best strategy is tried again, which costs one refused request.
_REMEMBERED_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Manner:
    """How requests are written.

    strategy: one of STRATEGIES. dropped: optional fields that the endpoint refuses and that are therefore not sent.
    tokens_field: "max_completion_tokens" or "max_tokens", whichever the endpoint knows.
    """

    strategy: str = STRATEGIES[0]
    dropped: frozenset[str] = frozenset()
    tokens_field: str = "max_completion_tokens"


class Learner:
    """Finds out the manner of one endpoint and model.

    Args:
        strategy: one of STRATEGIES to keep to it, or "auto".
        memory: where the manner of an earlier run may be found, and this one's is kept; None = nowhere.

    Attributes:
        manner: as requests should be written now.
    """

    def __init__(self, strategy: str, memory: Memory | None) -> None:
        self._first = Manner(STRATEGIES[0] if strategy == "auto" else strategy)
        self._fixed, self._memory = strategy != "auto", memory
        self._recalled = memory.recall() if memory else None
        self.manner = self._remembered() or self._first
        self._outcomes: Counter[tuple[str, bool]] = Counter()  # (strategy, valid) -> answers

    def heard(self, strategy: str, *, valid: bool) -> None:
        """Count an answer; leave a strategy that the endpoint accepts but does not enforce."""
        self._outcomes[strategy, valid] += 1
        if strategy != self.manner.strategy:
            return
        if valid:
            # A strategy that the user chose says nothing of the best one; and a memory is not renewed, so that it ages.
            news = self._outcomes[strategy, True] == 1 and not self._fixed and self.manner != self._recalled
            if news and self._memory:
                self._memory.keep(self.manner)
        elif not self._outcomes[strategy, True] and self._outcomes[strategy, False] >= _INVALID_BEFORE_STEP:
            _ = self._forget() or self._step_down()

    def adapt(self, sent: Manner, fault: Fault) -> bool:
        """Whether a request that was refused should be sent again in another manner than `sent`."""
        if fault.reason not in ("rejected", "forbidden", "server_error"):
            return False
        if sent != self.manner:
            return True  # refused in a manner that was given up in the meantime
        if self._outcomes[sent.strategy, True]:
            return False
        form = fault.reason != "forbidden" and _FORM_REFUSED.search(fault.detail) is not None
        field = fault.reason != "server_error" and _FIELD_UNKNOWN.search(fault.detail) is not None
        if (form or field) and self._forget():
            return True
        if field:
            for word, name in _FIELDS.items():
                if re.search(rf"\b{word}\b", fault.detail, re.I) and self._drop(word, name):
                    return True
        return form and self._step_down()

    def _forget(self) -> bool:
        """Find everything out anew, if it was the memory that led to the present manner."""
        if self._recalled is None or self.manner == self._first or self.manner != self._remembered():
            return False
        self.manner, self._recalled = self._first, None
        return True

    def _remembered(self) -> Manner | None:
        if self._recalled is None or not self._fixed:
            return self._recalled
        return replace(self._recalled, strategy=self._first.strategy)

    def _drop(self, word: str, name: str) -> bool:
        manner = self.manner
        if name == "max_tokens" and manner.tokens_field == "max_completion_tokens" == word:
            self.manner = replace(manner, tokens_field="max_tokens")
        elif name not in manner.dropped:
            self.manner = replace(manner, dropped=manner.dropped | {name})
        else:
            return False
        return True

    def _step_down(self) -> bool:
        place = STRATEGIES.index(self.manner.strategy) + 1
        if self._fixed or place == len(STRATEGIES):
            return False
        self.manner = replace(self.manner, strategy=STRATEGIES[place])
        return True


class Memory:
    """The manners of all endpoints that were asked with one cache folder, in its `endpoints.json`.

    A damaged or foreign file is an empty memory, and one that cannot be written is none: a request or two find it out.
    """

    def __init__(self, folder: str | Path, base_url: str, model: str) -> None:
        self._path = Path(folder) / "endpoints.json"
        self._key = f"{base_url} {model}"

    def recall(self, now: float | None = None) -> Manner | None:
        """What `keep` kept within the last 30 days, or None."""
        try:
            known = self._read()["endpoints"][self._key]
            manner = Manner(known["strategy"], frozenset(known["dropped"]), known["tokens_field"])
            sound = manner.strategy in STRATEGIES and manner.dropped | {manner.tokens_field} <= set(_FIELDS)
            fresh = 0 <= (time.time() if now is None else now) - known["time"] < _REMEMBERED_S
        except (KeyError, TypeError):
            return None
        return manner if sound and fresh else None

    def keep(self, manner: Manner) -> None:
        """Remember a manner that has given a valid answer."""
        from annotator.tables import write_json

        known = self._read()
        endpoints = known["endpoints"] if isinstance(known.get("endpoints"), dict) else {}
        endpoints[self._key] = {
            "strategy": manner.strategy,
            "dropped": sorted(manner.dropped),
            "tokens_field": manner.tokens_field,
            "time": time.time(),
        }
        with suppress(BadInput):
            write_json(self._path, {"form": _MEMORY_FORM, "endpoints": endpoints})

    def _read(self) -> dict[str, Any]:
        try:
            known = orjson.loads(self._path.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return {}
        return known if isinstance(known, dict) and known.get("form") == _MEMORY_FORM else {}
