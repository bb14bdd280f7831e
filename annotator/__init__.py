"""From failing benchmark slices to the documents to train on.

The names below are what users may rely on; what is not listed may change. They are loaded when first used, so that
`import annotator` and `annotator --help` cost nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "AnnotatorError": "errors",
    "BadInput": "errors",
    "ServiceFailure": "errors",
    "StoppedEarly": "errors",
    "UnknownValue": "errors",
    "Student": "judges.student",
    "diagnose": "diagnose",
    "export": "export",
    "find_slices": "slices",
    "label": "label",
    "label_model": "schema",
    "load_prompt": "prompts",
    "load_rules": "mapping",
    "load_taxonomy": "taxonomy",
    "match": "match",
    "open_judge": "judges",
    "rank": "rank",
    "read_documents": "readers",
    "read_items": "readers",
    "read_samples": "readers",
    "report": "report",
    "run_loop": "loop",
    "strict_json_schema": "schema",
    "verify": "verify",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'annotator' has no attribute {name!r}")
    return getattr(importlib.import_module(f"annotator.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
