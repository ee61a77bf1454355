"""Play scripted replies in place of a language model, for tests of agents and workflows.

    ScriptedService(["first reply", "second reply"])             in order, each once
    ScriptedService({"capital of France": "Paris"})              by text in the last message
    ScriptedService(lambda request: request.messages[-1]["content"].upper())

A reply is a text, a `ChatReply`, or an exception to raise; a function may also be async. A list is consumed
in order, so it works in a single process only; for `engine=ray` use a mapping or a module-level function.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from peerloom.errors import ConfigError, LLMRejected
from peerloom.services.llm.base import Backend, ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.service import LLMService
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.usage.prices import FREE
from peerloom.services.llm.wire_format.chat import unfiltered
from peerloom.services.processes.spawn import Spawner

Scripted = str | ChatReply | Exception
Script = Sequence[Scripted] | Mapping[str, Scripted] | Callable[[ChatRequest], Scripted | Awaitable[Scripted]]

MODEL = "scripted"


class ScriptedService(LLMService, Backend):
    """A service that plays a script. `requests` records the requests in this process, oldest first.

    Args:
        script: the replies; see this module.
        repeat: restart a list when it is used up, in each process separately.

    Raises:
        ConfigError: if an entry of the script has the wrong type; the error names it.
    """

    def __init__(self, script: Script, *, repeat: bool = False) -> None:
        self.requests: list[ChatRequest] = []
        self._repeat = repeat
        self._find = _finder(script, repeat)

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self._find, _InOrder) and not self._repeat:
            raise TypeError(
                "a list of scripted replies is used up in order, which several processes cannot share: "
                "use engine=local, or script a mapping or a module-level function"
            )
        return {**self.__dict__, "requests": []}

    async def start(
        self, name: str, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> ReplicatedClientSpec:
        """Return the spec; there is nothing to start."""
        return self.spec()

    def spec(self) -> ReplicatedClientSpec:
        """Return a spec with one replica in the calling process; its clients there share the script."""
        return ReplicatedClientSpec(
            model=MODEL,
            replicas=("this process",),
            backend_factory=self,
            retry=Retry(attempts=1),
            price=FREE,
            provider="scripted",
        )

    def __call__(self, replica: str) -> "ScriptedService":
        """Return the service, which is its own backend, as `ReplicatedClientSpec.backend_factory`."""
        return self

    async def chat(self, request: ChatRequest, attempt: int) -> ChatReply:
        """Return the scripted reply to `request`.

        Raises:
            LLMRejected: if the script has no reply, or a function returned a value of another type.
            Exception: the exception that the script contains.
        """
        self.requests.append(request)
        found = self._find(request)
        scripted: Any = await found if inspect.isawaitable(found) else found
        if isinstance(scripted, Exception):
            raise scripted
        if isinstance(scripted, str):
            message = {"role": "assistant", "content": scripted}
            return ChatReply(text=scripted, model=MODEL, message=message)
        if not isinstance(scripted, ChatReply):
            raise LLMRejected(
                f"the scripted function returned {type(scripted).__name__}: "
                "return a str, a ChatReply or an exception"
            )
        return unfiltered(scripted)

    async def embed(self, request: EmbedRequest, attempt: int) -> EmbedReply:
        """Raise `LLMRejected`: a script has no embeddings."""
        raise LLMRejected("a scripted model has no embeddings")


class _InOrder:
    def __init__(self, replies: Sequence[Scripted], repeat: bool) -> None:
        self._replies = list(replies)
        self._repeat = repeat
        self._used = 0

    def __call__(self, request: ChatRequest) -> Scripted:
        if self._used == len(self._replies):
            if not self._repeat:
                raise LLMRejected(
                    f"the script has {self._used} replies and all are used up; "
                    f"the last message was {_last_words(request)[:200]!r}"
                )
            self._used = 0
        self._used += 1
        return self._replies[self._used - 1]


def _by_words(replies: Mapping[str, Scripted], request: ChatRequest) -> Scripted:
    """Return the first reply whose key is in the last message."""
    asked = _last_words(request)
    for words, reply in replies.items():
        if words in asked:
            return reply
    known = ", ".join(map(repr, replies))
    raise LLMRejected(f"the script has no reply to {asked[:200]!r}: it knows {known}")


def _finder(script: Any, repeat: bool) -> Callable[[ChatRequest], Scripted | Awaitable[Scripted]]:
    if isinstance(script, Mapping):
        by_words = cast("Mapping[Any, Any]", script)
        if bad := [key for key in by_words if not isinstance(key, str)]:
            raise ConfigError(
                f"scripted replies: key {bad[0]!r} is no text: keys are words of the last message"
            )
        _check(by_words.items())
        return partial(_by_words, dict(by_words))
    if isinstance(script, Sequence) and not isinstance(script, str | bytes):
        in_order = cast("Sequence[Scripted]", script)
        _check(enumerate(in_order))
        return _InOrder(in_order, repeat and bool(in_order))
    if callable(script):
        return cast("Callable[[ChatRequest], Scripted]", script)
    raise ConfigError(
        f"scripted replies are a {type(script).__name__}: give a list, a mapping from words of the last "
        "message, or a function of the request"
    )


def _check(entries: Iterable[tuple[Any, Any]]) -> None:
    for place, reply in entries:
        if not isinstance(reply, str | ChatReply | Exception):
            raise ConfigError(
                f"scripted replies[{place!r}] is {type(reply).__name__}: "
                "give a str, a ChatReply or an exception (an instance)"
            )


def _last_words(request: ChatRequest) -> str:
    content = request.messages[-1].get("content") if request.messages else ""
    return content if isinstance(content, str) else str(content)
