"""The ledger of a run's steps: which are finished, from what, and what they gave; kept in `steps.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from annotator.errors import BadInput
from annotator.fingerprint import fingerprint
from annotator.tables import beside, write_json
from annotator.taxonomy import Taxonomy

Progress = Callable[[str, str, Any], None]
"""Called as progress(step, state, detail): state is "started", "working", "done", "resumed" or "skipped"."""


class Steps:
    """The steps of one run in one folder.

    Attributes:
        artefacts: step -> path of what it wrote.
        summaries: step -> what it reported, JSON-ready.
    """

    def __init__(self, out: Path, taxonomy: Taxonomy, progress: Progress) -> None:
        self.artefacts: dict[str, Path] = {}
        self.summaries: dict[str, Any] = {}
        self._out, self._taxonomy, self._progress = out, taxonomy, progress
        self._finished = _read_finished(out / "steps.json")

    def summary_before(self, name: str) -> dict[str, Any]:
        """What a step reported when an earlier run finished it; empty where none did."""
        return self._finished.get(name, {}).get("summary", {})

    def do(
        self,
        name: str,
        file: str,
        inputs: Sequence[Any],
        do: Callable[[Path], Mapping[str, Any]],
        *,
        again: bool = False,
    ) -> None:
        """Do one step, unless it is finished and nothing that it depends on has changed.

        Args:
            file: the artefact's name inside the output folder.
            inputs: settings (JSON values) and files (Path) that the step depends on.
            do: writes the artefact to the path it is given, and returns a JSON-ready summary.
            again: do it in any case.
        """
        path = self._out / file
        key = fingerprint([version("annotator"), self._taxonomy.fingerprint, *map(_identity, inputs)])
        before = self._finished.get(name, {})
        self.artefacts[name] = path
        if not again and before.get("key") == key and before["files"] == self._sizes(path):
            self.summaries[name] = before["summary"]
            self._progress(name, "resumed", before["summary"])
            return
        self._progress(name, "started", None)
        self._forget(name)  # before any of its files changes: a step that is cut short is not finished
        summary = dict(do(path))
        self.summaries[name] = summary
        self._finished[name] = {"key": key, "summary": summary, "files": self._sizes(path)}
        write_json(self._out / "steps.json", self._finished)
        self._progress(name, "done", summary)

    def skip(self, name: str, file: str, reason: str) -> None:
        """Leave a step out and say why. What an earlier run wrote is removed: it would contradict this one."""
        self._forget(name)
        for path in (self._out / file, beside(self._out / file, "dropped.parquet")):
            if not path.is_dir():  # what lies in a folder is taken away by those who know what is theirs
                path.unlink(missing_ok=True)
        self._progress(name, "skipped", reason)

    def _forget(self, name: str) -> None:
        if self._finished.pop(name, None) is not None:
            write_json(self._out / "steps.json", self._finished)

    def _sizes(self, path: Path) -> dict[str, int]:
        """Bytes of every file that a step wrote, by its name inside the output folder."""
        beneath = sorted(path.rglob("*")) if path.is_dir() else [path, beside(path, "dropped.parquet")]
        return {str(file.relative_to(self._out)): file.stat().st_size for file in beneath if file.is_file()}


def _identity(value: Any) -> Any:
    """What a step's key holds of an input: files by place, size and time of change, everything else by value."""
    if isinstance(value, Path):
        found = value.stat()
        return [str(value), found.st_size, found.st_mtime_ns]
    return value


def _read_finished(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        raise BadInput(
            "is not a list of finished steps", where=str(path), remedy="Delete it; all is done again."
        ) from None
    return found if isinstance(found, dict) else {}
