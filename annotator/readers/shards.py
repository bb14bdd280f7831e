"""Files, folders and globs as a sorted list of shards, each recognised by its content."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from annotator.errors import BadInput, did_you_mean
from annotator.readers.recognise import recognise

_TEXT_FORMATS = ("jsonl", "lm_eval", "nemo_skills")


@dataclass(frozen=True, slots=True)
class Shard:
    """One input file.

    path: where it is. name: unique among the shards of a command and independent of where their folder lies.
    format: what its content is (jsonl, csv, parquet, json, or a harness: lm_eval, inspect, ...).
    """

    path: Path
    name: str
    format: str

    def place(self, row: int) -> str:
        """How people find a 0-based row: the line in a text file, else the 1-based row.

        In jsonl a row is a line (blank ones count). In csv the header is line 1, and a record that spans several lines
        counts as one.
        """
        if self.format in _TEXT_FORMATS:
            return f"{self.path}:{row + 1}"
        if self.format == "csv":
            return f"{self.path}:{row + 2}"
        return f"{self.path}, row {row + 1}"


def find_shards(inputs: Sequence[str | Path]) -> list[Shard]:
    """The data files that some paths, folders or glob patterns mean, sorted by name.

    Folders are searched to the bottom; files in them that are neither a table nor a known log (a README, the results
    beside a log) are passed over, while a file that is named itself must be one. A file reached twice counts once.

    Raises:
        BadInput: nothing there, an empty pattern, or a file of no known format.
    """
    found: dict[Path, tuple[str, str]] = {}  # path -> (name within its input, format)
    for given in inputs:
        for path, name, file_format in _expand(str(given)):
            found.setdefault(path, (name, file_format))
    named: dict[str, list[Path]] = {}
    for path, (name, _) in found.items():
        named.setdefault(name, []).append(path)
    shards = []
    for name, paths in named.items():
        for path, unique in zip(paths, _distinct(name, paths)):
            shards.append(Shard(path, unique, found[path][1]))
    return sorted(shards, key=lambda shard: shard.name)


def _expand(given: str) -> list[tuple[Path, str, str]]:
    if not given.strip():
        raise BadInput("an empty path", where="input", remedy="Is a variable of the shell not set?")
    if "://" in given:
        raise BadInput("addresses are not read", where=given, remedy="Copy the files here first, and give their path.")
    path = Path(given)
    if path.is_dir():
        inside = sorted(inner for inner in path.rglob("*") if inner.is_file() and not _hidden(inner.relative_to(path)))
        found = [(inner, inner.relative_to(path).as_posix(), recognise(inner, in_folder=True)) for inner in inside]
        known = [(inner, name, kind) for inner, name, kind in found if kind]
        if not known:
            raise BadInput(
                "no table or evaluation log in this folder",
                where=given,
                remedy="It should hold .jsonl, .jsonl.gz, .jsonl.zst, .csv or .parquet files.",
            )
        return known
    if path.exists():
        return [(path, path.name, _recognised(path))]
    if not glob.has_magic(given):
        raise BadInput("no such file or folder", where=given, remedy=_similar(path))
    matches = sorted(Path(match) for match in glob.glob(given, recursive=True) if Path(match).is_file())
    if not matches:
        raise BadInput("no file matches this pattern", where=given, remedy="Check the pattern; quote it in a shell.")
    fixed = Path(*_before_magic(path.parts))
    return [(match, match.relative_to(fixed).as_posix(), _recognised(match)) for match in matches]


def _recognised(path: Path) -> str:
    kind = recognise(path, in_folder=False)
    if kind is None:
        raise BadInput(
            "not a table or evaluation log of a known format",
            where=str(path),
            remedy="Give .jsonl, .jsonl.gz, .jsonl.zst, .csv or .parquet, or a harness's own log.",
        )
    return kind


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _before_magic(parts: tuple[str, ...]) -> list[str]:
    fixed: list[str] = []
    for part in parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return fixed


def _distinct(name: str, paths: list[Path]) -> list[str]:
    """Names for files that share one: as many parent folders in front as it takes to tell them apart."""
    if len(paths) == 1:
        return [name]
    absolute = [path.resolve().parts for path in paths]
    for depth in range(2, max(map(len, absolute)) + 1):
        names = ["/".join(parts[-depth:]) for parts in absolute]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _similar(path: Path) -> str:
    try:
        beside = [inner.name for inner in path.parent.iterdir()]
    except OSError:
        return "Check the path."
    hint = did_you_mean(path.name, beside)
    return hint if hint.startswith("Did") else "Check the path."
