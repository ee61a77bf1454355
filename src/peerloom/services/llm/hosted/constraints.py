"""Detect whether a server enforces choices and schemas, and switch to another option if it does not.

Servers silently ignore options that they do not know, and some rename theirs between releases. The first
replies to requests with choices or a schema show this: a server that enforces them never gives a reply that
is not among the choices, or not JSON.
"""

import re
from typing import Any

import orjson

from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.providers.dialect import Dialect
from peerloom.services.llm.retry import Retryable

MAX_VIOLATIONS = 3
"""The number of violating replies, without a conforming one before, that shows that an option is ignored."""

_UNKNOWN = re.compile(
    r"(?:un|not )(?:known|recognized|supported|available|expected|permitted|allowed)"
    r"|does(?: not|n.t) support|extra",
    re.IGNORECASE,
)


class Constraints:
    """Choose the dialect for the requests to one server.

    Args:
        dialect: the first choice; its `alternatives` are tried in turn.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._first = dialect
        self._others = list(dialect.alternatives())
        self._violations = 0
        self._settled = not dialect.constraint

    def observe(self, dialect: Dialect, request: ChatRequest, reply: ChatReply) -> None:
        """Check a reply to a request that was encoded by `dialect`.

        Raises:
            Retryable: if the server is found to ignore the constraint; with a notice for the user.
        """
        if not self._is_relevant(dialect, request) or reply.finish_reason != "stop":
            return
        if _conforms(request, reply.text):
            self._settled = True
            return
        self._violations += 1
        if self._violations >= MAX_VIOLATIONS:
            notice = f"the server ignores the option that constrains replies ({dialect.constraint})"
            raise Retryable(notice, usage=reply.usage, notice=f"{notice}; {self._next()}")

    def observe_refusal(self, dialect: Dialect, request: ChatRequest, message: str) -> None:
        """Check the error message for a refused request that was encoded by `dialect`.

        Raises:
            Retryable: if the server refused the constraint, and there is an alternative.
        """
        if not self._is_relevant(dialect, request) or not self._others:
            return
        if dialect.constraint in message and _UNKNOWN.search(message) is not None:
            notice = (
                f"the server refuses the option that constrains replies ({dialect.constraint}): {message}"
            )
            raise Retryable(notice, notice=f"{notice}; {self._next()}")

    def _is_relevant(self, dialect: Dialect, request: ChatRequest) -> bool:
        constrained = bool(request.choices) or request.schema is not None
        return constrained and not self._settled and dialect is self.dialect

    def _next(self) -> str:
        """Switch to the next alternative, and return a notice of it for the user."""
        self._violations = 0
        if self._others:
            self.dialect = self._others.pop(0)
            return f"{self.dialect.constraint} is used from now on"
        self.dialect, self._settled = self._first, True
        return "replies are only checked, and invalid ones are requested again, which costs calls"


def _conforms(request: ChatRequest, text: str) -> bool:
    if request.choices:
        return text.strip() in request.choices
    try:
        value: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) or (request.schema or {}).get("type") != "object"
