"""A client that can be given more room while it is in use.

A client is made for so many calls at once. When more are wanted, another takes over from there; the
calls of the one before are answered as if nothing had happened.
"""

from peerloom.services.llm.base import LLM, ChatReply, ChatRequest
from peerloom.services.llm.service import ClientSpec


class WideningLLM:
    """A client of one model, for the running event loop.

    Args:
        spec: makes the clients.
        concurrency: calls at once, to begin with.
    """

    def __init__(self, spec: ClientSpec, concurrency: int) -> None:
        self._spec = spec
        self._concurrency = concurrency
        self._client = spec.connect(concurrency=concurrency)
        self._outgrown: list[LLM] = []

    def widen(self, concurrency: int) -> None:
        """From now on so many calls may be made at once; room that is there stays."""
        if concurrency > self._concurrency:
            self._outgrown.append(self._client)
            self._client = self._spec.connect(concurrency=concurrency)
            self._concurrency = concurrency

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request; see `LLM.chat`."""
        return await self._client.chat(request)

    async def close(self) -> None:
        """Close all clients."""
        for client in (*self._outgrown, self._client):
            await client.close()
