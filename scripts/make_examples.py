"""Write the example benchmark: examples/items.jsonl and the outputs of two invented checkpoints on it.

    python scripts/make_examples.py [--out examples]

Needs nothing but the standard library. The same seed gives the same files on every supported Python: generators are
seeded by strings, never by time or hash(). Items come from the generators in example_families/ and, for the families
that no program can write well, from examples/handwritten.jsonl.

Outputs are drawn from an item-response model with a guessing floor (Birnbaum 1968, "3PL"):

    P(correct) = floor + (1 - floor) / (1 + exp(-(skill of the run in the family - difficulty of the item + noise)))

Difficulty belongs to the item and is the same in both runs; the noise belongs to one item in one run.
"""

import argparse
import gzip
import io
import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path

from example_families import everyday, integers, puzzles, quantities, tracking
from example_families.draft import Draft, Generator, options

ROOT = Path(__file__).resolve().parent.parent
SEED = 20
SAMPLES_PER_ITEM = 4
MAX_TOKENS = 160
CUT_SHARE = 0.008  # of the outputs run into MAX_TOKENS, in both runs alike
BEFORE, AFTER = "base-v1", "base-v2"

GENERATED: dict[str, list[Generator]] = {
    **integers.FAMILIES,
    **quantities.FAMILIES,
    **tracking.FAMILIES,
    **puzzles.FAMILIES,
    **everyday.FAMILIES,
}
BENCHMARKS: dict[str, dict[str, int]] = {  # items by benchmark and family
    "numbers": {"divisibility": 22, "last_digits": 22, "word_problems": 20, "linear_equations": 16,
                "probability": 16, "geometry": 16},
    "reasoning": {"boolean_expressions": 16, "syllogisms": 12, "shuffled_objects": 18, "program_execution": 18,
                  "navigation": 18, "seating": 16},
    "everyday": {"dates": 16, "table_lookup": 20, "facts": 12, "causes": 12},
    "language": {"sorting_brackets": 16, "pronouns": 12, "tone": 12, "rewriting": 12},
}  # fmt: skip
# Skill in logits. What is planted is the distance between the two numbers of the first five families, nothing else.
SKILL: dict[str, tuple[float, float]] = {
    "divisibility": (1.0, -1.8), "last_digits": (0.9, -1.8),
    "shuffled_objects": (1.3, -1.9), "program_execution": (0.9, -1.6), "navigation": (1.2, -1.7),
    "probability": (-1.5, -1.5), "seating": (-1.9, -1.9),  # decoys: hard for both runs
    "word_problems": (1.1, 1.1), "linear_equations": (1.2, 1.2), "geometry": (0.7, 0.7),
    "boolean_expressions": (0.9, 0.9), "syllogisms": (0.8, 0.8), "dates": (0.5, 0.5), "table_lookup": (1.3, 1.3),
    "facts": (1.6, 1.6), "causes": (1.3, 1.3), "sorting_brackets": (0.4, 0.4), "pronouns": (0.7, 0.7),
    "tone": (1.1, 1.1), "rewriting": (0.5, 0.5),
}  # fmt: skip

# How a response to a handwritten item may be worded around its own reason; generated items bring their own workings.
REMARKS: dict[str, list[list[str]]] = {
    "syllogisms": [["Look at the form and forget the story.", "The argument is {said}."],
                   ["I try to imagine true premises with a false conclusion.", "By this test it is {said}."],
                   ["Draw the classes as circles.", "The picture says {said}."]],
    "pronouns": [["Try each reading and see which makes sense.", "The reading that stays: {said}."],
                 ["The sentence gives a hint about who does what.", "I settle on this reading: {said}."],
                 ["Put the noun in place of the pronoun.", "What fits best is: {said}."]],
    "tone": [["Compare the words with the situation.", "They are best described like this: {said}."],
             ["What would someone who meant it literally say?", "Hence I read it as: {said}."],
             ["The wording gives the attitude away.", "My reading is: {said}."]],
    "facts": [["This is a matter of knowledge.", "I recall: {said}."],
              ["There are a few candidates that people mix up.", "The right one among them is {said}."],
              ["I remember this from school.", "It is {said}."]],
    "causes": [["Ask what differs between the two situations.", "The best account is this: {said}."],
               ["Rule out what would not change the outcome.", "What is left: {said}."],
               ["A cause has to come before its effect and reach it.", "This one does: {said}."]],
    "rewriting": [["Apply the rules one after the other.", "The new line reads: {said}"],
                  ["First the letters, then the order, then a last check.", "Result: {said}"],
                  ["I go through the words one by one.", "That gives: {said}"]],
}  # fmt: skip
OPENERS = ["", "", "", "Let me work this out.", "Step by step.", "First, what is asked for?", "Here is how I see it."]
CLOSINGS = ["The answer is {}.", "So the answer is {}.", "Therefore, the answer is {}.", "Hence the answer is {}."]
SECOND_THOUGHTS = [
    "Wait, let me go over this again from the start.",
    "I am not sure about that last step.",
    "Checking once more, to be on the safe side.",
    "Perhaps there is a shorter way to see it.",
]


def handwritten(path: Path) -> dict[str, list[Draft]]:
    """The drafts of examples/handwritten.jsonl by family; the options of a multiple choice item get their letters."""
    drafts: dict[str, list[Draft]] = {}
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        remarks = REMARKS[row["task"]]
        reasons = [[row["why"], remark[-1]] for remark in remarks]
        if "choices" in row:
            draft = options(row["prompt"], row["choices"], row["target"], remarks)
        else:
            draft = Draft(row["prompt"], row["target"], row["wrong"], remarks)
        drafts.setdefault(row["task"], []).append(replace(draft, reasons=reasons))
    return drafts


