"""A client that looks into the cache first: before limits and budget, for a hit takes from neither.

A reply from the cache has used nothing: its `usage` is empty, so rows, summary and budget say what was paid.
What it would have cost is counted as saved. Equal requests under way at the same time are asked once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from peerloom.services.llm.base import LLM, ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.cache.keys import Keys, Unknown
from peerloom.services.llm.cache.thread import CacheThread
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.service import ClientSpec
from peerloom.services.llm.limits.quota_client import QuotaClient
from peerloom.services.llm.usage.prices import Price, Prices
from peerloom.task import Usage

Reply = TypeVar("Reply", ChatReply, EmbedReply)

_COMPLETE = ("stop", "tool_calls")
_CUT = "length"

_encoder = msgspec.msgpack.Encoder()
_NOT_PLAIN = (TypeError, OverflowError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """A cache to be used.

    Args:
        path: its file, on a disk of each node; all peers of a node and any number of runs share it.
        size: bytes that it may have; what was not used for longest goes first.
        model: what says which model it is, beside what the service says of itself; JSON values.
        lookup: whether replies are taken from it; else they are only kept.
    """

    path: Path
    size: int
    model: Mapping[str, Any] = field(default_factory=dict[str, Any])
    lookup: bool = True


class CacheTally(msgspec.Struct, array_like=True):
    """What the cache was good for.

    `hits` calls it answered, `misses` it could have but did not have; `tokens` and dollars were not spent.
    """

    hits: int = 0
    misses: int = 0
    tokens: int = 0
    usd: float = 0.0

    def add(self, other: "CacheTally") -> None:
        """Add another tally to this one."""
        self.hits += other.hits
        self.misses += other.misses
        self.tokens += other.tokens
        self.usd += other.usd


@dataclass(frozen=True, slots=True)
class CachedSpec:
    """A service behind a cache; makes clients of it. Picklable."""

    inner: ClientSpec
    settings: CacheSettings

    @property
    def fleets(self) -> Sequence[ReplicatedClientSpec]:
        """The services behind it."""
        return self.inner.fleets

    def metered(self, everything: bool) -> "CachedSpec":
        """The same, with calls that are made metered."""
        return replace(self, inner=self.inner.metered(everything))

    def priced(self, prices: Prices) -> "CachedSpec":
        """The same, with what tokens cost."""
        return replace(self, inner=self.inner.priced(prices))

    def connect(self, desk: QuotaClient | None = None) -> "CachingLLM":
        """A client for the running event loop."""
        return CachingLLM(self.inner.connect(desk), self.settings, self.fleets)


class CachingLLM:
    """Answers from the cache what it can, and keeps what it could not.

    Args:
        inner: the client that is asked otherwise.
        settings: the cache.
        fleets: the services behind that client.

    Attributes:
        tally: what it was good for so far.
        told: what a person should know; whoever reads it empties it.
    """

    def __init__(self, inner: LLM, settings: CacheSettings, fleets: Sequence[ReplicatedClientSpec]) -> None:
        self.tally = CacheTally()
        self.told: list[str] = []
        self._inner = inner
        self._lookup = settings.lookup
        self._price = fleets[0].price if len(fleets) == 1 else None
        self._asking: dict[bytes, asyncio.Future[bytes | None]] = {}
        self._clerk = CacheThread(settings.path, settings.size, self.told.append)
        try:
            self._keys = Keys(fleets, settings.model)
        except Unknown as error:
            self._keys = None
            self.told.append(f"the cache is not used: {error}")

    async def chat(self, request: ChatRequest) -> ChatReply:
        """As the client inside."""
        key = self._keys.chat(request) if self._keys is not None else None
        if key is None:
            return await self._inner.chat(request)
        whole = (*_COMPLETE, _CUT) if request.max_tokens else _COMPLETE  # cut as it was asked to be
        return await self._answer(key, ChatReply, lambda: self._inner.chat(request), whole)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """As the client inside."""
        key = self._keys.embed(request) if self._keys is not None else None
        if key is None:
            return await self._inner.embed(request)
        return await self._answer(key, EmbedReply, lambda: self._inner.embed(request))

    async def close(self) -> None:
        """Write what is still to be kept, and close the client inside."""
        try:
            await self._clerk.close()
        finally:
            await self._inner.close()

    async def _answer(
        self,
        key: bytes,
        kind: type[Reply],
        ask: Callable[[], Awaitable[Reply]],
        whole: Sequence[str] = _COMPLETE,
    ) -> Reply:
        """The reply from the cache, or from whoever asks the same just now, or that of a call."""
        while (other := self._asking.get(key)) is not None:
            await asyncio.wait((other,))
            hit = self._hit(other.result(), kind)
            if hit is not None:
                return hit
        asking = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            kept = await self._clerk.get(key) if self._lookup else None
            hit = self._hit(kept, kind)
            if hit is not None:
                asking.set_result(kept)
                return hit
            self.tally.misses += 1
            reply = await ask()
            asking.set_result(self._keep(key, reply, whole))
            return reply
        except Exception as error:
            asking.set_exception(error)
            asking.exception()  # nobody else need have asked
            raise
        finally:
            del self._asking[key]
            if not asking.done():
                asking.set_result(None)  # cancelled: one of those who wait asks itself

    def _hit(self, encoded: bytes | None, kind: type[Reply]) -> Reply | None:
        """A reply that need not be paid, each time a new one: agents go on with what is in it."""
        if encoded is None:
            return None
        try:
            reply = msgspec.msgpack.decode(encoded, type=kind)
        except msgspec.MsgspecError:
            return None  # of another release
        self.tally.hits += 1
        self.tally.tokens += reply.usage.prompt + reply.usage.completion
        self.tally.usd += self._worth(reply.usage, self._price)
        return msgspec.structs.replace(reply, usage=Usage(), seconds=0.0)

    def _keep(self, key: bytes, reply: ChatReply | EmbedReply, whole: Sequence[str]) -> bytes | None:
        try:
            encoded = _encoder.encode(reply)
        except _NOT_PLAIN:
            return None
        if isinstance(reply, EmbedReply) or reply.finish_reason in whole:
            self._clerk.put(key, encoded)
        return encoded

    @staticmethod
    def _worth(usage: Usage, price: Price | None) -> float:
        """Dollars, at today's price if that is known, else as when it was paid."""
        return usage.usd if price is None else price.cost(usage)
