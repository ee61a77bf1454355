"""Who acts next: a workflow is a pure function of a task, M' = G(S) in the paper's notation.

`Sequence`, `Loop` and `Graph` cover most recipes; anything else is a class with `roles` and `next`.
A workflow keeps no state: it reads where the task is from the task's own history. What cannot work
(no role, an unreachable one, no way out) is refused when the workflow is built.
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
Opening = Callable[[Task], list[dict[str, Any]]]

END = "<end>"
"""As the target of an edge in a `Graph`: the task is complete."""


class Workflow(ABC):
    """Routes tasks between roles. `roles` are all the roles `next` may name, first one first."""

    roles: tuple[str, ...]

    def __init__(self, *, result: Result | None = None, opening: Opening | None = None) -> None:
        """Keep what shapes the finished row.

        Args:
            result: the row's `result`, from the finished task; by default what the last agent
                returned, or said if it returned nothing.
            opening: the chat messages that come before those of the turns in the row's `messages`,
                normally one user message made from the input.
        """
        self._result = result
        self._opening = opening

    @abstractmethod
    def next(self, task: Task) -> str | End:
        """The role that acts next, or how the task ends. Pure; called after every hop."""

    def done(self, task: Task) -> End:
        """The end of a task that has run its course."""
        if self._result is not None:
            return End(result=self._result(task))
        last = task.last or Turn(agent="")
        said = last.text or None
        return End(result=said if last.value is None else last.value)

    def opening(self, task: Task) -> list[dict[str, Any]]:
        """The chat messages that precede those of the turns."""
        return self._opening(task) if self._opening is not None else []


class Sequence(Workflow):
    """Each role once, in order.

    Args:
        roles: who acts, in order; a role may appear more than once.
        result: see `Workflow`.
        opening: see `Workflow`.

    Raises:
        WorkflowError: if there is no role.
    """

    def __init__(self, *roles: str, result: Result | None = None, opening: Opening | None = None) -> None:
        super().__init__(result=result, opening=opening)
        self._steps = _checked_roles("Sequence", roles)
        self.roles = _unique(roles)

    def next(self, task: Task) -> str | End:
        """The role after the last hop's, or the end."""
        hop = task.header.hop
        return self._steps[hop] if hop < len(self._steps) else self.done(task)


class Loop(Workflow):
    """The roles in turn, again and again, until a condition holds or the rounds are used up.

    Args:
        roles: who acts in one round, in order; a role may appear more than once.
        until: asked after every hop; True ends the task as completed.
        max_rounds: rounds after which the task ends as completed all the same, at least 1.
        result: see `Workflow`.
        opening: see `Workflow`.

    Raises:
        WorkflowError: if there is no role, or `max_rounds` is below 1.
    """

    def __init__(
        self,
        *roles: str,
        until: Predicate,
        max_rounds: int,
        result: Result | None = None,
        opening: Opening | None = None,
    ) -> None:
        super().__init__(result=result, opening=opening)
        if max_rounds < 1:
            raise _refused(f"Loop has max_rounds={max_rounds}, so it would never begin: use 1 or more")
        self._steps = _checked_roles("Loop", roles)
        self._until = until
        self._hops = max_rounds * len(roles)
        self.roles = _unique(roles)

    def next(self, task: Task) -> str | End:
        """The next role of the round, or the end."""
        hop = task.header.hop
        if hop >= self._hops or (hop > 0 and self._until(task)):
            return self.done(task)
        return self._steps[hop % len(self._steps)]


class When(NamedTuple):
    """A conditional edge of a `Graph`: taken if `condition(task)` holds."""

    condition: Predicate
    to: str


Edges = str | Iterable[When | str]


class Graph(Workflow):
    """Any shape: each role has edges to the roles that may follow it.

    Args:
        start: the role that acts first.
        edges: for each role the next one, or several: `When`s tried in order, then a plain target
            taken if none of them held. `END` as a target completes the task.
        max_hops: hops after which the task ends as truncated, reason `max_hops`; a graph may have
            cycles, so it needs a bound.
        result: see `Workflow`.
        opening: see `Workflow`.

    Raises:
        WorkflowError: for a target without edges of its own, a role that cannot be reached, a role
            that cannot reach `END`, or a role whose edges may all fail to hold.
    """

    def __init__(
        self,
        start: str,
        edges: Mapping[str, Edges],
        *,
        max_hops: int = 100,
        result: Result | None = None,
        opening: Opening | None = None,
    ) -> None:
        super().__init__(result=result, opening=opening)
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
        """The target of the first edge that holds."""
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
    """Check that every role of the workflow has an agent, and every agent a role.

    Raises:
        WorkflowError: naming the role, and the nearest name there is.
    """
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
    """The error, with the line of the user's file that built the workflow."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return WorkflowError(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}: {problem}")
