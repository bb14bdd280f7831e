"""Labels as typed records, and the JSON Schema that a judge must answer in.

The pydantic models are built from a taxonomy: an answer outside its values cannot be constructed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotator.fingerprint import fingerprint
from annotator.taxonomy import MAX_OPERATIONS, Kind, Taxonomy

if TYPE_CHECKING:
    from pydantic import BaseModel

MAX_EVIDENCE_CHARS = 300
_EVIDENCE = "Short quote, word for word."
_OPERATIONS = "Most important first; 1 to 3, all different."


def label_model(taxonomy: Taxonomy, kind: Kind) -> type[BaseModel]:
    """The pydantic model of one label on one side.

    Fields, in the order a judge fills them: evidence (a short verbatim quote, first so that the answer leans on it),
    background_condition, task_type, solving_operation (1-3 distinct, most important first), output_constraint, and for
    documents exercise and quality (an integer from 1).
    """
    # pydantic is imported with the first model: the first request of a run needs the schema only, and would wait.
    built = _BUILT.get((taxonomy.fingerprint, kind))
    if built is None:  # building costs milliseconds, and a run asks for the same two models all the time
        built = _BUILT[taxonomy.fingerprint, kind] = _build_model(taxonomy, kind)
    return built


_BUILT: dict[tuple[str, Kind], type[BaseModel]] = {}


def _build_model(taxonomy: Taxonomy, kind: Kind) -> type[BaseModel]:
    from pydantic import AfterValidator, ConfigDict, Field, create_model

    one = {axis: _literal(taxonomy.values(axis, kind)) for axis in taxonomy.axes}
    operation = one["solving_operation"]
    operations = Annotated[
        list[operation],  # type: ignore[valid-type]
        Field(min_length=1, max_length=MAX_OPERATIONS, description=_OPERATIONS),
        AfterValidator(_distinct),
    ]
    fields: dict[str, Any] = {
        "evidence": (Annotated[str, Field(max_length=MAX_EVIDENCE_CHARS, description=_EVIDENCE)], ...),
        "background_condition": (one["background_condition"], ...),
        "task_type": (one["task_type"], ...),
        "solving_operation": (operations, ...),
        "output_constraint": (one["output_constraint"], ...),
    }
    if kind == "document":
        fields["exercise"] = (_literal(taxonomy.grade_values("exercise")), ...)
        fields["quality"] = (_literal(_levels(taxonomy)), ...)
    config = ConfigDict(extra="forbid", frozen=True, use_enum_values=True)
    return create_model(f"{kind.capitalize()}Label", __config__=config, **fields)


def _literal(values: tuple[Any, ...]) -> Any:
    return Literal[values]


def _distinct(operations: list[str]) -> list[str]:
    if len(set(operations)) != len(operations):
        raise ValueError("the operations must all be different")
    return operations


def _levels(taxonomy: Taxonomy) -> tuple[int, ...]:
    return tuple(int(level) for level in taxonomy.grade_values("quality"))


def strict_json_schema(taxonomy: Taxonomy, kind: Kind) -> dict[str, Any]:
    """The JSON Schema of `label_model` for strict structured output: inlined, every property required, none additional.

    Within the documented subset: root object, `enum` for closed vocabularies, minItems/maxItems/maxLength; no `$ref`,
    `default`, `title`, `const` or `uniqueItems` (distinctness is checked when the answer is validated).
    """
    one = {axis: {"enum": list(taxonomy.values(axis, kind)), "type": "string"} for axis in taxonomy.axes}
    operations = {
        "description": _OPERATIONS,
        "items": one["solving_operation"],
        "maxItems": MAX_OPERATIONS,
        "minItems": 1,
        "type": "array",
    }
    properties: dict[str, Any] = {
        "evidence": {"description": _EVIDENCE, "maxLength": MAX_EVIDENCE_CHARS, "type": "string"},
        "background_condition": one["background_condition"],
        "task_type": one["task_type"],
        "solving_operation": operations,
        "output_constraint": one["output_constraint"],
    }
    if kind == "document":
        properties["exercise"] = {"enum": list(taxonomy.grade_values("exercise")), "type": "string"}
        properties["quality"] = {"enum": list(_levels(taxonomy)), "type": "integer"}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def schema_fingerprint(taxonomy: Taxonomy, kind: Kind) -> str:
    """Identity of the answer form; part of every cache key."""
    return fingerprint(strict_json_schema(taxonomy, kind))
