"""The real command in a process of its own, and what a refusal looks like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def annotator(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    """Runs the real command in a folder of its own."""
    command = [sys.executable, "-m", "annotator", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def refused(done: subprocess.CompletedProcess, *said: str) -> None:
    """Exit 2, nothing on stdout, one line on stderr that holds all the words."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for words in said:
        assert words in done.stderr
