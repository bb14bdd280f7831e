"""The house has floors: a module imports only from its own floor or below, and without cycles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "annotator"
FLOORS = [
    {"errors", "fingerprint", "resources"},
    {"taxonomy", "taxonomy_diff", "taxonomy_check", "schema"},
    {"tables", "readers", "prompts", "excerpt"},
    {"judges"},
    {"budget", "labelling", "label", "batch", "batch_files"},
    {
        "coefficients",
        "agreement",
        "coverage",
        "migration",
        "distill",
        "distillation",
        "sample",
        "scores",
        "guessing",
        "slicing",
        "slices",
        "diagnosis",
        "diagnose",
    }
    | {"simulate", "simulation", "simulate_faults"},
    {"rule_table", "mapping", "matching", "categories", "match"},
    {"decontamination", "decontaminate", "ranking", "rank", "exporting", "export"},
    {"verification", "verify", "report", "review", "reviewing"},
    {"settings", "inputs", "steps", "loop", "cli", "__init__", "__main__"},
]
FLOOR_OF = {name: height for height, names in enumerate(FLOORS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """The top-level modules of ours that a file imports, with line numbers."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        assert not getattr(node, "level", 0), f"{path}:{node.lineno}: import from the package root"
        if isinstance(node, ast.Import):
            yield from ((a.name.split(".")[1], node.lineno) for a in node.names if a.name.startswith("annotator."))
        elif isinstance(node, ast.ImportFrom) and node.module == "annotator":
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("annotator."):
            yield node.module.split(".")[1], node.lineno


def module_of(path: Path) -> str:
    """The name of a file's top-level module or folder inside the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_own_floor_or_below(path):
    """`schema` knows nobody, `cli` knows everybody."""
    own = module_of(path)
    assert own in FLOOR_OF, f"{own} has no floor yet: give it one in FLOORS"
    for imported, line in imports(path):
        if imported != own:
            assert FLOOR_OF[imported] <= FLOOR_OF[own], f"{path.name}:{line}: {own} reaches up to {imported}"


def test_no_two_modules_import_each_other():
    """Inside a floor imports are allowed, but never in a circle."""
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        own = module_of(path)
        graph.setdefault(own, set()).update(name for name, _ in imports(path) if name != own)
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done:
            return
        for imported in sorted(graph.get(name, ())):
            visit(imported, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())
