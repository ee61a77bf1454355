"""Open consoles that tolerate closed and full standard streams."""

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
