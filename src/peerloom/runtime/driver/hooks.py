"""Dispatch the events of a run to its hooks; an error in a hook never ends the run."""

from collections.abc import Sequence
from typing import Any

from peerloom.events import Hooks, MemberJoined, MemberLost, Notice, Starting, ViewChanged
from peerloom.runtime.driver.supervisor import Event
from peerloom.services.secret import mask

_METHODS: dict[type[Event], str] = {
    MemberJoined: "member_joined",
    MemberLost: "member_lost",
    ViewChanged: "view_changed",
    Notice: "notice",
}


class HookDispatcher:
    """Calls the hooks of one run."""

    def __init__(self, hooks: Sequence[Hooks]) -> None:
        self._hooks = list(hooks)

    def emit(self, method: str, event: Any) -> None:
        """Call a method of all hooks; hooks that fail are not called again."""
        for hooks in list(self._hooks):
            try:
                getattr(hooks, method)(event)
            except Exception as error:
                self._hooks.remove(hooks)
                text = f"{type(hooks).__name__}.{method} failed and is no longer called: {error!r}"
                self.emit("notice", Notice("warning", text))

    def notice(self, text: str) -> None:
        """Emit an informational notice, with secrets masked."""
        self.emit("notice", Notice("info", mask(text)))

    def starting(self, step: str) -> None:
        """Emit the beginning of a step of the start, unless `step` is empty."""
        if step:
            self.emit("starting", Starting(step))

    def member(self, event: Event) -> None:
        """Emit an event of the supervisor."""
        self.emit(_METHODS[type(event)], event)
