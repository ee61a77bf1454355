"""Answer requests from the cache, before limits and budget apply.

The `usage` of a cached reply is empty, so rows, summary and budget contain only paid usage; the saved usage
is counted separately. Equal requests that are outstanding at the same time are sent once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from peerloom.options import FREE, Options, Positive
from peerloom.services.llm.base import LLM, ChatReply, ChatRequest, EmbedReply, EmbedRequest, Reply
from peerloom.services.llm.cache.keys import CacheKeys, UncacheableService
from peerloom.services.llm.cache.thread import CacheThread
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.context import ClientContext
from peerloom.services.llm.client.service import ClientSpec
from peerloom.task import Usage

_COMPLETE = ("stop", "tool_calls")
_CUT = "length"

_encoder = msgspec.msgpack.Encoder()
_ENCODE_ERRORS = (TypeError, OverflowError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Cache(Options):
    """Cache of replies, of earlier runs too: an exactly equal request, seed included, is not sent again."""

    section: ClassVar[str] = "cache"

    path: Annotated[str | None, FREE] = None
    """The file, on a local disk of each node; by default there is no cache."""
    size_gb: Annotated[Positive, FREE] = 4.0
    """The maximum size in GB; the least recently used replies are removed."""


@dataclass(frozen=True, kw_only=True)
class CacheSettings(Cache):
    """A cache with a path, as a run uses it.

    Args:
        model: additional properties that identify the model; JSON values.
        lookup: whether replies are read from it, or only written to it.
    """

    model: Mapping[str, Any] = field(default_factory=dict[str, Any])
    lookup: bool = True


class CacheTally(msgspec.Struct, array_like=True):
    """The statistics of a cache.

    `hits` and `misses` count cacheable calls; `tokens` and `usd` are those saved by hits.
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
    """Creates clients of services behind a cache. Picklable."""

    inner: ClientSpec
    settings: CacheSettings

    @property
    def fleets(self) -> Sequence[ReplicatedClientSpec]:
        """The services behind the cache."""
        return self.inner.fleets

    def map_services(self, change: Callable[[ReplicatedClientSpec], ReplicatedClientSpec]) -> "CachedSpec":
        """Return a copy in which `change` was applied to each service."""
        return replace(self, inner=self.inner.map_services(change))

    def connect(self, context: ClientContext | None = None) -> "CachingLLM":
        """Return a client for the running event loop."""
        return CachingLLM(self.inner.connect(context), self.settings, self.fleets)


class CachingLLM:
    """Answers requests from the cache, and stores the replies to others.

    Args:
        inner: the client for requests that are not in the cache.
        settings: the settings of the cache.
        fleets: the services behind the inner client.

    Attributes:
        tally: the statistics so far.
        notices: notices for the user; the reader clears the list.
    """

    def __init__(self, inner: LLM, settings: CacheSettings, fleets: Sequence[ReplicatedClientSpec]) -> None:
        self.tally = CacheTally()
        self.notices: list[str] = []
        self._inner = inner
        self._lookup = settings.lookup
        self._price = fleets[0].price if len(fleets) == 1 else None
        self._outstanding: dict[bytes, asyncio.Future[bytes | None]] = {}
        assert settings.path is not None
        self._thread = CacheThread(Path(settings.path), int(settings.size_gb * 1e9), self.notices.append)
        try:
            self._keys = CacheKeys(fleets, settings.model)
        except UncacheableService as error:
            self._keys = None
            self.notices.append(f"the cache is not used: {error}")

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request from the cache, or else by the inner client."""
        key = self._keys.chat(request) if self._keys is not None else None
        if key is None:
            return await self._inner.chat(request)
        complete = (*_COMPLETE, _CUT) if request.max_tokens else _COMPLETE  # the request asked for the cut
        return await self._answer(key, ChatReply, lambda: self._inner.chat(request), complete)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed texts from the cache, or else by the inner client."""
        key = self._keys.embed(request) if self._keys is not None else None
        if key is None:
            return await self._inner.embed(request)
        return await self._answer(key, EmbedReply, lambda: self._inner.embed(request))

    async def close(self) -> None:
        """Write pending replies, and close the inner client."""
        try:
            await self._thread.close()
        finally:
            await self._inner.close()

    async def _answer(
        self,
        key: bytes,
        kind: type[Reply],
        call: Callable[[], Awaitable[Reply]],
        complete: Sequence[str] = _COMPLETE,
    ) -> Reply:
        """Return the reply from the cache, from an equal outstanding request, or from a call."""
        while (other := self._outstanding.get(key)) is not None:
            await asyncio.wait((other,))
            hit = self._hit(other.result(), kind)
            if hit is not None:
                return hit
        outcome = self._outstanding[key] = asyncio.get_running_loop().create_future()
        try:
            cached = await self._thread.get(key) if self._lookup else None
            hit = self._hit(cached, kind)
            if hit is not None:
                outcome.set_result(cached)
                return hit
            self.tally.misses += 1
            reply = await call()
            outcome.set_result(self._store(key, reply, complete))
            return reply
        except Exception as error:
            outcome.set_exception(error)
            outcome.exception()  # marks it as retrieved, as no other request may wait for it
            raise
        finally:
            del self._outstanding[key]
            if not outcome.done():
                outcome.set_result(None)  # cancelled: one of the waiting requests makes the call

    def _hit(self, encoded: bytes | None, kind: type[Reply]) -> Reply | None:
        """Return the cached reply and count it; a new object each time, since agents may change it."""
        if encoded is None:
            return None
        try:
            reply = msgspec.msgpack.decode(encoded, type=kind)
        except msgspec.MsgspecError:
            return None  # written by another release
        self.tally.hits += 1
        self.tally.tokens += reply.usage.prompt + reply.usage.completion
        self.tally.usd += reply.usage.usd if self._price is None else self._price.cost(reply.usage)
        return msgspec.structs.replace(reply, usage=Usage(), seconds=0.0, tries=0)

    def _store(self, key: bytes, reply: ChatReply | EmbedReply, complete: Sequence[str]) -> bytes | None:
        try:
            encoded = _encoder.encode(reply)
        except _ENCODE_ERRORS:
            return None
        if isinstance(reply, EmbedReply) or reply.finish_reason in complete:
            self._thread.put(key, encoded)
        return encoded
