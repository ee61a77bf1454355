"""Implement `peerloom run --dry-run`: describe a run without making a call, a process or a file.

In addition to the checks of making the plan, it checks the first row of each file; counts the rows, and
requires at least one; checks that the run directory can be used, and reads its state; and checks that the
weights of embedded models are present or can be downloaded, and their size.
"""

from pathlib import Path
from typing import Any

from peerloom.api import Plan, default_run_dir
from peerloom.cli.output import echo, echo_json
from peerloom.config.build import embedded_models
from peerloom.observe.words import count
from peerloom.protocol.view import PEER
from peerloom.runtime.settings import members
from peerloom.services.llm.llamacpp.weights import missing_bytes
from peerloom.sink.rundir.directory import RunDir


def print_dry_run(
    plan: Plan, run_dir: Path | None, *, as_json: bool, fresh: bool = False, **options: Any
) -> None:
    """Check the plan as far as possible, and print it; `options` are those of `Session`."""
    found = _findings(plan, run_dir, fresh=fresh, **options)
    if as_json:
        shown = {**found, "config": plan.config.plain()}
        echo_json(shown, indent=True)
        return
    echo(plan.yaml, end="")
    for name, text in _lines(found).items():
        echo(f"# {name}: {text}")


def _findings(plan: Plan, run_dir: Path | None, *, fresh: bool, **options: Any) -> dict[str, Any]:
    settings, roles = plan.settings, plan.program.workflow.roles
    plan.check_rows()
    rows = plan.count_rows()
    peers = sum(member.kind == PEER for member in members(settings, roles))
    directory, session, done = _directory(plan, run_dir, fresh=fresh, **options)
    return {
        "recipe": plan.name,
        "roles": roles,
        "rows": rows,
        "trials": settings.trials,
        "tasks": rows and rows * settings.trials,
        "in_flight": settings.in_flight,
        "engine": settings.engine,
        "placement": settings.placement,
        "peers": peers,
        "model": _model(plan, done=done),
        "program": plan.version.digest,
        "uncovered": [*plan.version.uncovered, *(f"package {name}" for name in plan.version.packages)],
        "run_dir": directory,
        "session": session,
        "done": done,
    }


def _directory(plan: Plan, run_dir: Path | None, *, fresh: bool, **options: Any) -> tuple[str, int, bool]:
    """Return the run directory, the number of the session, and whether the run is finished already."""
    if run_dir is None:
        default = default_run_dir(plan.name)
        RunDir.peek(default)
        return f"{str(default).rpartition('-')[0]}-<short id>", 1, False
    session = plan.session(RunDir.peek(run_dir, fresh=fresh), **options)
    return str(run_dir), session.number, session.done is not None


def _model(plan: Plan, *, done: bool) -> dict[str, Any]:
    """Return the model's keys, and the bytes to download for embedded models, 0 if the run is finished."""
    llm = plan.config.llm
    model = {
        key: getattr(llm, key)
        for key in ("kind", "model", "base_url")
        if llm is not None and hasattr(llm, key)
    }
    models = embedded_models(plan.config)
    return {**model, "missing_bytes": 0 if done else sum(map(missing_bytes, models))} if models else model


def _lines(found: dict[str, Any]) -> dict[str, str]:
    model = {key: value for key, value in found["model"].items() if value is not None}
    missing = model.pop("missing_bytes", 0)
    description = " ".join(str(value) for value in model.values())
    tasks = f"those of a stream x {found['trials']} trials"
    if found["rows"] is not None:
        tasks = f"{count(found['tasks'])} ({count(found['rows'])} rows x {found['trials']} trials)"
    session = "finished" if found["done"] else f"session {found['session']}"
    return {
        "recipe": f"{found['recipe']}, roles {', '.join(found['roles'])}",
        "tasks": f"{tasks}, {count(found['in_flight'])} in flight",
        "engine": f"{found['engine']}, {found['peers']} peers, {found['placement']}",
        "model": description + (f", {missing / 1e6:,.0f} MB to be downloaded first" if missing else ""),
        "program": f"{found['program']}, not covered: {'; '.join(found['uncovered']) or 'nothing'}",
        "output": f"{found['run_dir']}, {session}",
        "dry run": "nothing was called or written",
    }
