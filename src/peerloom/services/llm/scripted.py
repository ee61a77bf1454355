"""A language model that says what it is told to, for tests of agents and workflows.

    ScriptedService(["first reply", "second reply"])             in order, each once
    ScriptedService({"capital of France": "Paris"})              by words in the last message
    ScriptedService(lambda request: request.messages[-1]["content"].upper())

A reply is a text, a whole `ChatReply`, or an exception to raise; a function may also be async. A list is
used up in order, so it serves one process only; for `engine=ray` use a mapping or a function at the top
level of a module.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from peerloom.errors import ConfigError, LLMRejected
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.wire import unfiltered
from peerloom.services.spawn import Spawner

Scripted = str | ChatReply | Exception
Script = Sequence[Scripted] | Mapping[str, Scripted] | Callable[[ChatRequest], Scripted | Awaitable[Scripted]]

MODEL = "scripted"


class ScriptedService:
    """Plays a script. `requests` records what its clients in this process were asked, oldest first.

    Raises:
        ConfigError: for a script of the wrong type, naming the place.
    """

    def __init__(self, script: Script) -> None:
        _check(script)
        self.requests: list[ChatRequest] = []
        self._script = script

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self._script, Sequence):
            raise TypeError(
                "a list of scripted replies is used up in order, which several processes cannot share: "
                "use engine=local, or script a mapping or a module-level function"
            )
        return {"_script": self._script, "requests": []}

    async def start(
        self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> "ScriptedService":
        """Nothing to start: it is its own client spec."""
        return self

    def connect(self, *, concurrency: int) -> "ScriptedLLM":
        """A client; all clients in one process play the same script."""
        return ScriptedLLM(self)

    async def watch(self) -> None:
        """Wait for ever: it cannot die."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Nothing to stop."""

    async def answer(self, request: ChatRequest) -> ChatReply:
        """The script's reply to `request`.

        Raises:
            LLMRejected: if the script has none, or a function returned something else.
            Exception: what the script says to raise.
        """
        self.requests.append(request)
        scripted = self._find(request)
        if inspect.isawaitable(scripted):
            scripted = await scripted
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

    def _find(self, request: ChatRequest) -> Any:
        script = self._script
        if isinstance(script, Mapping):
            asked = _last_words(request)
            for words, reply in script.items():
                if words in asked:
                    return reply
            known = ", ".join(map(repr, script))
            raise LLMRejected(f"the script has no reply to {asked[:200]!r}: it knows {known}")
        if isinstance(script, Sequence):
            call = len(self.requests)
            if call > len(script):
                raise LLMRejected(
                    f"the script has {len(script)} replies and this is call {call}; "
                    f"the last message was {_last_words(request)[:200]!r}"
                )
            return script[call - 1]
        return script(request)


class ScriptedLLM:
    """A client of a `ScriptedService`."""

    def __init__(self, service: ScriptedService) -> None:
        self._service = service

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request as the script says; see `ScriptedService.answer`."""
        return await self._service.answer(request)

    async def close(self) -> None:
        """Nothing to give back."""


def _check(script: Any) -> None:
    if isinstance(script, Mapping):
        entries = list(cast("Mapping[Any, Any]", script).items())
        if bad := [key for key, _ in entries if not isinstance(key, str)]:
            raise ConfigError(
                f"scripted replies: key {bad[0]!r} is no text: keys are words of the last message"
            )
    elif isinstance(script, Sequence) and not isinstance(script, str | bytes):
        entries = list(enumerate(cast("Sequence[Any]", script)))
    elif callable(script):
        return
    else:
        raise ConfigError(
            f"scripted replies are a {type(script).__name__}: give a list, a mapping from words of the last "
            "message, or a function of the request"
        )
    if not entries:
        raise ConfigError("scripted replies are empty: give at least one")
    for place, reply in entries:
        if not isinstance(reply, str | ChatReply | Exception):
            raise ConfigError(
                f"scripted replies[{place!r}] is {type(reply).__name__}: "
                "give a str, a ChatReply or an exception (an instance)"
            )


def _last_words(request: ChatRequest) -> str:
    content = request.messages[-1].get("content") if request.messages else ""
    return content if isinstance(content, str) else str(content)
