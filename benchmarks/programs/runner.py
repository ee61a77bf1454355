"""Runs one of our programs as a spec says, and says when it began and ended, and which process was whose."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.points import Setting
from benchmarks.harness.run import Work, perform
from peerloom.events import Hooks, MemberJoined
from peerloom.runtime.program import Program
from peerloom.runtime.settings import RoleSettings
from peerloom.services.llm.client.service import LLMService
from peerloom.services.llm.hosted.providers import OpenAIService
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.source.open import open_source

Spec = Mapping[str, Any]


class Members(Hooks):
    """Records the process id of each member."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}

    def member_joined(self, event: MemberJoined) -> None:
        """Record the id of a process that is up."""
        self.pids[event.member] = event.pid


async def carry_out(program: Program, spec: Spec, llm: LLMService | None = None) -> dict[str, Any]:
    """Run a program over the rows of a spec, and return the object to print.

    Args:
        program: workflow and agents.
        spec: see `benchmarks.comparison.job`; `placement`, and `shape` for more of `RunSettings`.
        llm: the model; default the one at `url`, or one that nobody calls.

    Raises:
        BenchError: if a task was not done.
        PeerloomError: whatever a run raises.
    """
    members = Members()
    work = await perform(
        program,
        open_source(spec["rows"]),
        llm or model(spec),
        Setting(spec.get("placement", "packed"), spec["in_flight"], spec["tasks"]),
        path=run_path(spec),
        name=f"bench-{spec['workload']}",
        hooks=[members],
        shape={**spec.get("shape", {}), **placed(spec)},
    )
    return {**said(work), "members": members.pids}


def placed(spec: Spec) -> dict[str, Any]:
    """Return the settings that place each role on the host that the spec names for it."""
    hosts: dict[str, str] = spec.get("hosts", {})
    roles = {role: RoleSettings(resources={host: 1.0}) for role, host in hosts.items()}
    return {"roles": roles} if roles else {}


def said(work: Work) -> dict[str, Any]:
    """Return the entries that are printed of any run."""
    return {"begin": work.begin, "end": work.end, "tasks": work.tasks, "hops": work.hops}


def model(spec: Spec) -> LLMService:
    """Return the model of a spec."""
    if "url" in spec:
        return OpenAIService(base_url=spec["url"], api_key="none")
    return SimulatedService()


def run_path(spec: Spec) -> Path:
    """Return the run directory of a spec."""
    return Path(spec["folder"], "run")
