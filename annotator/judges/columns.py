"""Opens students: judges that label columns of texts at once."""

from __future__ import annotations

from pathlib import Path

from annotator.errors import BadInput
from annotator.judges import StudentJudge
from annotator.taxonomy import Kind, Taxonomy


def open_student(spec: str, *, kind: Kind, taxonomy: Taxonomy, below: float | None = None) -> StudentJudge:
    """The student that `spec` names: "embedded", "embedded:accurate", or "student:PATH"; see `StudentJudge.below`.

    Raises:
        BadInput: no path, a folder that holds no readable student, or one that needs an extra which is not installed.
    """
    from annotator.judges.student import Student, embedded_path

    scheme, _, path = spec.partition(":")
    if scheme == "student" and not path:
        remedy = "Write student:FOLDER, with the folder that `annotator distill` made."
        raise BadInput("no path", where=spec, remedy=remedy)
    student = Student.load(embedded_path(spec) if scheme == "embedded" else Path(path))
    trained = student.card.get("taxonomy_version")
    if trained != taxonomy.version:
        what = f"was trained on taxonomy version {trained!r}, not {taxonomy.version!r}"
        raise BadInput(what, where=spec, remedy="Distil a student on labels of that taxonomy, or ask an LLM.")
    identity = {"api": "student", "student": student.fingerprint, "taxonomy": taxonomy.fingerprint}
    return StudentJudge(kind=kind, name=spec, taxonomy=taxonomy, identity=identity, student=student, below=below)
