"""The embedded model: llama.cpp's server in a process of its own, started, watched and stopped by the run.

Weights are pulled first if they are not there. Calls go through the client of every OpenAI-compatible
server; only choices and schemas are asked in llama.cpp's own way, which costs fewer tokens.
"""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from peerloom.errors import ConfigError, ServiceError
from peerloom.services.llm import models
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.grammar import choice_grammar
from peerloom.services.llm.openai import OpenAISpec
from peerloom.services.llm.preflight import choose_model
from peerloom.services.spawn import ChildProcess, Spawner

_LOAD_SECONDS = 600.0
_POLL_SECONDS = 0.05
_CALL_SECONDS = 86_400.0
"""No call times out in practice: it may wait long for a slot, and a server that dies is seen by `watch`."""
_TAIL_LINES = 6


def shape(body: dict[str, Any], request: ChatRequest) -> dict[str, Any]:
    """Choices as a grammar, a schema as llama.cpp's own field."""
    if request.choices:
        body["grammar"] = choice_grammar(request.choices)
    elif request.schema is not None:
        body["json_schema"] = request.schema
    return body


class LlamaCppService:
    """A llama.cpp server that lives as long as the run.

    Args:
        model: a name that `models.listing` gives, or the path of a .gguf file.
        slots: sequences it works on at once; further calls wait their turn. A reply's token costs 19 ms
            of CPU time alone, 14 ms with 4 slots, 12 ms with 8, and no less with 16 (SmolLM2-135M).
        context: tokens of each slot, prompt and reply together.
        threads: that compute; default one for each core.
        host: the address it listens on, which must be one of this machine.
        progress: told how far a pull is, see `models.Progress`; default a notice now and then.

    Raises:
        ConfigError: if a number is below 1.
    """

    def __init__(
        self,
        *,
        model: str = "smollm2-135m",
        slots: int = 8,
        context: int = 2048,
        threads: int | None = None,
        host: str = "127.0.0.1",
        progress: models.Progress | None = None,
    ) -> None:
        for name, value in (("slots", slots), ("context", context), ("threads", threads)):
            if value is not None and value < 1:
                raise ConfigError(f"llm.{name} is {value}: use 1 or more")
        self._model = model
        self._slots = slots
        self._context = context
        self._threads = threads
        self._host = host
        self._progress = progress
        self._child: ChildProcess | None = None
        self._log = Path(os.devnull)
        self._log_start = 0
        self._stopping = False

    async def start(self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path) -> OpenAISpec:
        """Pull the weights if need be, start the server, and wait until it has loaded them.

        Raises:
            ModelError: if there is no such model, or it cannot be pulled.
            ServiceError: if the server does not come up; with its last words.
        """
        path = await self._pull(notify)
        self._stopping = False
        self._log = log_dir / "llamacpp.log"
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        name = path.stem if self._model not in models.KNOWN else self._model
        self._child = await spawner.start(self._argv(path, name), name="llama.cpp server", log=self._log)
        try:
            url = await self._listening(self._child)
            spec = OpenAISpec(
                base_url=f"{url}/v1", model=name, timeout=_CALL_SECONDS, structured="none", shape=shape
            )
            await choose_model(spec, name)
        except BaseException:
            await self.stop()
            raise
        notify(f"model {name} on llama.cpp, {self._slots} slots of {self._context} tokens")
        return spec

    async def watch(self) -> None:
        """Wait until the server dies; for ever, if it was stopped.

        Raises:
            ServiceError: when it has died, with its last words.
        """
        if self._child is not None:
            code = await self._child.wait()
            if not self._stopping:
                raise self._died(code)
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Stop the server. May be called at any time, and twice."""
        self._stopping = True
        if self._child is not None:
            await self._child.stop()

    def _argv(self, path: Path, name: str) -> list[str]:
        argv = [sys.executable, "-m", "peerloom.services.llm.llamacpp_server"]
        argv += ["--model", str(path), "--alias", name, "--host", self._host]
        argv += ["--slots", str(self._slots), "--context", str(self._context)]
        return argv if self._threads is None else [*argv, "--threads", str(self._threads)]

    async def _pull(self, notify: Callable[[str], None]) -> Path:
        """The weights, fetched in a thread that a cancellation ends too."""
        report = self._progress or _Notices(self._model, notify)
        cancelled = threading.Event()

        def progress(done: int, total: int | None) -> None:
            if cancelled.is_set():
                raise ServiceError(f"the pull of model {self._model} was cancelled")
            report(done, total)

        try:
            return await asyncio.to_thread(models.pull, self._model, progress)
        finally:
            cancelled.set()

    async def _listening(self, child: ChildProcess) -> str:
        """The server's URL, which it prints once the model is loaded."""
        try:
            async with asyncio.timeout(_LOAD_SECONDS):
                while (url := self._announced()) is None:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_POLL_SECONDS):
                            raise self._died(await child.wait())
        except TimeoutError as error:
            raise ServiceError(
                f"the llama.cpp server did not load model {self._model} in {_LOAD_SECONDS:g} s. "
                f"{self._last_words()}"
            ) from error
        return url

    def _announced(self) -> str | None:
        found = (line for line in self._lines() if line.startswith('{"listening"'))
        return next((orjson.loads(line)["listening"] for line in found), None)

    def _died(self, code: int) -> ServiceError:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return ServiceError(f"the llama.cpp server of model {self._model} {how}. {self._last_words()}")

    def _last_words(self) -> str:
        tail = "".join(f"\n  {line}" for line in self._lines()[-_TAIL_LINES:])
        return f"Its log {self._log} ends with:{tail}" if tail else f"Its log {self._log} is empty"

    def _lines(self) -> list[str]:
        """What this start of the server has written to its log, in whole lines."""
        try:
            with self._log.open("rb") as log:
                log.seek(self._log_start)
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        return text[: text.rfind("\n") + 1].splitlines()


class _Notices:
    """Tells of a pull in notices: at its begin, and at every quarter."""

    def __init__(self, model: str, notify: Callable[[str], None]) -> None:
        self._model = model
        self._notify = notify
        self._next = 0.0

    def __call__(self, done: int, total: int | None) -> None:
        share = done / total if total else 0.0
        if share >= self._next:
            self._notify(
                f"pulling model {self._model}: {share:.0%}" + (f" of {total >> 20} MB" if total else "")
            )
            self._next = (int(share * 4) + 1) / 4
