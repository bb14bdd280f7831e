"""A judge that answers from a function: for tests, and for anyone who wants to see the engine without a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from annotator.judges import Pace, Reply, Request, Sampling, Unanswered, Usage
from annotator.judges.answers import AnswerForm, InvalidAnswer
from annotator.prompts import Prompt, load_prompt
from annotator.taxonomy import Kind, Taxonomy, load_taxonomy


class ScriptedJudge:
    """Answers each request with what `answer` returns: the fields of a label, or an exception to raise.

    asked: all requests so far, in the order in which they came.
    """

    def __init__(
        self,
        answer: Callable[[Request], dict[str, Any]],
        *,
        kind: Kind = "item",
        taxonomy: Taxonomy | None = None,
        prompt: Prompt | None = None,
        pace: Pace | None = None,
        name: str = "scripted",
    ) -> None:
        self.taxonomy = taxonomy or load_taxonomy()
        self.kind, self.name, self.model = kind, name, name
        self.prompt = prompt or load_prompt(kind, self.taxonomy)
        self.pace, self.sampling = pace or Pace(), Sampling()
        self.identity = {"api": "scripted", "model": name, "prompt": self.prompt.fingerprint}
        self.asked: list[Request] = []
        self._answer, self._form = answer, AnswerForm(self.taxonomy, kind)
        self.fixed_tokens = self._form.fixed_tokens(self.prompt.system)

    async def ask(self, request: Request) -> Reply:
        """See `Judge.ask`."""
        self.asked.append(request)
        usage = Usage(requests=1, input_tokens=len(request.user) // 4, output_tokens=60)
        try:
            label = self._form.read(orjson.dumps(self._answer(request)).decode())
        except InvalidAnswer as invalid:
            raise Unanswered(invalid.reason, invalid.complaint, usage=usage) from None
        return Reply(label=label, model=self.model, strategy="scripted", usage=usage)

    async def close(self) -> None:
        """Nothing to release."""
