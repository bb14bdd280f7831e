#!/usr/bin/env python3
"""How long `annotator label` takes from its start to its first request, and `annotator --help` to its end.

    .venv/bin/python scripts/bench_start.py

Wall and CPU time, the least of some runs each. The client is killed when its first request arrives, so its CPU time is
that up to there. "Compiled" is what users have: Python keeps the bytecode of what it has imported once. "From source"
is a first start ever, and every start where PYTHONDONTWRITEBYTECODE is set.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{'least of ' + str(rounds):38} {'wall ms':>8} {'CPU ms':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for what, measure in (("--help", until_end), ("label: first request", until_first_request)):
            for how in ("compiled", "from source"):
                environment = _environment(Path(folder), compiled=how == "compiled")
                if how == "compiled":
                    measure(Path(folder), environment)  # leaves the bytecode
                runs = [measure(Path(folder), environment) for _ in range(rounds)]
                wall, cpu = (min(column) for column in zip(*runs, strict=True))
                print(f"{what + ', ' + how:38} {1000 * wall:8.0f} {1000 * cpu:8.0f}")


def _environment(folder: Path, *, compiled: bool) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OPENAI_"))}
    if not compiled:
        return kept | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(folder / "empty")}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def until_end(_folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """(wall, CPU) seconds of `annotator --help`."""
    began = time.perf_counter()
    process = _start(["--help"], environment)
    _, _, used = os.wait4(process.pid, 0)
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def until_first_request(folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """(wall, CPU) seconds from the start of `annotator label` to the arrival of its first request."""
    items = folder / "items.jsonl"
    items.write_text('{"id": "a", "prompt": "What is 2 plus 2?"}\n')
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        options = ["-o", str(folder / "labels.parquet"), "--cache-dir", str(folder / "cache"), "--kind", "item"]
        began = time.perf_counter()
        process = _start(["label", str(items), *options, "--judge", "openai:m", "--base-url", base_url], environment)
        connection, _ = listener.accept()
        with connection:
            connection.recv(1)
            wall = time.perf_counter() - began
            process.kill()
        _, _, used = os.wait4(process.pid, 0)
    return wall, used.ru_utime + used.ru_stime


def _start(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "annotator", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
