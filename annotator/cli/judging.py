"""Options of the commands that ask a judge, and the judge that they name."""

from __future__ import annotations

import os
from typing import Any

import click

from annotator.cli.common import F, finite, taxonomy_option

_OPTIONS = (
    click.option("--kind", type=click.Choice(["item", "document"]), required=True, help="What the records are."),
    click.option("--judge", "specs", multiple=True, default=["embedded"], show_default=True, metavar="SPEC",
                 help="embedded, embedded:accurate, student:PATH, openai:MODEL, instructor:PROVIDER/MODEL, or a "
                 "cascade of two: cascade:student:PATH,openai:MODEL. Several LLMs, with a --judge each, vote."),
    click.option("--votes", default=1, show_default=True, type=click.IntRange(1), metavar="N",
                 help="Ask an LLM N times for each record, with as many seeds, and merge the answers."),
    click.option("--below", type=click.FloatRange(0, 1, min_open=True), callback=finite, metavar="P",
                 help="A student gives no label (reason: unsure) where its confidence, the least of its calibrated "
                 "probabilities over the four axes, is below P; a cascade asks its LLM there. `annotator judge info` "
                 "says what a P costs and buys. [default: never; of a cascade 0.6]"),
    click.option("--base-url", metavar="URL", help="OpenAI-compatible endpoint (default: OPENAI_BASE_URL, or OpenAI)."),
    click.option("--prompt", "prompt_path", metavar="FILE", help="Your own prompt template for this side."),
    click.option("--cache-dir", default="cache", show_default=True, metavar="DIR", help="Where paid answers lie."),
    click.option("--temperature", type=click.FloatRange(0), callback=finite,
                 help="Sampling temperature of the judge. [default: 0; with --votes 0.7]"),
    click.option("--max-output-tokens", default=1024, show_default=True, type=click.IntRange(16), help="Per answer."),
    click.option("--max-input-tokens", type=click.IntRange(64), help="Cut longer records to head, middle and tail."),
    click.option("--chunks", type=click.IntRange(2), metavar="N",
                 help="Ask about longer records in up to N chunks of --max-input-tokens instead, and merge: the value "
                 "of the longest share of the text, operations of at least half of it, the weighted median of grades."),
    click.option("--strategy", default="auto", show_default=True,
                 type=click.Choice(["auto", "json_schema", "tools", "json_object"]),
                 help="How the judge is held to the schema."),
    click.option("--logprobs", is_flag=True,
                 help="Ask for log-probabilities and fill the column confidence, where the server gives them."),
    click.option("--endpoint-name", metavar="NAME", help="Keeps answers of two servers apart that share a model name."),
    taxonomy_option,
)  # fmt: skip


def judge_options(function: F) -> F:
    """Adds what names a judge and everything that can change its answers."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def key_of_environment(*, asks: bool = True) -> str | None:
    """OPENAI_API_KEY; where nobody is going to be asked, as in a forecast, a word in its place does."""
    return os.environ.get("OPENAI_API_KEY") or (None if asks else "none")


def chosen_judge(options: dict[str, Any], *, asks: bool = True, **pace: Any) -> Any:
    """The judge that the options name, reached as the environment says; `pace` holds limits such as rpm.

    asks: whether it is going to be asked, and so needs a key.
    """
    from annotator.judges import Pace, Sampling, account_headers, open_judge
    from annotator.prompts import load_prompt
    from annotator.taxonomy import load_taxonomy

    taxonomy = load_taxonomy(options["taxonomy_path"])
    temperature = options["temperature"]
    if temperature is None:
        temperature = 0.7 if options["votes"] > 1 else 0.0
    return open_judge(
        options["specs"],
        kind=options["kind"],
        taxonomy=taxonomy,
        prompt=load_prompt(options["kind"], taxonomy, options["prompt_path"]),
        pace=Pace(**pace),
        sampling=Sampling(
            temperature=temperature, max_output_tokens=options["max_output_tokens"], logprobs=options["logprobs"]
        ),
        strategy=options["strategy"],
        endpoint_name=options["endpoint_name"],
        votes=options["votes"],
        below=options["below"],
        cache_dir=options["cache_dir"],
        base_url=options["base_url"] or os.environ.get("OPENAI_BASE_URL"),
        api_key=key_of_environment(asks=asks),
        headers=account_headers(os.environ),
    )
