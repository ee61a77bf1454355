"""`peerloom preview`: a few rows of a recipe, run at once and shown as dialogues.

It is a run like any other, in a directory that is removed at the end. The few rows, one trial of each and
the engine of this process come first among the overrides, so that what the user says wins.
"""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from peerloom.api import RunResult, drive, make_plan
from peerloom.cli.app import FAILED, INTERRUPTED, SUSPENDED, VERBS, guarded
from peerloom.cli.arguments import ConfigDir, Json, Overrides, Quiet, RecipeName, expanded
from peerloom.cli.commands.models import pull_embedded
from peerloom.cli.commands.run import tell_why
from peerloom.cli.output import echo_json
from peerloom.observe.console import open_console
from peerloom.observe.dialogue import print_row
from peerloom.observe.words import outcomes, plain

_CODES = {"drained": INTERRUPTED, "failed": FAILED, "suspended": SUSPENDED}


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("preview", help=VERBS["preview"])(guarded(preview))


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
    """Run, and print each row; with `--json` one object a line."""
    few = ("engine=local", "trials=1", f"limit={rows}")
    plan = make_plan(recipe, (*few, *(overrides or ())), config_dir=config_dir)
    pull_embedded(plan.config, quiet=quiet)
    with _directory(run_dir) as directory:
        result = drive(plan, run_dir=directory, progress=not quiet)
        _print(result, as_json=as_json)
    tell_why(result, quiet=quiet)
    if result.how in _CODES:
        raise typer.Exit(_CODES[result.how])


@contextmanager
def _directory(kept: Path | None) -> Generator[Path]:
    if kept is not None:
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="peerloom-preview-") as scratch:
        yield Path(scratch) / "run"


def _print(result: RunResult, *, as_json: bool) -> None:
    console = open_console()
    for row in sorted(result.rows(rejected=True), key=_place):
        if as_json:
            echo_json(row)
        else:
            print_row(console, row)
            console.print()
    if not as_json:
        console.print(plain(outcomes(result.summary["outcomes"]), "dim"), soft_wrap=True)


def _place(row: dict[str, Any]) -> list[int]:
    return [int(part) for part in row["id"].split("-")]
