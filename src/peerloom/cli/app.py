"""Which verbs there are, and what becomes of their errors.

Only the module of the verb that was asked for is imported, so that `peerloom --help` is quick. A verb's
module has `add_to(app)`. Exit codes: 0 done; 1 failed while running; 2 what the user wrote cannot run;
3 the budget is used up and tasks are suspended; 130 interrupted, also if a first Ctrl-C let the run finish
what was in flight.
"""

import functools
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, ParamSpec, TypeVar

import typer

from peerloom.cli.output import echo
from peerloom.errors import PeerloomError, UsageError
from peerloom.terminal.streams import reopen_closed
from peerloom.values import escaped

P = ParamSpec("P")
R = TypeVar("R")

VERBS = {
    "new": "Begin a recipe of your own: a directory that runs at once.",
    "preview": "Run a few rows, and show the dialogues.",
    "run": "Run a recipe over a source, and write its rows.",
    "resume": "Go on with a run where it was.",
    "check": "Check configuration and workflow; nothing is started.",
    "estimate": "Say what a run will cost and how long it takes, from a few rows.",
    "export": "Write a run's rows to one Parquet or JSONL file.",
    "ctl": "Ask or steer a run that goes on.",
    "recipes": "List the recipes there are.",
    "models": "List models for the embedded engine, or pull one.",
    "serve": "Start, watch and end fleets of model servers.",
    "simulate-llm": "Serve a simulated model over OpenAI's protocol.",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process."""
    reopen_closed()
    given = list(sys.argv[1:] if arguments is None else arguments)
    _find_own_modules()
    app = typer.Typer(
        help="Synthetic training data from many LLM agents at once, peer to peer.",
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_common)
    asked = next((word for word in given if not word.startswith("-")), None)
    for verb, summary in VERBS.items():
        if verb == asked:
            importlib.import_module(f"peerloom.cli.commands.{verb.replace('-', '_')}").add_to(app)
        else:
            app.command(verb, help=summary)(_not_asked)
    try:
        _check_encoding(given)
        app(args=given, prog_name="peerloom")
    finally:
        _flush()


FAILED = 1
USAGE = 2
SUSPENDED = 3
INTERRUPTED = 130
"""Exit codes beside 0, see this module."""


def guarded(verb: Callable[P, R]) -> Callable[P, R]:
    """The verb, with its errors as one clear message each and an exit code."""

    @functools.wraps(verb)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return verb(*args, **kwargs)
        except UsageError as error:
            raise _failed(error, USAGE) from error
        except PeerloomError as error:
            raise _failed(error, FAILED) from error
        except KeyboardInterrupt as error:
            echo("interrupted", stderr=True)
            raise typer.Exit(INTERRUPTED) from error

    return call


def _flush() -> None:
    """Write what is buffered; if nobody reads it, drop it, or Python would end with exit code 120."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)


def _check_encoding(given: Sequence[str]) -> None:
    """Refuse arguments that are no text, before anything starts: rows and logs could not name them."""
    for number, word in enumerate((*given, os.getcwd()), 1):
        if escaped(word) != word:
            what = f"argument {number}" if number <= len(given) else "the current directory"
            locale = sys.getfilesystemencoding()
            hint = "" if locale == "utf-8" else f" (this locale's encoding is {locale}: set PYTHONUTF8=1)"
            echo(f"error: {what} is not UTF-8: {escaped(word)}{hint}. Rename it, or use a link", stderr=True)
            raise SystemExit(USAGE)


def _find_own_modules() -> None:
    """Recipes in the current directory can be imported; it comes last, so no file there hides a package."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def _failed(error: PeerloomError, code: int) -> typer.Exit:
    for line in str(error).splitlines():
        echo(f"error: {line}", stderr=True)
    return typer.Exit(code)


def _print_version(asked: bool) -> None:
    if asked:
        echo(version("peerloom"))
        raise typer.Exit


def _common(
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Options before the verb."""


def _not_asked() -> None:
    """Stands for a verb in the list of verbs."""
