"""Implement `peerloom preview`: run a few rows of a recipe, and show them as dialogues.

A preview is an ordinary run, in a directory that is removed at the end if no row failed. Its own overrides
(a few rows, one trial of each, `engine=local`) come first, so that the user's take precedence.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from peerloom.api import RunResult, drive, make_plan
from peerloom.api.pilot import kept_or_temporary
from peerloom.cli.arguments import ConfigDir, Json, KeptRunDir, Overrides, Quiet, RecipeName
from peerloom.cli.commands.models import pull_embedded
from peerloom.cli.commands.run import exit_as
from peerloom.cli.output import echo, echo_json
from peerloom.observe.console import open_console
from peerloom.observe.dialogue import print_row
from peerloom.observe.words import outcomes, plain


def preview(
    recipe: RecipeName,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="The number of rows, from the first.")] = 3,
    run_dir: KeptRunDir = None,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the recipe, and print each row; with `--json` one object per line."""
    defaults = ("engine=local", "trials=1", f"limit={rows}")
    plan = make_plan(recipe, (*defaults, *(overrides or ())), config_dir=config_dir)
    pull_embedded(plan.config, quiet=quiet)
    directory: Path | None = None
    try:
        with kept_or_temporary(run_dir) as directory:
            result = drive(plan, run_dir=directory, progress=not quiet)
            _print(result, as_json=as_json)
    finally:
        if directory is not None and run_dir is None and directory.exists():
            echo(f"the run is kept in {directory}", stderr=True)
    exit_as(result, quiet=quiet)


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
