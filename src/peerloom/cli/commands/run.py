"""`peerloom run`: execute a recipe, or go on with its run."""

import contextlib
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from peerloom.api import Plan, RunResult, default_run_dir, drive, make_plan
from peerloom.cli.app import FAILED, INTERRUPTED, SUSPENDED, VERBS, guarded
from peerloom.cli.arguments import ConfigDir, Json, Overrides, Quiet, RecipeName, RetryFailed, expanded
from peerloom.cli.commands.models import pull_embedded
from peerloom.cli.dry_run import rehearse
from peerloom.cli.output import echo, echo_json
from peerloom.config.services import embedded_models
from peerloom.errors import PeerloomError, UsageError
from peerloom.observe import print_summary
from peerloom.observe.console import open_console
from peerloom.observe.words import plain
from peerloom.runtime.driver.session import Session
from peerloom.sink.layout import STATE
from peerloom.sink.read import read_rows
from peerloom.sink.rundir.directory import RunDir
from peerloom.terminal.printable import printable


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("run", help=VERBS["run"])(guarded(run))


def run(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    recipe: RecipeName,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where to write; a run that is there already is gone on with. "
            "[default: runs/<recipe>-<date>-<short id>]",
            show_default=False,
            callback=expanded,
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace an earlier run in that directory.")] = False,
    retry_failed: RetryFailed = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check all, print what would run, call no model and write nothing."),
    ] = False,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Plan, execute, and print the summary."""
    plan = make_plan(recipe, overrides or (), config_dir=config_dir)
    if dry_run:
        rehearse(plan, run_dir, fresh=fresh, retry_failed=retry_failed, as_json=as_json)
        return
    directory = run_dir or default_run_dir(plan.name)
    if run_dir is None:  # however the run ends, even if it is killed
        echo(f"run directory: {directory}", stderr=True)
    carry_out(plan, directory, as_json=as_json, quiet=quiet, fresh=fresh, retry_failed=retry_failed)


def carry_out(plan: Plan, directory: Path, *, as_json: bool, quiet: bool, **how: Any) -> None:
    """Execute a plan in a run directory, and print the summary; `how` goes to `execute`."""
    if embedded_models(plan.config) and not _is_done(plan, directory, **how):
        pull_embedded(plan.config, quiet=quiet)
    try:
        result = drive(plan, run_dir=directory, progress=not quiet, **how)
    except PeerloomError as error:
        if not isinstance(error, UsageError) and _has_rows(directory):
            echo(f"rows written before the error are in {directory}", stderr=True)
            _tell_how_to_go_on(directory)
        raise
    if as_json:
        shown = {"run_dir": str(result.run_dir), "how": result.how, **result.summary}
        echo_json(shown, indent=True)
    else:
        console = open_console()
        print_summary(console, result.summary, directory)
        if plan.config.sink.format == "parquet":
            console.print(plain(f"the same in {directory / '*.parquet'}"), soft_wrap=True)
    if result.how == "drained":
        _tell_how_to_go_on(directory)
        raise typer.Exit(INTERRUPTED)
    if result.how == "failed":
        tell_why(result, quiet=quiet)
        raise typer.Exit(FAILED)
    if result.how == "suspended":
        raise typer.Exit(SUSPENDED)


def tell_why(result: RunResult, *, quiet: bool) -> None:
    """Print why a run failed, unless the display has told of it."""
    if quiet and result.how == "failed":
        why = printable(str(result.summary.get("error", "every row failed")))
        echo(f"error: {why}", stderr=True)


def _has_rows(directory: Path) -> bool:
    """Whether a row can be read; whatever stands in the way, another error is being told of."""
    with contextlib.suppress(PeerloomError, OSError, ValueError):
        return any(read_rows(directory))
    return False


def _is_done(plan: Plan, directory: Path, *, fresh: bool = False, **how: Any) -> bool:
    """Whether an earlier session has left nothing to do: for that, or for a refusal, nothing is fetched.

    Raises:
        RunDirError: if the directory is taken, or holds another run.
    """
    if fresh or not (directory / STATE).exists():
        return False
    claimed = RunDir.claim(directory)
    try:
        return Session(claimed, plan.fingerprint(), **how).done is not None
    finally:
        claimed.release()


def _tell_how_to_go_on(directory: Path) -> None:
    echo(f"to go on: peerloom resume {shlex.quote(str(directory))}", stderr=True)
