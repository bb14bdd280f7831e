"""The command line: one thin command per step, loaded only when it is called.

`annotator --help` must not import polars, openai or a judge, so the list below carries the one-line helps.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
from typing import NoReturn

import click

from annotator.errors import AnnotatorError

# In the order in which the loop uses them.
COMMANDS = {
    "demo": "Run the whole loop on the bundled example, offline.",
    "run": "Run the whole loop from one settings file; resumable.",
    "label": "Label items or documents with a judge.",
    "batch": "Label through batch files: half the price, within a day.",
    "slices": "Find the capability slices that really fail.",
    "diagnose": "Say whether training data can be the cause at all.",
    "categories": "Show a labelled corpus as a table of categories.",
    "match": "Link failing slices to corpus categories by written rules.",
    "rank": "Rank documents for upsampling under a token budget.",
    "decontaminate": "Find documents that quote benchmark items.",
    "export": "Write the ranked list in a format that trainers read.",
    "verify": "Say what a change of the training data did.",
    "report": "Make one self-contained page from the artefacts of a run.",
    "review": "Look at labels and correct them; the answers are gold.",
    "agree": "Measure how far label tables agree, per axis and value.",
    "sample": "Choose the records that an LLM should label next.",
    "distill": "Train a student judge on labels, to label a corpus on a CPU.",
    "judge": "Show what a judge is and how far it can be trusted.",
    "taxonomy": "Show, check, compare or measure the four-axis codebook.",
    "rules": "Check or explain the mapping rules.",
    "cache": "Look into the cache of paid answers.",
}

EPILOG = """
\b
Exit codes: 0 done; 1 done, but some rows failed (see the dead-letter file);
2 wrong input or settings; 3 stopped early, the same command resumes;
4 the judge cannot be used.

\b
With --json, stdout has one JSON object at 2, 3 and 4 too: {"status", "exit_code", "reason"};
the status is bad_input, stopped or judge_unusable.
"""
_STATUSES = {2: "bad_input", 3: "stopped", 4: "judge_unusable"}


class LazyGroup(click.Group):
    """A group that imports `annotator.cli.NAME` only when NAME is called, and finds its `command` there."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"annotator.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from annotator.errors import did_you_mean

            raise click.UsageError(f"no command {args[0]!r}. {did_you_mean(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="annotator", message="annotator %(version)s")
def application() -> None:
    """From failing benchmark slices to the documents to train on.

    \b
    A judge labels evaluation items and pretraining documents in one vocabulary;
    slices of items that share labels are tested for failure; a diagnosis asks
    whether data can be the cause; written rules link failing slices to corpus
    categories; documents are ranked for upsampling under a token budget.

    \b
    Start here:
      annotator demo                     everything, offline, in a minute
      annotator label items.jsonl -o labels.parquet --kind item --judge openai:gpt-5-mini
      annotator run loop.toml            the whole loop from one file
    """


def main() -> None:
    """Entry point: runs a command and turns our errors into one line on stderr and an exit code."""
    try:
        # Not application.main(), which makes a closed pipe exit code 1: here that means that rows failed.
        with application.make_context("annotator", sys.argv[1:] or ["--help"]) as context:
            status = application.invoke(context)
        sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "annotator"
        _fail(2, f"{' '.join(error.format_message().split())} See {command} --help.", command=command)
    except click.ClickException as error:
        _fail(2, error.format_message())
    except AnnotatorError as error:
        _fail(error.exit_code, str(error))
    except (KeyboardInterrupt, click.Abort):
        _fail(3, "interrupted. What was done is kept; the same command goes on from there.")
    except BrokenPipeError:  # `annotator ... | head` is not an error
        _drop_stdout()
        sys.exit(0)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _drop_stdout()
        click.echo(f"annotator: the output cannot be written ({error.strerror}).", err=True)
        sys.exit(2)


def _fail(exit_code: int, reason: str, *, command: str = "annotator") -> NoReturn:
    """One line on stderr for people; on stdout, when --json was given, the same for scripts."""
    click.echo(f"{command}: {reason}", err=True)
    if "--json" in sys.argv:  # the options may be what is wrong, so there need be no parsed ones
        status = _STATUSES.get(exit_code, "failed")
        click.echo(json.dumps({"status": status, "exit_code": exit_code, "reason": reason}))
    sys.exit(exit_code)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _drop_stdout() -> None:
    """Let what is still buffered go nowhere: Python would complain of it on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
