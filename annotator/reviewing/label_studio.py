"""Label Studio: labels out as tasks with predictions and a labelling form, annotations back in as gold.

Formats: https://labelstud.io/guide/task_format and https://labelstud.io/guide/predictions. The solving operations are
two controls there, because Label Studio keeps no order among several choices: the most important one, and further ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import polars as pl

from annotator.errors import BadInput
from annotator.review import GOLD, OPERATION, check_kind, check_version, checked_label, fields_of, gold_row, label_of
from annotator.tables import LABELS
from annotator.taxonomy import AXES, Kind, Taxonomy

FURTHER = "further_operations"
_TEXT = "record"
_FROM_LABEL = ("confidence", "evidence", "judge", "truncated", "prompt_version")  # a task carries them there and back


@dataclass(frozen=True, slots=True)
class Imported:
    """gold: a table of GOLD, in the order of the export. read = gold.height + unanswered + skipped, in tasks.

    unanswered: nobody annotated it. skipped: everybody who saw it skipped it. corrected: rows unlike the label.
    """

    gold: pl.DataFrame
    read: int
    unanswered: int
    skipped: int
    corrected: int


def tasks(labels: pl.DataFrame, taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """Label Studio's tasks, each with the label as a prediction.

    Args:
        labels: LABELS columns and text; all of one kind.
    """
    return [_task(row, taxonomy) for row in labels.iter_rows(named=True)]


def _task(row: Mapping[str, Any], taxonomy: Taxonomy) -> dict[str, Any]:
    label = label_of(row)
    told = {name: [str(value)] for name, value in label.items() if name != OPERATION}
    told |= {OPERATION: label[OPERATION][:1], FURTHER: label[OPERATION][1:]}
    result = [
        {"id": name, "from_name": name, "to_name": _TEXT, "type": "choices", "value": {"choices": values}}
        for name, values in told.items()
        if values
    ]
    prediction: dict[str, Any] = {"model_version": row["judge"] or "labels", "result": result}
    if row["confidence"] is not None:
        prediction["score"] = row["confidence"]
    data = {
        "record_id": row["record_id"],
        "kind": row["kind"],
        "taxonomy_version": row["taxonomy_version"] or taxonomy.version,
        "text": _storable(row["text"]),
        "label": label,
        "evidence": _storable(row["evidence"] or ""),
    }
    return {"data": data | {name: row[name] for name in _FROM_LABEL if name != "evidence"}, "predictions": [prediction]}


def _storable(text: str) -> str:
    """Without NUL, which PostgreSQL, Label Studio's database, takes in no JSON: one would stop the whole import."""
    return text.replace("\x00", "\ufffd")


