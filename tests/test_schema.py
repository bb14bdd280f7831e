"""The label form: only legal labels can be constructed, and the judge is sent exactly that form."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from annotator.resources import resource
from annotator.schema import label_model, strict_json_schema
from annotator.taxonomy import KINDS, load_taxonomy

TAXONOMY = load_taxonomy()
ITEM = {
    "evidence": "how many remain",
    "background_condition": "math.arithmetic",
    "task_type": "calculate",
    "solving_operation": ["quantity_modelling", "arithmetic"],
    "output_constraint": "number",
}
DOCUMENT = ITEM | {"exercise": "central", "quality": 4}


def test_legal_labels_are_accepted_on_both_sides():
    """Documents carry the two grades, items do not."""
    assert label_model(TAXONOMY, "item").model_validate(ITEM).solving_operation == ["quantity_modelling", "arithmetic"]
    assert label_model(TAXONOMY, "document").model_validate(DOCUMENT).quality == 4


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"task_type": "specify"}, "task_type"),  # a document-only value
        ({"task_type": "Calculate"}, "task_type"),
        ({"solving_operation": []}, "solving_operation"),
        ({"solving_operation": ["recall"] * 2}, "solving_operation"),
        ({"solving_operation": ["recall", "arithmetic", "comparison", "deduction"]}, "solving_operation"),
        ({"solving_operation": "recall"}, "solving_operation"),
        ({"quality": 3}, "quality"),  # items have no grades
        ({"note": "extra"}, "note"),
        ({"evidence": "x" * 301}, "evidence"),
        ({"background_condition": None}, "background_condition"),
    ],
)
def test_an_illegal_item_label_cannot_be_constructed(change, field):
    """The error names the field, so that the judge can be told."""
    with pytest.raises(ValidationError) as caught:
        label_model(TAXONOMY, "item").model_validate(ITEM | change)
    assert {error["loc"][0] for error in caught.value.errors()} == {field}


@pytest.mark.parametrize("kind", KINDS)
def test_the_json_schema_lies_in_the_strict_structured_output_subset(kind):
    """Every object closed, every property required, no keyword outside the documented subset, within the limits."""
    allowed = {"type", "enum", "items", "properties", "required", "additionalProperties", "minItems", "maxItems",
               "maxLength", "description"}  # fmt: skip
    values = 0

    def walk(node):
        nonlocal values
        assert set(node) <= allowed
        values += len(node.get("enum", ()))
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])
            for inner in node["properties"].values():
                walk(inner)
        if "items" in node:
            walk(node["items"])

    schema = strict_json_schema(TAXONOMY, kind)
    walk(schema)
    assert schema["type"] == "object"
    assert values <= 1000
    assert len(json.dumps(schema)) < 15_000


def inlined(node):
    """What pydantic says of a model, in the words of the strict subset."""
    kept = {key: node[key] for key in ("type", "enum", "minItems", "maxItems", "maxLength") if key in node}
    if "const" in node:
        kept["enum"] = [node["const"]]
    if "description" in node and "properties" not in node:
        kept["description"] = node["description"]
    if "properties" in node:
        kept["properties"] = {name: inlined(inner) for name, inner in node["properties"].items()}
        kept["required"], kept["additionalProperties"] = node["required"], node["additionalProperties"]
    if "items" in node:
        kept["items"] = inlined(node["items"])
    return kept


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_that_is_sent_is_that_of_the_model_that_validates(kind):
    """Both are written out of the taxonomy; the schema without pydantic, for which the first request would wait."""
    schema = strict_json_schema(TAXONOMY, kind)
    assert inlined(label_model(TAXONOMY, kind).model_json_schema()) == schema
    assert list(schema["properties"]) == list(label_model(TAXONOMY, kind).model_fields) == schema["required"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_schema_is_in_step_with_the_taxonomy(kind):
    """Mended by scripts/write_schemas.py."""
    published = json.loads(resource("schemas", f"{kind}_label.schema.json").read_text("utf-8"))
    assert published == strict_json_schema(TAXONOMY, kind)


def test_the_schema_lists_evidence_first():
    """A judge that quotes before it decides leans on the text."""
    assert next(iter(strict_json_schema(TAXONOMY, "item")["properties"])) == "evidence"
