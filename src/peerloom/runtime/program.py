"""What a run executes: a workflow, the agents that fill its roles, and what a good row looks like."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from peerloom.agents.base import Agent
from peerloom.workflow import Workflow


@dataclass(frozen=True)
class Program:
    """Everything about a run that does not depend on where, how wide or on what it runs.

    `agents` maps each role of the workflow to the agent that fills it. `check_row`, if given, raises
    `RowError` for an input row that the agents could not work on; such a row fails without any call.
    """

    workflow: Workflow
    agents: Mapping[str, Agent]
    check_row: Callable[[Any], None] | None = None
