"""Simulate the prefix cache of a server with limited capacity.

A prompt is divided into blocks of 16 tokens. Each block is identified by a hash of itself and its prefix, so
any two prompts share the blocks of their common prefix. The least recently used blocks are evicted, within a
prompt the last ones first. vLLM's cache works in the same way.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from peerloom.services.llm.simulated.request import CACHE_BLOCK, CHARS_PER_TOKEN, MESSAGE_TOKENS

_BLOCK = CACHE_BLOCK * CHARS_PER_TOKEN
_HEADER = MESSAGE_TOKENS * CHARS_PER_TOKEN


class PrefixCache:
    """The prefix cache of one server.

    Args:
        tokens: the capacity in tokens.
    """

    def __init__(self, tokens: int) -> None:
        self._capacity = tokens // CACHE_BLOCK
        self._blocks: OrderedDict[int, None] = OrderedDict()  # the one used last is at the end

    def __len__(self) -> int:
        """Return the number of cached tokens."""
        return len(self._blocks) * CACHE_BLOCK

    def add(self, messages: Sequence[tuple[str, str]], reply: str) -> int:
        """Return the number of cached tokens of a prompt, and add the prompt and its reply.

        Args:
            messages: the role and text of each message of the prompt.
            reply: the text of the reply.
        """
        prompt = _flat(messages)
        blocks = list(_hashes(prompt + _flat([("assistant", reply)])))
        cached = self._blocks
        hits = 0
        for block in blocks[: len(prompt) // _BLOCK]:
            if block not in cached:
                break
            hits += 1
        for block in reversed(blocks):
            cached[block] = None
            cached.move_to_end(block)
        while len(cached) > self._capacity:
            cached.popitem(last=False)
        return hits * CACHE_BLOCK


def _flat(messages: Sequence[tuple[str, str]]) -> str:
    """Return the messages as one text; each has a header of the length counted for it."""
    return "".join(f"{role[:_HEADER]:_<{_HEADER}}{text}" for role, text in messages)


def _hashes(text: str) -> Iterator[int]:
    before = 0
    for at in range(0, len(text) - _BLOCK + 1, _BLOCK):
        before = hash((before, text[at : at + _BLOCK]))
        yield before
