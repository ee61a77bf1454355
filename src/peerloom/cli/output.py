"""Print text and JSON on standard output and standard error, even if they are closed."""

import re
import sys
from contextlib import suppress
from typing import Any

import orjson

from peerloom.services.secret import mask
from peerloom.terminal.printable import printable

_CONTROL = re.compile("[\x7f-\x9f]")  # JSON escapes only those below U+0020


def echo(text: str, *, stderr: bool = False, end: str = "\n") -> None:
    """Print text with its secrets masked and its control characters replaced."""
    _write(printable(mask(text)) + end, stderr=stderr)


def echo_json(value: Any, *, indent: bool = False) -> bool:
    """Print a value as JSON on standard output, with all control characters escaped.

    Return whether the stream could be written.
    """
    options = orjson.OPT_INDENT_2 if indent else 0
    text = orjson.dumps(value, default=str, option=options).decode()
    return _write(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n", stderr=False)


def _write(text: str, *, stderr: bool) -> bool:
    stream = sys.stderr if stderr else sys.stdout
    with suppress(OSError, ValueError, AttributeError):
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
        return True
    return False
