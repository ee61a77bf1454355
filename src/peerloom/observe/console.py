"""The console of a process whose standard streams may be closed or full."""

from typing import Any

from rich.console import Console


class _Console(Console):
    """A console that goes silent when its stream cannot be written."""

    def on_broken_pipe(self) -> None:
        self.quiet = True

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except (OSError, ValueError, AttributeError):  # the last ones: Python's closed streams, and None
            self.quiet = True


def open_console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error.

    A program that reads it may go away, and a disk that it is written to may be full: what is printed then is
    dropped, and the run goes on. In a notebook it prints text, as the run is in another thread than the cell.
    """
    return _Console(stderr=stderr, force_jupyter=False)
