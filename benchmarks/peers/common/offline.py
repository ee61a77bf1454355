"""Some peers count tokens with tiktoken, which downloads its tables; here bytes are counted instead."""

import sys
import types


class Bytes:
    """An encoding of a token for four bytes."""

    name = "bytes"
    n_vocab = 100_000

    def encode(self, text, **_):
        return list(range(max(1, len(text.encode()) // 4)))

    encode_ordinary = encode

    def decode(self, tokens, **_):
        return "x" * 4 * len(tokens)


def without_tiktoken():
    """Put a module in its place."""
    module = types.ModuleType("tiktoken")
    module.Encoding = Bytes
    module.get_encoding = lambda name: Bytes()
    module.encoding_for_model = lambda name: Bytes()
    module.list_encoding_names = lambda: ["bytes"]
    module.__version__ = "0"
    sys.modules["tiktoken"] = module
