"""Define the program of a run: a workflow, the agents of its roles, and the check of input rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from peerloom.agents.base import Agent
from peerloom.workflow import Workflow


@dataclass(frozen=True)
class Program:
    """The part of a run that does not depend on its source, services, scale, or engine.

    `agents` maps each role of the workflow to its agent. `check_row`, if given, raises `RowError` for an
    input row that the agents cannot process; such a row fails without any call.
    """

    workflow: Workflow
    agents: Mapping[str, Agent]
    check_row: Callable[[Any], None] | None = None
