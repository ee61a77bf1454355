"""Dispatch the verbs of the command line, and report their errors.

Only the module of the given verb is imported, so that `peerloom --help` is fast. It has a function of the
verb's name, or `COMMANDS`, the functions and summaries of its subcommands; those without a summary are
hidden. The exit codes are 0 for success; 1 for a failure
while running; 2 for invalid input of the user; 3 if the budget is used up and tasks are suspended; 130 if
interrupted, even if the run finished its tasks in flight after the first Ctrl-C.
"""

import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
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
    "new": "Create a recipe of your own, ready to run.",
    "preview": "Run a few rows, and show the dialogues.",
    "run": "Run a recipe over a source, and write its rows.",
    "resume": "Resume a run.",
    "check": "Check configuration and workflow; nothing is started.",
    "estimate": "Estimate a run's cost and duration from a few rows.",
    "show": "Show a run's rows as dialogues.",
    "export": "Write a run's rows to one Parquet or JSONL file.",
    "ctl": "Query or control an active run.",
    "recipes": "List the available recipes.",
    "models": "List models for the embedded engine, or pull one.",
    "serve": "Start, inspect and stop fleets of model servers.",
    "simulate-llm": "Serve a simulated model over OpenAI's protocol.",
}

SERVERS = ("serve", "simulate-llm")
"""The verbs whose modules are in `cli/serve/`; those of the others are in `cli/commands/`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit the process."""
    reopen_closed()
    given = list(sys.argv[1:] if arguments is None else arguments)
    _add_current_directory()
    app = typer.Typer(
        help="Synthetic training data from many LLM agents at once, peer to peer.",
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_common)
    given_verb = next((word for word in given if not word.startswith("-")), None)
    for verb, summary in VERBS.items():
        if verb != given_verb:
            app.command(verb, help=summary)(_placeholder)
            continue
        folder = "serve" if verb in SERVERS else "commands"
        module = importlib.import_module(f"peerloom.cli.{folder}.{verb.replace('-', '_')}")
        if hasattr(module, "COMMANDS"):
            app.add_typer(_subcommands(summary, module.COMMANDS), name=verb)
        else:
            function = getattr(module, verb.replace("-", "_"))
            app.command(verb, help=summary)(handle_errors(function))
    try:
        _check_encoding(given)
        app(args=given, prog_name="peerloom")
    finally:
        _flush()


FAILED = 1
USAGE = 2
SUSPENDED = 3
INTERRUPTED = 130
"""The exit codes besides 0, see the module's docstring."""


def handle_errors(verb: Callable[P, R]) -> Callable[P, R]:
    """Return the verb with its errors converted to messages and exit codes."""

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


def _subcommands(summary: str, commands: Mapping[str, tuple[Callable[..., None], str]]) -> typer.Typer:
    app = typer.Typer(help=summary, no_args_is_help=True, rich_markup_mode=None)
    for name, (function, help) in commands.items():
        app.command(name, help=help, hidden=not help)(handle_errors(function))
    return app


def _flush() -> None:
    """Flush the streams; drop the output of a closed one, or Python would exit with code 120."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)


def _check_encoding(given: Sequence[str]) -> None:
    """Refuse arguments that are not UTF-8 before anything starts: rows and logs could not contain them."""
    for number, word in enumerate((*given, os.getcwd()), 1):
        if escaped(word) != word:
            subject = f"argument {number}" if number <= len(given) else "the current directory"
            locale = sys.getfilesystemencoding()
            hint = "" if locale == "utf-8" else f" (this locale's encoding is {locale}: set PYTHONUTF8=1)"
            echo(
                f"error: {subject} is not UTF-8: {escaped(word)}{hint}. Rename it, or use a link", stderr=True
            )
            raise SystemExit(USAGE)


def _add_current_directory() -> None:
    """Make recipes in the current directory importable, after all packages, so that they hide none."""
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.append(directory)


def _failed(error: PeerloomError, code: int) -> typer.Exit:
    for line in str(error).splitlines():
        echo(f"error: {line}", stderr=True)
    return typer.Exit(code)


def _print_version(requested: bool) -> None:
    if requested:
        echo(version("peerloom"))
        raise typer.Exit


def _common(
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Define the options before the verb."""


def _placeholder() -> None:
    """Stand in for a verb whose module is not imported."""
