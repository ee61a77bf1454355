"""Implement `peerloom preview`: run a few rows of a recipe, and show them as dialogues.

A preview is an ordinary run, in a directory that is removed at the end. Its own overrides (a few rows, one
trial of each, `engine=local`) come first, so that the user's take precedence.
"""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from peerloom.api import RunResult, drive, make_plan
from peerloom.cli.app import FAILED, INTERRUPTED, SUSPENDED, VERBS, handle_errors
from peerloom.cli.arguments import ConfigDir, Json, Overrides, Quiet, RecipeName, expanded
from peerloom.cli.commands.models import pull_embedded
from peerloom.cli.commands.run import print_failure
from peerloom.cli.output import echo_json
from peerloom.observe.console import open_console
from peerloom.observe.dialogue import print_row
from peerloom.observe.words import outcomes, plain

_CODES = {"drained": INTERRUPTED, "failed": FAILED, "suspended": SUSPENDED}


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("preview", help=VERBS["preview"])(handle_errors(preview))


def preview(
    recipe: RecipeName,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="How many, from the first.")] = 3,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="Keep the run there; otherwise nothing is left of it.", show_default=False, callback=expanded
        ),
    ] = None,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the recipe, and print each row; with `--json` one object per line."""
    defaults = ("engine=local", "trials=1", f"limit={rows}")
    plan = make_plan(recipe, (*defaults, *(overrides or ())), config_dir=config_dir)
    pull_embedded(plan.config, quiet=quiet)
    with _directory(run_dir) as directory:
        result = drive(plan, run_dir=directory, progress=not quiet)
        _print(result, as_json=as_json)
    print_failure(result, quiet=quiet)
    if result.how in _CODES:
        raise typer.Exit(_CODES[result.how])


@contextmanager
def _directory(run_dir: Path | None) -> Generator[Path]:
    if run_dir is not None:
        yield run_dir
        return
    with tempfile.TemporaryDirectory(prefix="peerloom-preview-") as scratch:
        yield Path(scratch) / "run"


def _print(result: RunResult, *, as_json: bool) -> None:
    console = open_console()
    for row in sorted(result.rows(rejected=True), key=_sort_key):
        if as_json:
            echo_json(row)
        else:
            print_row(console, row)
            console.print()
    if not as_json:
        console.print(plain(outcomes(result.summary["outcomes"]), "dim"), soft_wrap=True)


def _sort_key(row: dict[str, Any]) -> list[int]:
    return [int(part) for part in row["id"].split("-")]
