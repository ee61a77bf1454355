"""The base of the meters: takes samples at intervals, beside all else that goes on."""

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

SAMPLE_SECONDS = 0.5


class Sampler(ABC):
    """Samples while it is entered: at once, then every so many seconds, and when it is left."""

    _sampling: asyncio.Task[None] | None = None

    def __init__(self, every: float = SAMPLE_SECONDS) -> None:
        self._every = every

    async def __aenter__(self) -> Self:
        await self._sample()
        self._sampling = asyncio.create_task(self._sample_for_ever())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._sampling is not None
        self._sampling.cancel()
        await asyncio.wait((self._sampling,))
        await self._sample()

    async def _sample_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self._sample()

    @abstractmethod
    async def _sample(self) -> None:
        """Take one sample."""
