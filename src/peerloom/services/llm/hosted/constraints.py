"""Observes whether a server honors the constraint on its answers, and asks in another way if it does not.

Servers ignore the options that they do not know, without a word, and some rename theirs between releases. The
first replies to requests with choices or a schema show it: a server that constrains its answers never gives
one that is not among the choices, or that is not JSON.
"""

import re
from typing import Any

import orjson

from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.providers.dialect import Dialect
from peerloom.services.llm.retry import Retryable

LOOKS = 3
"""Replies that are not what was asked for, before any that is, from which a server ignores the option."""

_UNKNOWN = re.compile(
    r"(?:un|not )(?:known|recognized|supported|available|expected|permitted|allowed)"
    r"|does(?: not|n.t) support|extra",
    re.IGNORECASE,
)


class Constraints:
    """Chooses the dialect by which one server is asked.

    Args:
        dialect: the first choice; its `alternatives` are tried in turn.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._first = dialect
        self._others = list(dialect.alternatives())
        self._ignored = 0
        self._settled = not dialect.constraint

    def heard(self, dialect: Dialect, request: ChatRequest, reply: ChatReply) -> None:
        """Take in a reply to a request that was asked by `dialect`.

        Raises:
            Retryable: if the server has been found to ignore the constraint; a notice says so.
        """
        if not self._is_of_interest(dialect, request) or reply.finish_reason != "stop":
            return
        if _conforms(request, reply.text):
            self._settled = True
            return
        self._ignored += 1
        if self._ignored >= LOOKS:
            notice = f"the server ignores how it is told to answer ({dialect.constraint})"
            raise Retryable(notice, usage=reply.usage, notice=f"{notice}; {self._next()}")

    def refused(self, dialect: Dialect, request: ChatRequest, words: str) -> None:
        """Take in that the server has refused, in these words, a request that was asked by `dialect`.

        Raises:
            Retryable: if it has refused the constraint, and there is another way to ask.
        """
        if not self._is_of_interest(dialect, request) or not self._others:
            return
        if dialect.constraint in words and _UNKNOWN.search(words) is not None:
            notice = f"the server refuses to be told how to answer ({dialect.constraint}): {words}"
            raise Retryable(notice, notice=f"{notice}; {self._next()}")

    def _is_of_interest(self, dialect: Dialect, request: ChatRequest) -> bool:
        asks = bool(request.choices) or request.schema is not None
        return asks and not self._settled and dialect is self.dialect

    def _next(self) -> str:
        """Go on to the next way; what a person is to know of it."""
        self._ignored = 0
        if self._others:
            self.dialect = self._others.pop(0)
            return f"it is told by {self.dialect.constraint} from now on"
        self.dialect, self._settled = self._first, True
        return "answers are only checked, and asked for again if they are none: this costs calls"


def _conforms(request: ChatRequest, text: str) -> bool:
    if request.choices:
        return text.strip() in request.choices
    try:
        value: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) or (request.schema or {}).get("type") != "object"
