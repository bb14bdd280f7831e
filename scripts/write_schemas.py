"""Writes the published JSON Schemas in schemas/. Run it after any change of taxonomy or label model."""

from __future__ import annotations

import json
from pathlib import Path

from annotator.schema import strict_json_schema
from annotator.tables import write_text
from annotator.taxonomy import KINDS, load_taxonomy

if __name__ == "__main__":
    folder = Path(__file__).parent.parent / "schemas"
    for kind in KINDS:
        schema = json.dumps(strict_json_schema(load_taxonomy(), kind), indent=2)  # key order is the judge's order
        write_text(folder / f"{kind}_label.schema.json", schema + "\n")
