"""Run workflows in tests, in milliseconds and without a network (a pytest plugin).

The plugin is installed with Peerloom, so a test only names the fixture:

    def test_my_workflow(run_workflow):
        finished = run_workflow(workflow, agents, [{"question": "2 + 2?"}], llm=["4"])
        assert finished.rows[0]["outcome"] == "completed"
"""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from peerloom.events import Hooks
    from peerloom.runtime.program import Program
    from peerloom.services.base import Service
    from peerloom.services.llm.client.service import LLMService
    from peerloom.source.base import Source

# Every pytest session in an environment with Peerloom imports this module, so slow imports are deferred.
# ruff: noqa: PLC0415


class Finished(NamedTuple):
    """The results of a finished run: its summary, its rows (all outcomes, by id) and its directory."""

    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    run_dir: Path


async def execute(
    program: "Program",
    source: "Source | Sequence[Mapping[str, Any]]",
    llm: "LLMService",
    run_dir: Path,
    *,
    services: "Mapping[str, Service] | None" = None,
    hooks: "Sequence[Hooks]" = (),
    retry_failed: bool = False,
    accept_program: bool = False,
    **settings: Any,
) -> Finished:
    """Run a program to its end with these `RunSettings`, by default with `engine="local"`.

    If the directory holds an unfinished part of that run, the run is resumed.
    """
    from peerloom.runtime.driver.run import Run
    from peerloom.runtime.driver.session import Session
    from peerloom.runtime.services import RunServices
    from peerloom.runtime.settings import RunSettings
    from peerloom.runtime.versions.version import version_of
    from peerloom.sink.read import read_rows
    from peerloom.sink.rundir.directory import RunDir
    from peerloom.sink.rundir.state import Fingerprint
    from peerloom.source.fingerprint import fingerprint
    from peerloom.source.memory import RowsSource

    rows_source = RowsSource(source) if isinstance(source, Sequence) else source
    run_settings = dataclasses.replace(RunSettings(engine="local"), **settings)
    input = fingerprint(rows_source)
    limit = {"limit": input.pop("limit", None)}
    fixed = {name: getattr(run_settings, name) for name in ("seed", "trials", "shards")}
    same = {**fixed, "source": input}
    claimed = RunDir.claim(run_dir)
    try:
        session = Session(
            claimed,
            Fingerprint(same, limit),
            version_of(program),
            retry_failed=retry_failed,
            accept_program=accept_program,
        )
        run = Run(
            program,
            rows_source,
            RunServices(llm, services),
            run_settings,
            session,
            recipe="test",
            hooks=hooks,
        )
        summary = await run.execute()
    finally:
        claimed.release()
    rows = sorted(read_rows(run_dir), key=lambda row: [int(part) for part in row["id"].split("-")])
    return Finished(summary, rows, run_dir)


@pytest.fixture
def run_workflow(tmp_path: Path) -> Callable[..., Finished]:
    """Return a function that runs `(workflow, agents, rows, llm=...)` in this process.

    `llm` is a service, or the argument of a `ScriptedService`.
    """
    from peerloom.runtime.program import Program
    from peerloom.services.llm.scripted import ScriptedService

    count = iter(range(1_000_000))

    def run(
        workflow: Any,
        agents: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        llm: Any = (),
        **settings: Any,
    ) -> Finished:
        service = llm if hasattr(llm, "watch") else ScriptedService(llm)
        directory = tmp_path / f"run-{next(count)}"
        return asyncio.run(execute(Program(workflow, agents), rows, service, directory, **settings))

    return run
