"""The command line as scripts and people meet it."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import annotator
from annotator.cli import COMMANDS

HEAVY = {"polars", "openai", "instructor", "numpy", "scipy", "aiohttp", "pydantic", "rich"}


def run(*arguments: str) -> subprocess.CompletedProcess:
    """Runs the real command."""
    return subprocess.run([sys.executable, "-m", "annotator", *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    """--help works and says more than the option names."""
    done = run(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage: annotator " + command in done.stdout
    assert len(done.stdout.splitlines()) > 5


def test_help_imports_nothing_heavy():
    """`import openai` alone takes nearly two seconds."""
    program = (
        "import sys\nfrom annotator.cli import application\n"
        "try:\n    application.main(['--help'], standalone_mode=True)\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sorted(name for name in sys.modules if '.' not in name))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "Start here" in done.stdout
    assert not HEAVY & set(done.stdout.rsplit("LOADED", 1)[1].split())


def test_json_is_one_document_on_stdout():
    """So that scripts can read it in a pipe."""
    done = run("taxonomy", "show", "output_constraint", "--json")
    assert json.loads(done.stdout)["axes"]["output_constraint"]["item"]["number"] == "A single number."


def test_a_card_shows_its_learning_curve_and_help_names_every_judge():
    """What more labels would buy is on the card of a student."""
    for name in ("embedded", "embedded:accurate"):
        card = run("judge", "info", name)
        assert card.returncode == 0
        assert "documents: kappa on held-out records, by number of labels" in card.stdout
        assert "The last 25 % of the labels bought" in card.stdout
    assert "embedded, embedded:accurate, student:PATH" in " ".join(run("label", "--help").stdout.split())


def test_a_closed_pipe_is_not_an_error():
    """`annotator taxonomy show | head -1` ends quietly."""
    line = f"{sys.executable} -m annotator taxonomy show | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


def test_the_public_names_are_listed_once_and_exist():
    """`annotator.__all__` is what users may rely on."""
    assert annotator.__all__ == sorted(set(annotator.__all__))
    for name in [*annotator.__all__, *annotator.__all__]:  # twice: importing a submodule must not hide its function
        assert callable(getattr(annotator, name)), name
        assert getattr(annotator, name).__doc__, name


def test_every_public_function_has_a_docstring():
    """In every module that users import from."""
    homes = {inspect.getfile(inspect.getmodule(getattr(annotator, name))) for name in annotator.__all__}
    for path in map(Path, sorted(homes)):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name[0] != "_":
                assert ast.get_docstring(node), f"{path}:{node.lineno}: {node.name} has no docstring"


def test_the_rules_can_be_checked_and_explained(tmp_path):
    """The shipped rules have no faults; the arithmetic of one pair is shown with the rule that opened the gate."""
    assert json.loads(run("rules", "check", "--json").stdout)["findings"] == []
    documents = tmp_path / "d.jsonl"
    documents.write_text(json.dumps({"doc_id": "d1", "text": "We prove it by induction on n. " * 9}) + "\n")
    labels = tmp_path / "labels.parquet"
    assert run("label", str(documents), "-o", str(labels), "--kind", "document").returncode == 0
    done = run("rules", "explain", "op=induction_recursion", "d1", "--document-labels", str(labels))
    assert done.returncode == 0, done.stderr
    assert "affinity" in done.stdout


def test_without_arguments_the_help_is_shown():
    """As an answer, not as a complaint."""
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "Start here" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_said_in_one_line():
    """And with the exit code of a wrong setting."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "annotator", "taxonomy", "show"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "annotator: the output cannot be written (No space left on device).\n"
