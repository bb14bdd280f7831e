"""From failing benchmark slices to the documents to train on.

The names below are what users may rely on; what is not listed may change. They are loaded when first used, so that
`import annotator` and `annotator --help` cost nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
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
    "sample": "sample",
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


class _Package(ModuleType):
    """Steps and their functions share a name: `annotator.rank` is the function, and the module that it lives in.

    Importing a submodule sets it as an attribute of its package, which would hide the function; such names are left to
    `__getattr__`. `from annotator.rank import Ranking` works as ever.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
