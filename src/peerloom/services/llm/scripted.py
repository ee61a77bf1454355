"""Play scripted replies in place of a language model, for tests of agents and workflows.

    ScriptedService(["first reply", "second reply"])             in order, each once
    ScriptedService({"capital of France": "Paris"})              by text in the last message
    ScriptedService(lambda request: request.messages[-1]["content"].upper())

A reply is a text, a `ChatReply`, or an exception to raise; a function may also be async. A list is consumed
in order, so it works in a single process only; for `engine=ray` use a mapping or a module-level function.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from peerloom.errors import ConfigError, LLMRejected
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.usage.prices import FREE
from peerloom.services.llm.wire_format.chat import unfiltered
from peerloom.services.processes.spawn import Spawner

Scripted = str | ChatReply | Exception
Script = Sequence[Scripted] | Mapping[str, Scripted] | Callable[[ChatRequest], Scripted | Awaitable[Scripted]]

MODEL = "scripted"


class ScriptedService:
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
        self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> ReplicatedClientSpec:
        """Return the spec; there is nothing to start."""
        return self.spec()

    def spec(self) -> ReplicatedClientSpec:
        """Return a spec with one replica in the calling process; its clients there share the script."""
        return ReplicatedClientSpec(
            model=MODEL,
            replicas=("this process",),
            backend_factory=_ScriptedDial(self),
            retry=Retry(attempts=1),
            price=FREE,
        )

    async def watch(self, moved: Callable[[str, Sequence[str]], None]) -> None:
        """Wait forever: a script cannot fail."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Do nothing: there is nothing to stop."""

    async def answer(self, request: ChatRequest) -> ChatReply:
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


class _ScriptedDial:
    def __init__(self, service: ScriptedService) -> None:
        self._service = service

    def __call__(self, name: str) -> "ScriptedBackend":
        return ScriptedBackend(self._service)


class ScriptedBackend:
    """Answers from the script of a `ScriptedService`."""

    def __init__(self, service: ScriptedService) -> None:
        self._service = service

    async def chat(self, request: ChatRequest, attempt: int) -> ChatReply:
        """Return the scripted reply; see `ScriptedService.answer`."""
        return await self._service.answer(request)

    async def embed(self, request: EmbedRequest, attempt: int) -> EmbedReply:
        """Raise `LLMRejected`: a script has no embeddings."""
        raise LLMRejected("a scripted model has no embeddings")

    async def healthy(self) -> bool:
        """Return True."""
        return True

    async def close(self) -> None:
        """Do nothing: there are no connections."""


class _InOrder:
    def __init__(self, replies: Sequence[Scripted], repeat: bool) -> None:
        self._replies = list(replies)
        self._repeat = repeat
        self._used = 0

    def __call__(self, request: ChatRequest) -> Scripted:
        if self._repeat and self._used == len(self._replies):
            self._used = 0
        if self._used == len(self._replies):
            raise LLMRejected(
                f"the script has {self._used} replies and all are used up; "
                f"the last message was {_last_words(request)[:200]!r}"
            )
        self._used += 1
        return self._replies[self._used - 1]


class _ByWords:
    """Replies by text that the last message contains; the first match is used."""

    def __init__(self, replies: Mapping[str, Scripted]) -> None:
        self._replies = dict(replies)

    def __call__(self, request: ChatRequest) -> Scripted:
        asked = _last_words(request)
        for words, reply in self._replies.items():
            if words in asked:
                return reply
        known = ", ".join(map(repr, self._replies))
        raise LLMRejected(f"the script has no reply to {asked[:200]!r}: it knows {known}")


def _finder(script: Any, repeat: bool) -> Callable[[ChatRequest], Scripted | Awaitable[Scripted]]:
    if isinstance(script, Mapping):
        by_words = cast("Mapping[Any, Any]", script)
        if bad := [key for key in by_words if not isinstance(key, str)]:
            raise ConfigError(
                f"scripted replies: key {bad[0]!r} is no text: keys are words of the last message"
            )
        _check(by_words.items())
        return _ByWords(by_words)
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
