#!/usr/bin/env python3
"""A cascade over real documents against the scripted server: calls made, and cost, beside what --dry-run said.

    .venv/bin/pip install bpe-openai           # the vocabulary in a wheel
    .venv/bin/python scripts/bench_cascade.py [--documents 20000] [--below 0.6] [--data ../shared/data]

Ends with code 1 if the calls are not exactly the documents below the threshold, or the cost is not within 5 % of the
forecast. The server counts prompts by that vocabulary, answers by four characters a token. Skips where the
development data is absent.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from llm_faults import Faults  # noqa: E402
from llm_server import LLMServer  # noqa: E402

from annotator.budget import price_of  # noqa: E402
from annotator.judges import Pace, Usage, open_judge  # noqa: E402
from annotator.judges.student import Student, embedded_path  # noqa: E402
from annotator.label import estimate, label  # noqa: E402
from annotator.prompts import load_prompt  # noqa: E402
from annotator.taxonomy import load_taxonomy  # noqa: E402

MODEL = "gpt-5-mini"
VOCABULARY = "o200k_base"  # by which the server counts prompts, as the provider of this model would
TOLERANCE = 0.05


def distinct_documents(data: Path, count: int, folder: Path) -> pl.DataFrame:
    """The first documents of the corpus with a text of their own, also written as shards into the folder."""
    shards = sorted((data / "corpus").glob("*.parquet"))
    documents = pl.concat([pl.read_parquet(shard, columns=["id", "text", "source"]) for shard in shards])
    documents = documents.unique("text", keep="first", maintain_order=True).head(count)
    for number, start in enumerate(range(0, documents.height, 4000)):
        documents.slice(start, 4000).write_parquet(folder / f"part-{number:03}.parquet")
    return documents


def main() -> int:
    """Forecast, label, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--below", type=float, default=0.6)
    arguments = parser.parse_args()
    if not (arguments.data / "corpus").exists():
        print(f"skipped: no corpus at {arguments.data}")
        return 0
    taxonomy = load_taxonomy()
    with tempfile.TemporaryDirectory() as name, LLMServer.spawn(Faults(vocabulary=VOCABULARY)) as server:
        folder = Path(name)
        (folder / "corpus").mkdir()
        documents = distinct_documents(arguments.data, arguments.documents, folder / "corpus")
        confidence = Student.load(embedded_path()).predict(documents["text"].to_list(), "document")["confidence"]
        below = int((confidence < arguments.below).sum())
        judge = open_judge(
            f"cascade:embedded,openai:{MODEL}",
            kind="document",
            taxonomy=taxonomy,
            prompt=load_prompt("document", taxonomy),
            base_url=server.base_url,
            api_key="none",
            pace=Pace(concurrency=128),
            below=arguments.below,
        )
        started = time.monotonic()
        forecast = estimate([folder / "corpus"], judge=judge, cache_dir=folder / "cache")
        print(f"forecast in {time.monotonic() - started:.0f} s")
        summary = label([folder / "corpus"], out=folder / "labels.parquet", judge=judge, cache_dir=folder / "cache")
        print(f"labelled in {summary.seconds:.0f} s")
        calls = server.stats().requests
    price = price_of(MODEL)
    full = price.cost(Usage(0, summary.input_tokens, 0, summary.output_tokens))
    rows = [
        ("calls, documents below", below, calls),
        ("calls", forecast.to_ask, calls),
        ("input tokens", forecast.input_tokens, summary.input_tokens),
        ("output tokens", forecast.output_tokens, summary.output_tokens),
        ("cost at full price, USD", forecast.cost_usd, full),
        ("cost with prompt cache, USD", forecast.cost_with_prompt_cache_usd, summary.cost_usd),
    ]
    print(f"{documents.height:,} documents, {summary.labelled:,} labelled, below {arguments.below:g}: {below:,}")
    print(f"{'':28} {'forecast':>14} {'in fact':>14} {'ratio':>7}")
    for what, expected, found in rows:
        print(f"{what:28} {expected:14,.2f} {found:14,.2f} {expected / found if found else 1:7.3f}")
    costs_fit = all(abs(expected - found) <= TOLERANCE * found for _, expected, found in rows[-2:])
    fits = calls == below == forecast.to_ask and costs_fit and summary.failed == 0
    print("as forecast" if fits else "NOT as forecast")
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())
