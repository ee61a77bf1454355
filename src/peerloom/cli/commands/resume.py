"""Implement `peerloom resume`: continue a run, with its `run.yaml` and further overrides."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from peerloom.api import make_plan
from peerloom.cli.arguments import (
    AcceptProgram,
    ConfigDir,
    Json,
    Overrides,
    Quiet,
    RetryFailed,
    expanded,
)
from peerloom.cli.commands.run import execute_plan
from peerloom.errors import RunDirError
from peerloom.sink.layout import RUN_YAML, STATE


def resume(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="The directory of the run.", callback=expanded)
    ],
    overrides: Overrides = None,
    retry_failed: RetryFailed = False,
    accept_program: AcceptProgram = False,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Plan the run from its directory, execute it, and print the summary."""
    missing = [name for name in (RUN_YAML, STATE) if not (run_dir / name).is_file()]
    if missing:
        raise RunDirError(f"{run_dir} has no run to resume: it lacks {' and '.join(missing)}")
    _refuse_python(run_dir)
    plan = make_plan(str(run_dir / RUN_YAML), overrides or (), config_dir=config_dir)
    options = {"retry_failed": retry_failed, "accept_program": accept_program, "start_over": False}
    execute_plan(plan, run_dir, as_json=as_json, quiet=quiet, **options)


def _refuse_python(run_dir: Path) -> None:
    """Refuse a run with Python objects, which `run.yaml` lacks, rather than use defaults instead."""
    try:
        config: Any = yaml.safe_load((run_dir / RUN_YAML).read_bytes())
        given = {"a model": config["llm"], "rows": config["source"]["path"]}
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return  # making the plan reports the error
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise RunDirError(
            f"the run in {run_dir} was started from Python, with {' and '.join(missing)} that {RUN_YAML} "
            f"cannot hold: to resume it, call the same peerloom.run(..., run_dir={str(run_dir)!r}) again"
        )
