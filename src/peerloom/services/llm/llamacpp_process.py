"""One life of llama.cpp's server: from its start, over its first words, to its death or its silence.

A stopped process never ends by itself, so its `/health` is asked about once a second. Patience is counted
in looks, not by the clock: if this process was the one that was stopped, that is one look. With more
connections than llama.cpp has threads (about a thousand) it answers late though it is well, so a server
that only used CPU time since the last look counts as alive as well.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import orjson
import psutil

from peerloom.errors import ServiceError
from peerloom.services.spawn import ChildProcess, Spawner

LOOK_SECONDS = 1.0
"""Between two looks, and how long the answer of one may take."""
LOOKS = 5
"""As many in a row without a sign of life, and the server is killed."""

_LOAD_SECONDS = 600.0
_POLL_SECONDS = 0.05
_TAIL_LINES = 6


class ServerProcess:
    """A llama.cpp server that was started; `what` names it in messages."""

    def __init__(self, child: ChildProcess, what: str, log: Path, log_start: int) -> None:
        self._child = child
        self._what = what
        self._log = log
        self._log_start = log_start
        self._url = ""
        self._listening_since = 0.0
        self._last_sign = 0.0

    @classmethod
    async def start(cls, spawner: Spawner, argv: Sequence[str], what: str, log: Path) -> "ServerProcess":
        """Start it; it has still to load its model.

        Raises:
            ServiceError: if it cannot be started.
        """
        log_start = _size(log)
        child = await spawner.start(argv, name="llama.cpp server", log=log)
        return cls(child, what, log, log_start)

    async def listening(self) -> str:
        """Wait until it has loaded the model; the URL that it prints then.

        Raises:
            ServiceError: if it ends, or takes too long; with its last words.
        """
        try:
            async with asyncio.timeout(_LOAD_SECONDS):
                while (url := self._announced()) is None:
                    code = await self._ended_within(_POLL_SECONDS)
                    if code is not None:
                        raise ServiceError(self._died(code))
        except TimeoutError as error:
            raise ServiceError(
                f"{self._what} did not load it in {_LOAD_SECONDS:g} s. {self._last_words()}"
            ) from error
        self._url = url
        self._listening_since = self._last_sign = time.monotonic()
        return url

    @property
    def lived(self) -> float:
        """Seconds from when it listened, if it ever did, to its last sign of life."""
        return self._last_sign - self._listening_since

    async def end(self) -> str:
        """Wait until it has ended; how that was, with its last words. One that is stuck is killed."""
        silent, used = 0, 0.0
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LOOK_SECONDS)) as session:
            while silent < LOOKS:
                code = await self._ended_within(LOOK_SECONDS)
                if code is not None:
                    return self._died(code)
                before, used = used, self._cpu_seconds()
                if used > before or await self._answers(session):
                    silent, self._last_sign = 0, time.monotonic()
                else:
                    silent += 1
        await self.stop(grace=0)
        return f"{self._what} gave no sign of life in {LOOKS} looks, so it was killed. {self._last_words()}"

    async def stop(self, grace: float = 5) -> None:
        """End it: SIGTERM, and SIGKILL after `grace` seconds."""
        await self._child.stop(grace)

    async def _ended_within(self, seconds: float) -> int | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._child.wait()
        return None

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self._url}/health") as response:
                return response.status == 200
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False

    def _cpu_seconds(self) -> float:
        try:
            times = psutil.Process(self._child.pid).cpu_times()
        except psutil.Error:  # it has just ended
            return 0.0
        return times.user + times.system

    def _announced(self) -> str | None:
        found = (line for line in self._lines() if line.startswith('{"listening"'))
        return next((orjson.loads(line)["listening"] for line in found), None)

    def _died(self, code: int) -> str:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"{self._what} {how}. {self._last_words()}"

    def _last_words(self) -> str:
        tail = "".join(f"\n  {line}" for line in self._lines()[-_TAIL_LINES:])
        return f"Its log {self._log} ends with:{tail}" if tail else f"Its log {self._log} is empty"

    def _lines(self) -> list[str]:
        """What this server has written to its log, in whole lines."""
        try:
            with self._log.open("rb") as log:
                log.seek(self._log_start)
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        return text[: text.rfind("\n") + 1].splitlines()


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0
