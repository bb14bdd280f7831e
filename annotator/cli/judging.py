"""Options of the commands that ask a judge, and the judge that they name."""

from __future__ import annotations

import os
from typing import Any

import click

from annotator.cli.common import F, finite, taxonomy_option

_OPTIONS = (
    click.option("--kind", type=click.Choice(["item", "document"]), required=True, help="What the records are."),
    click.option("--judge", "spec", default="embedded", show_default=True, metavar="SPEC",
                 help="embedded, student:PATH, openai:MODEL, instructor:PROVIDER/MODEL, or a cascade of two: "
                 "cascade:student:PATH,openai:MODEL."),
    click.option("--below", type=click.FloatRange(0, 1, min_open=True), callback=finite, metavar="P",
                 help="Of a cascade: ask the LLM where the student's confidence, the least of its calibrated "
                 "probabilities over the four axes, is below P. [default: 0.6]"),
    click.option("--base-url", metavar="URL", help="OpenAI-compatible endpoint (default: OPENAI_BASE_URL, or OpenAI)."),
    click.option("--prompt", "prompt_path", metavar="FILE", help="Your own prompt template for this side."),
    click.option("--cache-dir", default="cache", show_default=True, metavar="DIR", help="Where paid answers lie."),
    click.option("--temperature", default=0.0, show_default=True, type=click.FloatRange(0), callback=finite,
                 help="Sampling temperature of the judge."),
    click.option("--max-output-tokens", default=1024, show_default=True, type=click.IntRange(16), help="Per answer."),
    click.option("--max-input-tokens", type=click.IntRange(64), help="Cut longer records to head, middle and tail."),
    click.option("--strategy", default="auto", show_default=True,
                 type=click.Choice(["auto", "json_schema", "tools", "json_object"]),
                 help="How the judge is held to the schema."),
    click.option("--endpoint-name", metavar="NAME", help="Keeps answers of two servers apart that share a model name."),
    taxonomy_option,
)  # fmt: skip


def judge_options(function: F) -> F:
    """Adds what names a judge and everything that can change its answers."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def chosen_judge(options: dict[str, Any], **pace: Any) -> Any:
    """The judge that the options name. The key comes from OPENAI_API_KEY; `pace` holds limits such as rpm."""
    from annotator.judges import Pace, Sampling, open_judge
    from annotator.prompts import load_prompt
    from annotator.taxonomy import load_taxonomy

    taxonomy = load_taxonomy(options["taxonomy_path"])
    return open_judge(
        options["spec"],
        kind=options["kind"],
        taxonomy=taxonomy,
        prompt=load_prompt(options["kind"], taxonomy, options["prompt_path"]),
        base_url=options["base_url"] or os.environ.get("OPENAI_BASE_URL"),
        api_key=os.environ.get("OPENAI_API_KEY"),
        pace=Pace(**pace),
        sampling=Sampling(temperature=options["temperature"], max_output_tokens=options["max_output_tokens"]),
        strategy=options["strategy"],
        endpoint_name=options["endpoint_name"],
        below=options["below"],
    )
