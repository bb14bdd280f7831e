"""Labels as typed records, and the JSON Schema that a judge must answer in.

The pydantic models are built from a taxonomy: an answer outside its values cannot be constructed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from annotator.fingerprint import fingerprint
from annotator.taxonomy import MAX_OPERATIONS, Kind, Taxonomy

MAX_EVIDENCE_CHARS = 300


class Label(BaseModel):
    """Base of the label models; the fields come from the taxonomy (see `label_model`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_enum_values=True)


def label_model(taxonomy: Taxonomy, kind: Kind) -> type[Label]:
    """The pydantic model of one label on one side.

    Fields, in the order a judge fills them: evidence (a short verbatim quote, first so that the answer leans on it),
    background_condition, task_type, solving_operation (1-3 distinct, most important first), output_constraint, and for
    documents exercise and quality (an integer from 1).
    """
    built = _BUILT.get((taxonomy.fingerprint, kind))
    if built is None:  # building costs milliseconds, and a run asks for the same two models all the time
        built = _BUILT[taxonomy.fingerprint, kind] = _build_model(taxonomy, kind)
    return built


_BUILT: dict[tuple[str, Kind], type[Label]] = {}


def _build_model(taxonomy: Taxonomy, kind: Kind) -> type[Label]:
    one = {axis: _literal(taxonomy.values(axis, kind)) for axis in taxonomy.axes}
    operation = one["solving_operation"]
    operations = Annotated[
        list[operation],  # type: ignore[valid-type]
        Field(min_length=1, max_length=MAX_OPERATIONS, description="Most important first; 1 to 3, all different."),
        AfterValidator(_distinct),
    ]
    fields: dict[str, Any] = {
        "evidence": (
            Annotated[str, Field(max_length=MAX_EVIDENCE_CHARS, description="Short quote, word for word.")],
            ...,
        ),
        "background_condition": (one["background_condition"], ...),
        "task_type": (one["task_type"], ...),
        "solving_operation": (operations, ...),
        "output_constraint": (one["output_constraint"], ...),
    }
    if kind == "document":
        fields["exercise"] = (_literal(taxonomy.grade_values("exercise")), ...)
        fields["quality"] = (_literal(tuple(int(level) for level in taxonomy.grade_values("quality"))), ...)
    return create_model(f"{kind.capitalize()}Label", __base__=Label, **fields)


def _literal(values: tuple[Any, ...]) -> Any:
    return Literal[values]


def _distinct(operations: list[str]) -> list[str]:
    if len(set(operations)) != len(operations):
        raise ValueError("the operations must all be different")
    return operations


def strict_json_schema(taxonomy: Taxonomy, kind: Kind) -> dict[str, Any]:
    """The JSON Schema for strict structured output: inlined, every property required, nothing additional.

    Within the documented subset: root object, `enum` for closed vocabularies, minItems/maxItems/maxLength; no `$ref`,
    `default`, `title`, `const` or `uniqueItems` (distinctness is checked when the answer is validated).
    """
    raw = label_model(taxonomy, kind).model_json_schema()
    return _inline(raw, raw.get("$defs", {}))


def schema_fingerprint(taxonomy: Taxonomy, kind: Kind) -> str:
    """Identity of the answer form; part of every cache key."""
    return fingerprint(strict_json_schema(taxonomy, kind))


_KEPT = ("type", "enum", "items", "properties", "required", "minItems", "maxItems", "maxLength", "description")


def _inline(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        return _inline(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
    kept = {key: node[key] for key in _KEPT if key in node}
    if "const" in node:
        kept |= {"enum": [node["const"]]}
    if "properties" in node:
        kept["properties"] = {name: _inline(inner, definitions) for name, inner in node["properties"].items()}
        kept["required"] = list(node["properties"])
        kept["additionalProperties"] = False
        kept.pop("description", None)  # pydantic puts the class docstring here; the judge does not need it
    if "items" in node:
        kept["items"] = _inline(node["items"], definitions)
    return kept
