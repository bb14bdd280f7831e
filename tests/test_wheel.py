"""A built wheel carries prompts, schemas, examples and the embedded judge, and runs the demo from anywhere."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_carries_the_top_level_folders(wheel):
    """They lie outside the package in the repository."""
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("prompts/item.md", "schemas/taxonomy.toml", "schemas/mapping.toml", "examples/loop.toml"):
        assert f"annotator/_data/{name}" in names
    assert any(name.startswith("annotator/judges/embedded/") for name in names)


def test_the_installed_wheel_runs_the_demo_in_an_empty_environment(wheel, tmp_path):
    """A fresh environment, another folder, no repository in sight."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=120)
    install = [environment / "bin/python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel]
    installed = subprocess.run(list(map(str, install)), capture_output=True, text=True, timeout=600)
    assert installed.returncode == 0, installed.stderr
    done = subprocess.run(
        [environment / "bin/annotator", "demo", "--out", "out"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "upsample.parquet").exists()
    assert "Documents to train on" in done.stdout
