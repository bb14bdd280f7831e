"""Where the shipped files lie: `prompts/`, `schemas/` and `examples/`.

They are top-level folders of the repository, so that people find them; a wheel carries them inside the package.
"""

from __future__ import annotations

from pathlib import Path

_INSIDE_WHEEL = Path(__file__).parent / "_data"
_REPOSITORY = Path(__file__).parent.parent


def resource(*parts: str) -> Path:
    """The path of a shipped file or folder: `resource("schemas", "taxonomy.toml")`.

    Raises:
        FileNotFoundError: if the installation lacks it (a broken build, not a user's mistake).
    """
    for root in (_INSIDE_WHEEL, _REPOSITORY):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise FileNotFoundError(f"this installation lacks {'/'.join(parts)}: reinstall annotator")
