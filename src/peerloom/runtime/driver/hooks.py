"""Dispatch the events of a run to its hooks; an error in a hook never ends the run."""

import re
from collections.abc import Sequence
from typing import Any

from peerloom.events import Hooks, Notice, Starting
from peerloom.runtime.member.events import MemberNotice
from peerloom.services.secret import mask


class HookDispatcher:
    """Calls the hooks of one run."""

    def __init__(self, hooks: Sequence[Hooks]) -> None:
        self._hooks = list(hooks)
        self._shown: set[str] = set()  # the notices of members to be shown once

    def emit(self, event: Any) -> None:
        """Call the method for an event of all hooks; hooks that fail are not called again."""
        method = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
        for hooks in list(self._hooks):
            try:
                hooks.handle(method, event)
            except Exception as error:
                self._hooks.remove(hooks)
                text = f"{type(hooks).__name__}.{method} failed and is no longer called: {error!r}"
                self.emit(Notice("warning", text))

    def notice(self, text: str) -> None:
        """Emit an informational notice, with secrets masked."""
        self.emit(Notice("info", mask(text)))

    def member_notice(self, member: str, notice: MemberNotice) -> None:
        """Emit a notice of a member."""
        if not notice.once:
            self.notice(f"{member}: {notice.text}")
        elif notice.text not in self._shown:
            self._shown.add(notice.text)
            self.notice(notice.text)

    def starting(self, step: str) -> None:
        """Emit the beginning of a step of the start, unless `step` is empty."""
        if step:
            self.emit(Starting(step))
