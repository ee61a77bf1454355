"""Whoever watches a run, told of everything in turn; none of them can end what it watches."""

from collections.abc import Sequence
from typing import Any

from peerloom.events import Hooks, MemberJoined, MemberLost, Notice, Starting, ViewChanged
from peerloom.runtime.driver.supervisor import Event
from peerloom.services.secret import mask


class HookDispatcher:
    """The hooks of one run."""

    def __init__(self, hooks: Sequence[Hooks]) -> None:
        self._hooks = list(hooks)

    def emit(self, method: str, event: Any) -> None:
        """Call a method of all hooks; one that fails is not called again."""
        for hooks in list(self._hooks):
            try:
                getattr(hooks, method)(event)
            except Exception as error:
                self._hooks.remove(hooks)
                text = f"{type(hooks).__name__}.{method} failed and is no longer called: {error!r}"
                self.emit("notice", Notice("warning", text))

    def notice(self, text: str) -> None:
        """Something to read."""
        self.emit("notice", Notice("info", mask(text)))

    def starting(self, step: str) -> None:
        """A step of the start begins; none if `step` is empty."""
        if step:
            self.emit("starting", Starting(step))

    def member(self, event: Event) -> None:
        """What the supervisor tells."""
        match event:
            case MemberJoined():
                self.emit("member_joined", event)
            case MemberLost():
                self.emit("member_lost", event)
            case ViewChanged():
                self.emit("view_changed", event)
            case Notice():
                self.emit("notice", event)
