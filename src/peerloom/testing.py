"""Pytest plugin: run a workflow of one's own in a test, in milliseconds and without a network.

Installed with Peerloom, so a test only names the fixture:

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
    from peerloom.services.llm.client.service import LLMService
    from peerloom.source.base import Source

# This module is imported by every pytest on the machine, so it imports nothing of weight.
# ruff: noqa: PLC0415


class Finished(NamedTuple):
    """A run that is over: its summary, its rows (all outcomes, by id), and its directory."""

    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    run_dir: Path


async def execute(
    program: "Program",
    source: "Source | Sequence[Mapping[str, Any]]",
    llm: "LLMService",
    run_dir: Path,
    *,
    hooks: "Sequence[Hooks]" = (),
    retry_failed: bool = False,
    **settings: Any,
) -> Finished:
    """Run a program to its end, as `RunSettings` say; `engine="local"` unless they say otherwise.

    A directory that holds a part of that run is gone on with.
    """
    from peerloom.runtime.driver.run import Run
    from peerloom.runtime.driver.session import Session
    from peerloom.runtime.settings import RunSettings
    from peerloom.sink.read import read_rows
    from peerloom.sink.rundir.directory import RunDir
    from peerloom.sink.rundir.state import Fingerprint
    from peerloom.source.fingerprint import fingerprint
    from peerloom.source.memory import RowsSource

    taken = RowsSource(source) if isinstance(source, Sequence) else source
    shape = dataclasses.replace(RunSettings(engine="local"), **settings)
    input = fingerprint(taken)
    limit = {"limit": input.pop("limit", None)}
    kept = {name: getattr(shape, name) for name in ("seed", "trials", "shards")}
    same = {**kept, "source": input, "roles": list(program.workflow.roles)}
    claimed = RunDir.claim(run_dir)
    try:
        session = Session(claimed, Fingerprint(same, limit), retry_failed=retry_failed)
        run = Run(program, taken, llm, shape, session, recipe="test", hooks=hooks)
        summary = await run.execute()
    finally:
        claimed.release()
    rows = sorted(read_rows(run_dir), key=lambda row: [int(part) for part in row["id"].split("-")])
    return Finished(summary, rows, run_dir)


@pytest.fixture
def run_workflow(tmp_path: Path) -> Callable[..., Finished]:
    """Runs `(workflow, agents, rows, llm=...)` in this process; `llm` is what `ScriptedService` takes."""
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
