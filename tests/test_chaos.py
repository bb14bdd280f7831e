"""The chaos run in small: faults of every kind, kill -9, two processes on one cache."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from chaos_label import chaos


def test_every_promise_holds_under_faults_and_kills(tmp_path):
    """One record, one end; nothing answered is paid for again but what was in flight; the labels of a calm run."""
    report = chaos(tmp_path, records=150, kills=1, seed=3)
    assert report["held"] == dict.fromkeys(report["held"], True), report
