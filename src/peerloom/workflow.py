"""Pick the role that acts next on a task: a workflow is a pure function of the task.

`Sequence`, `Loop` and `Graph` cover most recipes; anything else is a class with `roles` and `next`.
A workflow keeps no state: it derives the position from the task's own history. An invalid workflow (no role,
an unreachable role, no way to the end) is refused when it is built.
"""

import difflib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from peerloom.errors import WorkflowError
from peerloom.task import End, Task, Turn

Predicate = Callable[[Task], bool]
Result = Callable[[Task], Any]

END = "<end>"
"""The target of an edge in a `Graph` that completes the task."""


class Workflow(ABC):
    """Base of workflows, which route tasks between roles.

    `roles` are all the roles that `next` may return, the first one first.
    """

    roles: tuple[str, ...]

    def __init__(self, *, result: Result | None = None) -> None:
        """Set the functions that shape the finished row.

        Args:
            result: returns the row's `result` for a finished task; by default it is the value of the last
                turn, or its text if it has no value.
        """
        self._result = result

    @abstractmethod
    def next(self, task: Task) -> str | End:
        """Return the role that acts next, or the end of the task. Pure; called after every hop."""

    def done(self, task: Task) -> End:
        """Return the end of a completed task."""
        if self._result is not None:
            return End(result=self._result(task))
        last = task.last or Turn(agent="")
        text = last.text or None
        return End(result=text if last.value is None else last.value)


class Sequence(Workflow):
    """A workflow that runs each role once, in order.

    Args:
        roles: the roles in order; a role may appear more than once.
        result: see `Workflow`.

    Raises:
        WorkflowError: if there is no role.
    """

    def __init__(self, *roles: str, result: Result | None = None) -> None:
        super().__init__(result=result)
        self._steps = _checked_roles("Sequence", roles)
        self.roles = _unique(roles)

    def next(self, task: Task) -> str | End:
        """Return the role after that of the last hop, or the end."""
        hop = task.header.hop
        return self._steps[hop] if hop < len(self._steps) else self.done(task)


class Loop(Workflow):
    """A workflow that repeats its roles in order until a condition is true or the rounds are used up.

    Args:
        roles: the roles of one round, in order; a role may appear more than once.
        until: a condition that is checked after every hop; if it is True, the task ends as completed.
        max_rounds: the number of rounds, at least 1, after which the task ends as completed even if the
            condition does not hold.
        result: see `Workflow`.

    Raises:
        WorkflowError: if there is no role, or `max_rounds` is below 1.
    """

    def __init__(
        self,
        *roles: str,
        until: Predicate,
        max_rounds: int,
        result: Result | None = None,
    ) -> None:
        super().__init__(result=result)
        if max_rounds < 1:
            raise _refused(f"Loop has max_rounds={max_rounds}, so it would never begin: use 1 or more")
        self._steps = _checked_roles("Loop", roles)
        self._until = until
        self._hops = max_rounds * len(roles)
        self.roles = _unique(roles)

    def next(self, task: Task) -> str | End:
        """Return the next role of the round, or the end."""
        hop = task.header.hop
        if hop >= self._hops or (hop > 0 and self._until(task)):
            return self.done(task)
        return self._steps[hop % len(self._steps)]


class When(NamedTuple):
    """A conditional edge of a `Graph`, taken if `condition(task)` is true."""

    condition: Predicate
    to: str


Edges = str | Iterable[When | str]


class Graph(Workflow):
    """A workflow of any shape: each role has edges to its possible successors.

    Args:
        start: the role that acts first.
        edges: the successor of each role, or several: `When`s that are tried in order, then a plain target
            that is taken if none of them is true. `END` as a target completes the task.
        max_hops: the number of hops after which the task ends as truncated, reason `max_hops`; a graph may
            have cycles, so it needs a bound.
        result: see `Workflow`.

    Raises:
        WorkflowError: for a target without edges of its own, a role that cannot be reached, a role
            that cannot reach `END`, or a role without a plain target at the end of its edges.
    """

    def __init__(
        self,
        start: str,
        edges: Mapping[str, Edges],
        *,
        max_hops: int = 100,
        result: Result | None = None,
    ) -> None:
        super().__init__(result=result)
        if max_hops < 1:
            raise _refused(f"Graph has max_hops={max_hops}, so it would never begin: use 1 or more")
        self._edges = {role: _as_edges(role, spec) for role, spec in edges.items()}
        self._start = start
        self._max_hops = max_hops
        self.roles = _unique((start, *self._edges))
        self._check_targets()
        self._check_reachable()
        self._check_way_out()

    def next(self, task: Task) -> str | End:
        """Return the target of the first edge whose condition is true, or the end."""
        last = task.last
        if last is None:
            return self._start
        target = next(to for condition, to in self._edges[last.agent] if condition(task))
        if target == END:
            return self.done(task)
        return End("truncated", "max_hops") if task.header.hop >= self._max_hops else target

    def _check_targets(self) -> None:
        known = [*self._edges, END]
        named = [("start", self._start)]
        named += [(f"edges[{role!r}]", edge.to) for role, out in self._edges.items() for edge in out]
        for where, target in named:
            if target not in known or (where == "start" and target == END):
                raise _refused(
                    f"Graph: {where} names {target!r}, which has no edges.{_nearest(target, known)}"
                )

    def _check_reachable(self) -> None:
        reached = self._closure(self._start)
        for role in self._edges:
            if role not in reached:
                raise _refused(
                    f"Graph: role {role!r} cannot be reached from {self._start!r}: add an edge to it"
                )

    def _check_way_out(self) -> None:
        for role in self._edges:
            if END not in self._closure(role):
                raise _refused(
                    f"Graph: no way out from role {role!r}: give it, or a role after it, an edge to END"
                )

    def _closure(self, role: str) -> set[str]:
        reached, frontier = {role}, [role]
        while frontier:
            for edge in self._edges.get(frontier.pop(), ()):
                if edge.to not in reached:
                    reached.add(edge.to)
                    frontier.append(edge.to)
        return reached


def check_agents(workflow: Workflow, agents: Iterable[str]) -> None:
    """Check that every role of the workflow has an agent, and every agent a role."""
    present = list(agents)
    for role in workflow.roles:
        if role not in present:
            raise WorkflowError(
                f"the workflow sends tasks to role {role!r}, but no agent fills it.{_nearest(role, present)}"
            )
    for name in present:
        if name not in workflow.roles:
            raise WorkflowError(
                f"agent {name!r} has no role in the workflow.{_nearest(name, workflow.roles)}"
            )


def _always(_: Task) -> bool:
    return True


def _as_edges(role: str, spec: Edges) -> tuple[When, ...]:
    items = [spec] if isinstance(spec, str) else list(spec)
    edges = tuple(When(_always, item) if isinstance(item, str) else item for item in items)
    plain = [index for index, edge in enumerate(edges) if edge.condition is _always]
    if plain != [len(edges) - 1]:
        raise _refused(
            f"Graph: edges[{role!r}] must end in one plain target, taken if no condition before it holds"
        )
    return edges


def _checked_roles(kind: str, roles: tuple[str, ...]) -> tuple[str, ...]:
    if not roles:
        raise _refused(f"{kind} has no roles: name at least one")
    return roles


def _unique(roles: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(roles))


def _nearest(name: str, known: Iterable[str]) -> str:
    choices = [choice for choice in known if choice != END]
    close = difflib.get_close_matches(name, choices, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(choices) or 'none'}."


def _refused(problem: str) -> WorkflowError:
    """Return the error, with the line of the user's file that built the workflow."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return WorkflowError(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}: {problem}")
