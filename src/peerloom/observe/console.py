"""Open consoles that tolerate closed and full standard streams, and page their output."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console


class _Console(Console):
    """A console that becomes quiet when its stream cannot be written."""

    def on_broken_pipe(self) -> None:
        self.quiet = True

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except (OSError, ValueError, AttributeError):  # ValueError: a closed stream; AttributeError: None
            self.quiet = True


def open_console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error.

    If the reader of the stream has exited or the disk is full, the output is dropped and the run continues.
    In a notebook it prints plain text, because the run is in a different thread from the cell.
    """
    return _Console(stderr=stderr, force_jupyter=False)


@contextmanager
def paged(console: Console) -> Generator[None]:
    """Send the output of the console to the user's pager, in colors, if it is a terminal."""
    if not console.is_terminal or not sys.stdin.isatty():
        yield
        return
    os.environ.setdefault("LESS", "-FRX")  # as git does: keep colors, and exit if all fits on the screen
    with console.pager(styles=True):
        yield
