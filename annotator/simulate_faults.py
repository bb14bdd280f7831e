"""Made-up evaluation logs with a known fault: the causes of `annotator.diagnose` in the formats of four harnesses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from annotator.simulation.exam import SHOTS, Output, Run, exam, strict, worse, wrong
from annotator.simulation.logs import HARNESSES, write_log

__all__ = ["FAULTS", "HARNESSES", "VISIBLE_IN", "Run", "exam", "with_fault", "write_log"]

_LAYOUTS = (f"{SHOTS}Q: {{}}\nA:", "### Question\n{}\n\n### Answer\n", "User: {}\nAssistant:")


@dataclass(frozen=True, slots=True)
class _Dose:
    """How much of a fault, and which outputs it hits: the same items in every run, whatever was drawn before.

    strength: 1.0 is the full fault; 0.1 hits a tenth of the outputs that the full one would.
    """

    strength: float
    seed: int

    def generator(self) -> np.random.Generator:
        return np.random.default_rng([20_260_103, self.seed])

    def hit(self, run: Run, share: float, change: Callable[[np.random.Generator, Output], Output]) -> Run:
        """The run with some outputs changed: `share` of them at full strength."""
        generator = self.generator()
        hits = generator.random(len(run.outputs)) < share * self.strength
        outputs = [change(generator, output) if hit else output for output, hit in zip(run.outputs, hits)]
        return dataclasses.replace(run, outputs=outputs)


def _with(run: Run, **settings: object) -> Run:
    return dataclasses.replace(run, settings=run.settings | settings)


def _termination(run: Run, dose: _Dose) -> Run:
    def runs_on(generator: np.random.Generator, output: Output) -> Output:
        if generator.random() < 0.2:
            return strict(output, output.text + " We check the result again." * 20)
        guess = wrong(generator, output.target)
        return strict(output, f"{output.text}\n\nQ: Another question?\nA: We think again. The answer is {guess}.")

    return dose.hit(run, 0.8, runs_on)


def _end_marker(run: Run, dose: _Dose) -> Run:
    marker = ("<|im_end|>", "</s>", "<|eot_id|>")[dose.seed % 3]
    return dose.hit(run, 0.8, lambda _, output: strict(output, f"{output.text}{marker}\nand more"))


def _generation_cap(run: Run, dose: _Dose) -> Run:
    """A cap of so many tokens that the full fault cuts 70 % of the outputs, before their answer."""
    cap = int(np.quantile([output.tokens for output in run.outputs], 1 - 0.7 * dose.strength)) - 1

    def cut(output: Output) -> Output:
        if output.tokens <= cap:
            return output
        shorter = strict(output, output.text[: 4 * cap])
        return dataclasses.replace(shorter, finish_reason="length", tokens=cap)

    return _with(run.edited(cut), max_tokens=cap)


def _stop_string(run: Run, dose: _Dose) -> Run:
    stopped = dose.hit(run, 0.6, lambda _, output: strict(output, output.text[: len(output.text) // 5]))
    return _with(stopped, stop=["Q", "\n"])


def _whitespace(run: Run, dose: _Dose) -> Run:
    return dose.hit(run, 0.7, lambda _, output: strict(output, f"{output.text} "))


def _extraction(run: Run, dose: _Dose) -> Run:
    def other_form(generator: np.random.Generator, output: Output) -> Output:
        head, answer = output.text.removesuffix(".").split("The answer is ")
        return strict(output, f"{head}#### {answer}" if generator.random() < 0.5 else f"{head}\\boxed{{{answer}}}")

    return dose.hit(run, 0.8, other_form)


def _goes_on(generator: np.random.Generator, output: Output, *, last: bool) -> Output:
    """Right or wrong by its first answer, or by its last, which is wrong."""
    more = f"{output.text}\n\nQ: Another question?\nA: We think again. The answer is {wrong(generator, output.target)}."
    return dataclasses.replace(output, text=more, score=0.0 if last else output.score)


def _answer_position(run: Run, dose: _Dose) -> Run:
    return dose.hit(run, 1.0, lambda generator, output: _goes_on(generator, output, last=True))


def _scored_by_the_first(run: Run, dose: _Dose) -> Run:
    return dose.hit(run, 1.0, lambda generator, output: _goes_on(generator, output, last=False))


def _failed_requests(run: Run, dose: _Dose) -> Run:
    texts = ["", "Error code: 500 - internal server error"]
    return dose.hit(run, 0.4, lambda generator, output: strict(output, str(generator.choice(texts))))


def _prompt_changed(run: Run, dose: _Dose) -> Run:
    """Half of the prompts lose their few-shot example."""

    def other_prompt(generator: np.random.Generator, output: Output) -> Output:
        return dataclasses.replace(worse(generator, output), prompt=output.prompt.removeprefix(SHOTS))

    return dose.hit(run, 0.5, other_prompt)


def _prompt_format(run: Run, dose: _Dose) -> Run:
    """Every run asks in three layouts, one an item; in the last, most answers are lost."""
    run = _in_layouts(run, dose)

    def lost(generator: np.random.Generator, output: Output) -> Output:
        return worse(generator, worse(generator, worse(generator, output)))

    generator = dose.generator()
    last = _LAYOUTS[-1].split("{}")[0]
    return run.edited(
        lambda o: lost(generator, o) if o.prompt.startswith(last) and generator.random() < dose.strength else o
    )


def _in_layouts(run: Run, dose: _Dose) -> Run:
    layouts = np.random.default_rng([20_260_104, dose.seed]).integers(len(_LAYOUTS), size=len(run.outputs))
    outputs = [
        dataclasses.replace(output, prompt=_LAYOUTS[layout].format(output.question))
        for output, layout in zip(run.outputs, layouts)
    ]
    return dataclasses.replace(run, outputs=outputs)


def _version_drift(run: Run, dose: _Dose) -> Run:
    def other_item(generator: np.random.Generator, output: Output) -> Output:
        return strict(dataclasses.replace(output, target=wrong(generator, output.target)), output.text)

    return dose.hit(run, 0.4, other_item)


def _decoding_changed(run: Run, dose: _Dose) -> Run:
    return _with(dose.hit(run, 1.0, worse), temperature=1.0)


def _bos(run: Run, dose: _Dose) -> Run:
    return _with(dose.hit(run, 1.0, worse), bos_token="<unk>")


def _prompt_truncated(run: Run, dose: _Dose) -> Run:
    def cut(generator: np.random.Generator, output: Output) -> Output:
        return dataclasses.replace(worse(generator, worse(generator, output)), prompt_tokens_cut=120)

    return dose.hit(run, 0.5, cut)


def _noise(run: Run, dose: _Dose) -> Run:
    return run


Fault = Callable[[Run, _Dose], Run]
FAULTS: dict[str, Fault] = {
    "termination": _termination,
    "end_marker": _end_marker,
    "generation_cap": _generation_cap,
    "stop_string": _stop_string,
    "extraction": _extraction,
    "answer_position": _answer_position,
    "bos": _bos,
    "prompt_changed": _prompt_changed,
    "version_drift": _version_drift,
    "prompt_format": _prompt_format,
    "prompt_truncated": _prompt_truncated,
    "whitespace": _whitespace,
    "decoding_changed": _decoding_changed,
    "failed_requests": _failed_requests,
    "noise": _noise,
}
# What the reference has where the fault lies in how the two runs differ.
_COUNTERPART: dict[str, Fault] = {"answer_position": _scored_by_the_first, "prompt_format": _in_layouts}
# Causes whose evidence only some harnesses log; in the others they cannot be told from missing skill.
VISIBLE_IN = {
    "bos": ("lm_eval",),
    "prompt_truncated": ("lighteval",),
    "decoding_changed": ("lm_eval", "lighteval", "inspect"),
}


def with_fault(
    cause: str, candidate: Run, reference: Run, *, seed: int, strength: float = 1.0, in_both: bool = False
) -> tuple[Run, Run]:
    """The two runs with a fault of one cause in the candidate, or `in_both` alike.

    strength: 1.0 for the full fault, less for as much less of it. For "answer_position" both runs run on and for
    "prompt_format" both ask in several layouts: the fault is in how the candidate is scored, or copes, with that.
    """
    dose = _Dose(strength, seed)
    theirs = FAULTS[cause] if in_both else _COUNTERPART.get(cause, lambda run, _: run)
    return FAULTS[cause](candidate, dose), theirs(reference, dose)
