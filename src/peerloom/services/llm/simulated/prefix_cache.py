"""Which prefix of a prompt a server would still have in its cache, as far as its capacity goes.

The text is cut into blocks of 16 tokens; each is known by a hash of itself and of all before it, so a prompt
meets what any earlier one began with: its own conversation, or only the system message. Blocks are forgotten
in the order of their last use, of one prompt the last ones first. This is how vLLM keeps its cache.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from peerloom.services.llm.simulated.request import CACHE_BLOCK, CHARS_PER_TOKEN, MESSAGE_TOKENS

_BLOCK = CACHE_BLOCK * CHARS_PER_TOKEN
_HEADER = MESSAGE_TOKENS * CHARS_PER_TOKEN


class PrefixCache:
    """The cache of one server.

    Args:
        tokens: how many it holds.
    """

    def __init__(self, tokens: int) -> None:
        self._most = tokens // CACHE_BLOCK
        self._blocks: OrderedDict[int, None] = OrderedDict()  # the one used last is at the end

    def __len__(self) -> int:
        """Tokens that it holds."""
        return len(self._blocks) * CACHE_BLOCK

    def meet(self, messages: Sequence[tuple[str, str]], reply: str) -> int:
        """Tokens of a prompt that it holds already; it holds the prompt and its reply from now on.

        Args:
            messages: of the prompt, role and text of each.
            reply: the assistant's text.
        """
        prompt = _flat(messages)
        blocks = list(_hashes(prompt + _flat([("assistant", reply)])))
        held = self._blocks
        met = 0
        for block in blocks[: len(prompt) // _BLOCK]:
            if block not in held:
                break
            met += 1
        for block in reversed(blocks):
            held[block] = None
            held.move_to_end(block)
        while len(held) > self._most:
            held.popitem(last=False)
        return met * CACHE_BLOCK


def _flat(messages: Sequence[tuple[str, str]]) -> str:
    """The prompt as one text; each message has a header as long as it is counted for."""
    return "".join(f"{role[:_HEADER]:_<{_HEADER}}{text}" for role, text in messages)


def _hashes(text: str) -> Iterator[int]:
    before = 0
    for at in range(0, len(text) - _BLOCK + 1, _BLOCK):
        before = hash((before, text[at : at + _BLOCK]))
        yield before
