"""Where an export lies: its manifest beside it, and what may be replaced there.

A mixture is a folder that a trainer reads as a whole, so it is replaced as a whole. Only files that the manifest of an
earlier export lists are ever taken away; where there are others, nothing is written.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from annotator.errors import BadInput, some_of
from annotator.tables import write_probe

_PARTIAL = ".annotator-partial-"


def manifest_of(path: Path) -> Path:
    """Where the manifest of an export to `path` is written: beside it. Raises BadInput for "." and ".."."""
    if path.name in ("", ".."):
        raise BadInput("cannot be replaced", where=str(path), remedy="Name a file or a folder in it.")
    return path.with_name(f"{path.name}.manifest.json")


def check_folder(path: Path) -> None:
    """Raise BadInput unless a mixture may be written as the folder `path`.

    It may be missing, or empty, or hold the files of an earlier export alone, by the manifest beside it.
    """
    if path.exists() and not path.is_dir():
        raise BadInput("is a file", where=str(path), remedy="This format is a folder: name a new one.")
    ours = _listed(path)
    foreign = [str(file.relative_to(path)) for file in _files_in(path) if file not in ours]
    if foreign:
        what = "holds files that no export wrote" if ours else "is neither empty nor an export of ours"
        remedy = "Name a new or an empty folder, or move these files."
        raise BadInput(f"{what}: {some_of(foreign, most=3)}", where=str(path), remedy=remedy)


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """A folder to write a mixture to, with its manifest beside it; both are put in place of `path` in the end.

    What was there stays if the block raises. The new folder is made inside the old one, which may be a mount point or
    a link: it is never renamed itself.
    """
    check_folder(path)
    is_new = not path.exists()
    write_probe(path)
    for stale in path.glob(f"{_PARTIAL}*"):  # of an export that was cut short
        shutil.rmtree(stale, ignore_errors=True)
    room = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=path))
    try:
        partial = room / path.name
        partial.mkdir()
        yield partial
        remove(path)
        # The manifest first: cut between the two, the next export knows the files for its own.
        shutil.move(manifest_of(partial), manifest_of(path))
        for child in sorted(partial.iterdir()):
            child.rename(path / child.name)
    finally:
        shutil.rmtree(room, ignore_errors=True)
        if is_new:
            _remove_if_empty(path)


def remove(path: Path) -> None:
    """Take away what an export wrote to `path`, and its manifest; other files in a folder stay."""
    if path.is_dir():
        for file in _listed(path):
            file.unlink(missing_ok=True)
        for folder in sorted((each for each in path.rglob("*") if each.is_dir()), reverse=True):
            _remove_if_empty(folder)
        _remove_if_empty(path)
    else:
        path.unlink(missing_ok=True)
    manifest_of(path).unlink(missing_ok=True)


def digests_of(path: Path) -> dict[str, str]:
    """SHA-256 of a file, or of each file in a folder, by its path."""
    files = [path] if path.is_file() else _files_in(path)
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _files_in(folder: Path) -> list[Path]:
    """All files beneath a folder, but for those of an export that was cut short."""
    found = (file for file in folder.rglob("*") if not file.is_dir())
    return sorted(file for file in found if not file.relative_to(folder).parts[0].startswith(_PARTIAL))


def _listed(path: Path) -> set[Path]:
    """The files of an earlier export to the folder `path`, by its manifest; none without a manifest of ours."""
    try:
        manifest = json.loads(manifest_of(path).read_bytes())
        root = Path(manifest["files"][0]).parent  # the folder's name as it was given then
        return {path / Path(name).relative_to(root) for name in manifest["sha256"]}
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        with suppress(OSError):  # a mount point or a link
            folder.rmdir()
