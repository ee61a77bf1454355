"""Implement `peerloom run`: execute a recipe, or continue its run."""

import contextlib
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from peerloom.api import Plan, RunResult, default_run_dir, drive, make_plan
from peerloom.cli.app import FAILED, INTERRUPTED, SUSPENDED
from peerloom.cli.arguments import (
    AcceptProgram,
    ConfigDir,
    Json,
    Overrides,
    Quiet,
    RecipeName,
    RetryFailed,
    expanded,
)
from peerloom.cli.commands.models import pull_embedded
from peerloom.cli.dry_run import print_dry_run
from peerloom.cli.output import echo, echo_json
from peerloom.config.build import embedded_models
from peerloom.errors import PeerloomError, UsageError
from peerloom.observe import print_summary
from peerloom.observe.console import open_console
from peerloom.observe.words import plain
from peerloom.sink.layout import STATE
from peerloom.sink.read import read_rows
from peerloom.sink.rundir.directory import RunDir

_CODES = {"drained": INTERRUPTED, "failed": FAILED, "suspended": SUSPENDED}


def run(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    recipe: RecipeName,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where to write; an unfinished run in it is resumed. "
            "[default: runs/<recipe>-<date>-<short id>]",
            show_default=False,
            callback=expanded,
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace an earlier run in that directory.")] = False,
    retry_failed: RetryFailed = False,
    accept_program: AcceptProgram = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check everything and print the plan; call no model and write nothing."
        ),
    ] = False,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Plan the run, execute it, and print the summary."""
    plan = make_plan(recipe, overrides or (), config_dir=config_dir)
    options = {"retry_failed": retry_failed, "accept_program": accept_program}
    if dry_run:
        print_dry_run(plan, run_dir, as_json=as_json, fresh=fresh, **options)
        return
    directory = run_dir or default_run_dir(plan.name)
    if run_dir is None:  # printed first, in case the run is killed
        echo(f"run directory: {directory}", stderr=True)
    execute_plan(plan, directory, as_json=as_json, quiet=quiet, fresh=fresh, **options)


def execute_plan(plan: Plan, directory: Path, *, as_json: bool, quiet: bool, **options: Any) -> None:
    """Execute a plan in a run directory with these options of `execute`, and print the summary."""
    if embedded_models(plan.config) and not _is_done(plan, directory, **options):
        pull_embedded(plan.config, quiet=quiet)
    try:
        result = drive(plan, run_dir=directory, progress=not quiet, **options)
    except PeerloomError as error:
        if not isinstance(error, UsageError) and _has_rows(directory):
            echo(f"rows written before the error are in {directory}", stderr=True)
            _print_resume_hint(directory)
        raise
    if as_json:
        shown = {"run_dir": str(result.run_dir), "how": result.how, **result.summary}
        echo_json(shown, indent=True)
    else:
        console = open_console()
        print_summary(console, result.summary, directory)
        if plan.config.sink.format == "parquet":
            console.print(plain(f"also in {directory / '*.parquet'}"), soft_wrap=True)
    if result.how == "drained":
        _print_resume_hint(directory)
    exit_as(result, quiet=quiet)


def exit_as(result: RunResult, *, quiet: bool) -> None:
    """Exit with the code of an unfinished run; print why it failed, unless the display has shown it."""
    if quiet and result.how == "failed":
        echo(f"error: {result.summary.get('error', 'every row failed')}", stderr=True)
    if result.how in _CODES:
        raise typer.Exit(_CODES[result.how])


def _has_rows(directory: Path) -> bool:
    """Return whether a row can be read. Errors are ignored: the caller reports another one."""
    with contextlib.suppress(PeerloomError, OSError, ValueError):
        return any(read_rows(directory))
    return False


def _is_done(plan: Plan, directory: Path, *, fresh: bool = False, **options: Any) -> bool:
    """Return whether the run is finished already, so that no model is needed."""
    if fresh or not (directory / STATE).exists():
        return False
    claimed = RunDir.claim(directory)
    try:
        return plan.session(claimed, **options).done is not None
    finally:
        claimed.release()


def _print_resume_hint(directory: Path) -> None:
    echo(f"to resume: peerloom resume {shlex.quote(str(directory))}", stderr=True)