def labelling_config(kind: Kind, taxonomy: Taxonomy) -> str:
    """The labelling form of one side as Label Studio's XML: one choice an axis and grade, definitions as hints."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Text", name=_TEXT, value="$text", valueType="text")
    ElementTree.SubElement(view, "Header", value="Evidence that the judge gave")
    ElementTree.SubElement(view, "Text", name="quote", value="$evidence", valueType="text")
    for name in fields_of(kind):
        if name in AXES:
            meanings, question = taxonomy.axes[name].definitions[kind], taxonomy.axes[name].question
        else:
            meanings, question = taxonomy.grades[name], taxonomy.grade_questions[name]
        _choices(view, name, question, meanings, choice="single-radio", required="true")
        if name == OPERATION:
            _choices(view, FURTHER, "Up to two further operations", meanings, choice="multiple")
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _choices(view: ElementTree.Element, name: str, question: str, meanings: Mapping[str, str], **options: str) -> None:
    ElementTree.SubElement(view, "Header", value=f"{name.replace('_', ' ')}: {question}")
    control = ElementTree.SubElement(view, "Choices", name=name, toName=_TEXT, showInline="true", **options)
    for value, meaning in meanings.items():
        ElementTree.SubElement(control, "Choice", value=value, hint=meaning)


def read_export(path: Path, taxonomy: Taxonomy, *, annotator: str | None = None) -> Imported:
    """Gold from an export of Label Studio in its JSON format.

    Args:
        annotator: take this person's annotations only (their e-mail address, or number where the export has no more).
            Of several annotations of one task the one marked as ground truth counts, else there must be but one
            person's; of one person's the latest.

    Raises:
        BadInput: another format, another taxonomy version, a record twice, two people's annotations of one task.
        UnknownValue: a value that is not in the taxonomy.
    """
    rows: dict[str, dict[str, Any]] = {}
    unanswered = skipped = read = 0
    for number, task in enumerate(_read_tasks(path)):
        read += 1
        where = f"{path}, task {number + 1}"
        data = task.get("data")
        if not isinstance(data, dict) or not isinstance(data.get("record_id"), str) or not data["record_id"]:
            remedy = "Export as JSON, from a project made with --to-label-studio."
            raise BadInput("this is no task with a record_id", where=where, remedy=remedy)
        where = f"{path} ({data['record_id']})"
        check_version(data.get("taxonomy_version"), taxonomy, where=where)
        check_kind(data.get("kind"), where=where)
        given = _theirs(task, annotator, where)
        kept = [each for each in given if not each.get("was_cancelled")]
        unanswered, skipped = unanswered + (not given), skipped + bool(given and not kept)
        if not kept:
            continue
        if data["record_id"] in rows:
            raise BadInput("is in two annotated tasks", where=where, remedy="Export one project, and keep one.")
        rows[data["record_id"]] = _gold(data, _one(kept, where), taxonomy, where)
    gold = pl.DataFrame(list(rows.values()), schema=GOLD)
    corrected = gold.filter(pl.col("corrected").list.len() > 0).height
    return Imported(gold, read, unanswered, skipped, corrected)


def _read_tasks(path: Path) -> Iterator[dict[str, Any]]:
    try:
        found = orjson.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror or error})", where=str(path)) from None
    except orjson.JSONDecodeError as error:
        raise BadInput(f"is not JSON ({error})", where=str(path), remedy="Export as JSON.") from None
    if not isinstance(found, list) or not all(isinstance(task, dict) for task in found):
        raise BadInput("is no list of tasks", where=str(path), remedy="Export as JSON.")
    yield from found


def _theirs(task: Mapping[str, Any], annotator: str | None, where: str) -> list[dict[str, Any]]:
    """The annotations of a task, of one person if one is named."""
    given = task.get("annotations", [])
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise BadInput("its annotations are no list of objects", where=where, remedy="Export as JSON.")
    return [each for each in given if annotator is None or _person(each, where) == annotator]


def _person(annotation: Mapping[str, Any], where: str) -> str:
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    if isinstance(by, bool) or not isinstance(by, str | int) or not str(by).strip():
        raise BadInput("an annotation does not say whose it is", where=where, remedy="Export with completed_by.")
    return str(by)


def _one(annotations: Sequence[dict[str, Any]], where: str) -> dict[str, Any]:
    """The annotation that counts: the ground truth, or the latest of one person's."""
    annotations = [each for each in annotations if each.get("ground_truth") is True] or list(annotations)
    people = sorted({_person(each, where) for each in annotations})
    if len(people) > 1:
        remedy = "Take one person's with --annotator, or mark one annotation as ground truth."
        raise BadInput(f"annotated by {people[0]} and {people[1]}", where=where, remedy=remedy)
    return max(annotations, key=lambda each: _time(each, where))


def _time(annotation: Mapping[str, Any], where: str) -> datetime:
    told = annotation.get("updated_at") or annotation.get("created_at")
    try:
        time = datetime.fromisoformat(told)  # type: ignore[arg-type]  # anything else is the TypeError below
    except (TypeError, ValueError):
        raise BadInput(f"an annotation has no time ({str(told)[:40]!r})", where=where) from None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _gold(data: Mapping[str, Any], annotation: Mapping[str, Any], taxonomy: Taxonomy, where: str) -> dict[str, Any]:
    kind, person = data["kind"], _person(annotation, where)
    answer = checked_label(_answer(annotation, where), kind, taxonomy, where=where, complete=True)
    label: dict[str, Any] = dict.fromkeys(LABELS)
    label |= {"record_id": data["record_id"], "kind": kind, "taxonomy_version": taxonomy.version}
    label |= {name: data.get(name) for name in _FROM_LABEL}
    before = data.get("label")
    if isinstance(before, dict):  # tasks that somebody made otherwise may have none: then nothing was corrected
        label |= {name: before.get(name) for name in fields_of(kind)}
    reviewed_at = _time(annotation, where).isoformat(timespec="seconds")
    return gold_row(label, answer, annotator=person, reviewed_at=reviewed_at)


def _answer(annotation: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The choices of an annotation in the form of our labels; what they say is checked later."""
    told: dict[str, list[Any]] = {}
    for part in annotation.get("result") or []:
        value = part.get("value") if isinstance(part, dict) else None
        choices = value.get("choices") if isinstance(value, dict) else None
        if isinstance(choices, list) and choices:  # other controls that a team added are not ours
            told[str(part.get("from_name"))] = choices
    answer: dict[str, Any] = {name: choices[0] for name, choices in told.items() if name not in (OPERATION, FURTHER)}
    if OPERATION in told:
        first = told[OPERATION][:1]
        answer[OPERATION] = first + [each for each in told.get(FURTHER, []) if each not in first]
    if isinstance(level := answer.get("quality"), str) and level.isascii() and level.isdigit():
        answer["quality"] = int(level)
    return answer
