"""One self-contained page from the artefacts of a run: what was found, what to do, and what it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from annotator.report.artefacts import ARTEFACTS, open_folder
from annotator.report.documents import documents_section, dropped_section, first_lines, totals
from annotator.report.headline import headline
from annotator.report.overview import labels_section, provenance_section
from annotator.report.sections import diagnosis_section, matches_section, names_of_slices, slices_section
from annotator.report.verification import verification_section

__all__ = ["report"]


def report(
    folder: str | Path, *, documents: Sequence[str | Path] = (), columns: Mapping[str, str] | None = None
) -> str:
    """The artefacts of a run as one HTML page: no script, nothing loaded from elsewhere, the same bytes each time.

    Args:
        folder: what `annotator run` wrote, or a folder with the same file names. Whatever is missing is named on the
            page, with the command that makes it.
        documents: the corpus (files, folders or globs), so that the first line of each listed document can be shown.
        columns: canonical name -> the corpus's own column name.

    Raises:
        BadInput: no such folder, nothing of a run in it, or a damaged artefact.
    """
    found = open_folder(Path(folder))
    slices = found.read("slices")
    names = names_of_slices(slices)
    chosen = totals(found)
    lines = first_lines(found, documents, columns or {})
    # A verification comes after training, and a corpus may carry labels of its own.
    unneeded = {"verification", *(["document_labels"] if found.made_from.get("matches", {}).get("own_labels") else [])}
    return _page().render(
        head=headline(found, slices, chosen),
        missing=[ARTEFACTS[name] for name in found.missing if name not in unneeded],
        outdated=[ARTEFACTS[name] for name in found.outdated],
        diagnosis=diagnosis_section(found),
        slices=slices_section(found, slices),
        matches=matches_section(found, slices),
        documents=documents_section(found, names, lines),
        dropped=dropped_section(found),
        verification=verification_section(found, names),
        labels=labels_section(found),
        provenance=provenance_section(found),
    )


def _page() -> Template:
    # Autoescape is always on: ids, texts and outputs are foreign, and the page may be sent around.
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2")
