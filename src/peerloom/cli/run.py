"""`peerloom run`: execute a recipe."""

from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from peerloom.api import default_run_dir, drive, make_plan
from peerloom.cli.app import VERBS, guarded
from peerloom.cli.arguments import ConfigDir, Json, Overrides, RecipeName
from peerloom.cli.models import pull_with_bar
from peerloom.config.llm import LlamaCpp
from peerloom.errors import PeerloomError, UsageError
from peerloom.observe import print_summary
from peerloom.sink.read import read_rows


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("run", help=VERBS["run"])(guarded(run))


def run(
    recipe: RecipeName,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Where to write. [default: runs/<recipe>-<date>-<short id>]", show_default=False),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace an earlier run in that directory.")] = False,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Plan, execute, and print the summary."""
    plan = make_plan(recipe, overrides or (), config_dir=config_dir)
    if isinstance(plan.config.llm, LlamaCpp):
        pull_with_bar(plan.config.llm.model, quiet=quiet)
    directory = run_dir or default_run_dir(plan.name)
    try:
        result = drive(plan, run_dir=directory, fresh=fresh, progress=not quiet)
    except PeerloomError as error:
        if not isinstance(error, UsageError) and any(read_rows(directory)):
            typer.echo(f"rows written before the error are in {directory}", err=True)
        raise
    if as_json:
        shown = {"run_dir": str(result.run_dir), "how": result.how, **result.summary}
        typer.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2))
    else:
        print_summary(Console(), result.summary, directory)
    if result.how == "drained":
        raise typer.Exit(130)
