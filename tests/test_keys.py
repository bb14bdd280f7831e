"""The key is in no file, no message and no traceback, whatever the server does with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from llm_faults import Faults
from llm_server import LLMServer
from test_label import write_items

KEY = "zeta-7Q4mW1xN0s8KdJ3v"  # not of the shape of any provider's keys, so that its shape cannot help to hide it
PASSWORD = "omega-5R9tB2yL6c"
# Whatever makes Python, asyncio and the clients talkative.
LOUD = {"PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1", "OPENAI_LOG": "debug"}

EACH = ("refusal", "bad_request", "context_length", "http_502_html", "html_200", "reset", "cut_in_body", "invalid_json",
        "error_200", "content_filter", "forbidden", "")  # fmt: skip
FAULTS = {
    "one fault a record": Faults(markers={f"Question number {k}.": fault for k, fault in enumerate(EACH)}),
    "wrong key": Faults(api_key="another"),
    "form and quota": Faults(rejects=["json_schema", "temperature"], rates={"insufficient_quota": 0.5}),
}


def run(folder: Path, server: LLMServer, *options: str, base_url: str | None = None) -> subprocess.CompletedProcess:
    """The real command with a key in its environment."""
    environment = {**os.environ, **LOUD, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": base_url or server.base_url}
    command = [sys.executable, "-m", "annotator", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def files_with(folder: Path, *secrets: str) -> list[str]:
    """Files below a folder whose bytes hold one of the secrets."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets):
            found.append(str(path.relative_to(folder)))
    return found


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_the_key_is_in_no_output_file_cache_dead_letter_or_traceback(tmp_path, faults):
    """The server quotes the key in each error; the command may succeed or fail, but never says it."""
    items = write_items(tmp_path / "items.jsonl", 12)
    with LLMServer(faults) as server:
        server.configure(echoes_key=True)
        label = ["label", str(items), "-o", "labels.jsonl", "--kind", "item", "--judge", "openai:m", "--timeout", "5"]
        done = run(tmp_path, server, *label)
        seen = server.stats().keys
    assert seen[f"Bearer {KEY}"], "the key was sent"
    assert done.returncode in (0, 1, 4), done.stderr
    assert KEY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert files_with(tmp_path, KEY) == []


def test_neither_key_nor_password_show_in_votes_batches_and_crashes(tmp_path):
    """Other ways to the endpoint, and a crash of Python itself while a request is being answered."""
    items = write_items(tmp_path / "items.jsonl", 3)
    common = [str(items), "--kind", "item", "--cache-dir", "cache"]
    with LLMServer(Faults(rates={"forbidden": 1})) as server:
        server.configure(echoes_key=True)
        address = server.base_url.replace("http://", f"http://someone:{PASSWORD}@")
        outputs = [
            run(tmp_path, server, "label", *common, "-o", "a.jsonl", "--judge", "openai:m", "--votes", "2"),
            run(tmp_path, server, "label", *common, "-o", "c.jsonl", "--judge", "openai:m", base_url=address),
            run(
                tmp_path, server, "label", *common, "-o", "d.jsonl", "--judge", "instructor:openai/m", base_url=address
            ),
            run(tmp_path, server, "batch", "submit", *common, "--judge", "openai:m"),
        ]
        (tmp_path / "crash.py").write_text(
            "import annotator.judges.completion as c\n"
            "def crash(*_): raise RuntimeError('a bug of ours')\n"
            "import annotator.judges.chat as chat\nchat.status_fault = crash\n"
            "from annotator.cli import main\nmain()\n"
        )
        environment = {**os.environ, **LOUD, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": address}
        command = [sys.executable, "crash.py", "label", *common, "-o", "e.jsonl", "--judge", "openai:m"]
        crashed = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert "a bug of ours" in crashed.stderr
    for done in [*outputs, crashed]:
        said = done.stdout + done.stderr
        assert KEY not in said
        assert PASSWORD not in said
    assert files_with(tmp_path, KEY, PASSWORD) == []
    ledger = json.loads((tmp_path / "batches" / "ledger.json").read_text())
    assert ledger["batches"]