def generated(task: str, items: int) -> list[tuple[str, Draft]]:
    """(cluster_id, draft) of one family: its generators take turns, and no prompt comes twice."""
    rows: list[tuple[str, Draft]] = []
    seen: set[str] = set()
    rng = random.Random(f"{SEED}/items/{task}")
    while len(rows) < items:
        generator = GENERATED[task][len(rows) % len(GENERATED[task])]
        draft = generator(rng)
        if draft.prompt not in seen:
            seen.add(draft.prompt)
            rows.append((f"{task}/{generator.__name__}", draft))
    return rows


def all_items() -> list[tuple[dict, Draft]]:
    """Every item as its row in items.jsonl, with the draft that its responses are made from."""
    by_hand = handwritten(ROOT / "examples" / "handwritten.jsonl")
    rows = []
    for benchmark, tasks in BENCHMARKS.items():
        for task, items in tasks.items():
            drafts = generated(task, items) if task in GENERATED else [(None, draft) for draft in by_hand[task]]
            for n, (cluster, draft) in enumerate(drafts, 1):
                item_id = f"{task}-{n:02d}"
                row = {"item_id": item_id, "benchmark": benchmark, "task": task, "prompt": draft.prompt,
                       "target": draft.target, "choices": draft.choices, "cluster_id": cluster or item_id}  # fmt: skip
                rows.append(({key: value for key, value in row.items() if value is not None}, draft))
    return rows


def chance_correct(item_id: str, task: str, draft: Draft, run: str) -> float:
    """Probability that `run` answers the item correctly, by the model in the module docstring."""
    difficulty = random.Random(f"{SEED}/difficulty/{item_id}").gauss(0, 0.8)
    noise = random.Random(f"{SEED}/noise/{run}/{item_id}").gauss(0, 0.25)
    few = draft.choices is not None or len(draft.wrong) == 1 or draft.target in ("North", "East", "South", "West")
    floor = 1 / (len(draft.wrong) + 1) if few else 0.0
    logit = SKILL[task][run == AFTER] - difficulty + noise
    return floor + (1 - floor) / (1 + math.exp(-logit))


def rough_tokens(text: str) -> list[str]:
    """The text in pieces about as long as tokens: words, single digits and signs, each with the space before it."""
    return re.findall(r"\s*(?:\d|[^\W\d]+|[^\w\s]|_)", text)


def without_target(steps: list[str], draft: Draft) -> list[str]:
    """The steps that do not name the target: a model that goes wrong has not written the right value on the way."""
    names_target = re.compile(rf"(?<!\w){re.escape(draft.target)}(?!\w)")
    return [step for step in steps if not names_target.search(step)]


def response(draft: Draft, answer: str, rng: random.Random) -> str:
    """A few lines of working that arrive at `answer` and end in "The answer is X."."""
    if answer == draft.target:
        *steps, last = rng.choice(draft.workings + draft.reasons)
    else:
        *steps, last = rng.choice(draft.workings)
        steps = without_target(steps, draft)
    if len(steps) > 1 and rng.random() < 0.3:
        steps.pop(rng.randrange(len(steps)))
    said = answer
    if draft.choices is not None:
        said = draft.choices["ABCDEFG".index(answer[1])].rstrip(".")
    opener, closing = rng.choice(OPENERS), rng.choice(CLOSINGS).format(answer)
    lines = [line for line in [opener, *steps, last.replace("{said}", said), closing] if line]
    return rng.choice(["\n", "\n", " "]).join(lines)


def cut_response(draft: Draft, rng: random.Random) -> str:
    """Working that is still going round when MAX_TOKENS are used up, before any answer is stated."""
    lines: list[str] = []
    while len(rough_tokens("\n".join(lines))) <= MAX_TOKENS:
        lines += [*without_target(rng.choice(draft.workings)[:-1], draft), rng.choice(SECOND_THOUGHTS)]
    return "".join(rough_tokens("\n".join(lines))[:MAX_TOKENS])


def samples(items: list[tuple[dict, Draft]], run: str) -> list[dict]:
    """SAMPLES_PER_ITEM outputs of `run` for every item, as rows of the samples table."""
    rows = []
    for item, draft in items:
        chance = chance_correct(item["item_id"], item["task"], draft, run)
        for index in range(SAMPLES_PER_ITEM):
            rng = random.Random(f"{SEED}/sample/{run}/{item['item_id']}/{index}")
            cut, right = rng.random() < CUT_SHARE, rng.random() < chance
            answer = draft.target if right else rng.choice(draft.wrong)
            rows.append({
                "item_id": item["item_id"], "run": run, "sample_index": index,
                "response": cut_response(draft, rng) if cut else response(draft, answer, rng),
                "score": int(right and not cut), "finish_reason": "length" if cut else "stop",
                "max_tokens": MAX_TOKENS,
            })  # fmt: skip
    return rows


def as_jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")


def gzipped(content: bytes) -> bytes:
    """The content as a gzip file that names neither time nor file, so that equal content is an equal file."""
    target = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=target, mtime=0) as file:
        file.write(content)
    return target.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the example items and the outputs of two checkpoints.")
    parser.add_argument("--out", type=Path, default=ROOT / "examples", help="folder to write to (default: examples)")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    items = all_items()
    (folder / "items.jsonl").write_bytes(as_jsonl([row for row, _ in items]))
    (folder / "samples-before.jsonl.gz").write_bytes(gzipped(as_jsonl(samples(items, BEFORE))))
    (folder / "samples-after.jsonl.gz").write_bytes(gzipped(as_jsonl(samples(items, AFTER))))


if __name__ == "__main__":
    main()
