"""What `match`, `rank` and `categories` set up alike: the rules, the labels of the documents, the corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from annotator.cli.common import F
from annotator.errors import BadInput


def rules_option(function: F) -> F:
    """Adds --rules FILE|PACK."""
    return click.option(
        "--rules", "rules_path", metavar="FILE|PACK",
        help="Your own mapping rules, or a pack for a corpus with labels of its own: weborganizer, essential-web.",
    )(function)  # fmt: skip


def labels_option(function: F) -> F:
    """Adds --document-labels FILE."""
    return click.option(
        "--document-labels", "labels_path", metavar="FILE", help="Labels of the documents; not needed with a pack."
    )(function)


def tokenizer_option(function: F) -> F:
    """Adds --tokenizer FILE."""
    return click.option(
        "--tokenizer", "tokenizer_path", metavar="FILE",
        help="Count tokens with this tokenizer.json (package tokenizers), not by the corpus's column or its bytes.",
    )(function)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Corpus:
    """The labelled corpus of a command, and the rules for it.

    labels: a scan of LABELS; None with a pack. columns: renamings for the readers of documents.
    """

    taxonomy: Any
    rules: Any
    labels: Any
    columns: dict[str, str]
    count_tokens: Callable[[list[str]], list[int]] | None

    def scan(self, documents: Sequence[str], *, also: Sequence[str] = ()) -> Any:
        """The documents as a lazy table, with further columns of theirs; None if there are none."""
        from annotator.matching.corpus import scan_documents

        if not documents:
            return None
        options = {"columns": self.columns, "rules": self.rules, "also": also, "count_tokens": self.count_tokens}
        return scan_documents(documents, **options)

    def made_from(self, **more: Any) -> dict[str, Any]:
        """Fingerprints and versions for the metadata of a table."""
        return {
            "annotator": version("annotator"),
            "rules": self.rules.fingerprint,
            "rules_version": self.rules.version,
            "taxonomy": self.taxonomy.fingerprint,
            "taxonomy_version": self.taxonomy.version,
            **({} if self.rules.needs_labels else {"own_labels": True}),
            **more,
        }


def open_corpus(
    *,
    labels_path: str | None,
    rules_path: str | None,
    taxonomy_path: str | None,
    columns: Mapping[str, str],
    tables: Sequence[str] = (),
    tokenizer_path: str | None = None,
) -> Corpus:
    """Rules and labels of a command, checked against each other.

    Args:
        tables: tables of ours that must be of the same taxonomy version and, where they name any, the same rules.

    Raises:
        BadInput: no labels where the rules need them, or another taxonomy version or other rules.
    """
    from annotator.mapping import load_rules, renamed
    from annotator.matching.corpus import load_tokenizer
    from annotator.matching.labels import scan_labels, taxonomy_versions
    from annotator.tables import agree_on_taxonomy, read_made_from, same_taxonomy
    from annotator.taxonomy import load_taxonomy

    taxonomy = load_taxonomy(taxonomy_path)
    rules, rest = renamed(load_rules(rules_path, taxonomy=taxonomy), columns)
    if rules.needs_labels and labels_path is None:
        remedy = "Label the documents with `annotator label`, or give --rules weborganizer or essential-web."
        raise BadInput("is missing", where="--document-labels", remedy=remedy)
    labels = scan_labels(Path(labels_path)) if rules.needs_labels and labels_path is not None else None
    versions = {"the taxonomy": taxonomy.version}
    for path in tables:
        made_from = read_made_from(Path(path))
        versions[path] = made_from.get("taxonomy_version")
        if made_from.get("rules", rules.fingerprint) != rules.fingerprint:
            remedy = "Give the same --rules, or match again with these."
            raise BadInput("was made with other rules", where=path, remedy=remedy)
    if labels is not None and labels_path is not None:
        versions[labels_path] = same_taxonomy({labels_path: taxonomy_versions(labels)})
    agree_on_taxonomy(versions)
    count_tokens = load_tokenizer(tokenizer_path) if tokenizer_path else None
    return Corpus(taxonomy, rules, labels, rest, count_tokens)
