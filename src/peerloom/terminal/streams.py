"""Standard streams that the parent process has closed."""

import os
import sys


def reopen_closed() -> None:
    """Open the null device for closed standard streams, so that no file of a run gets their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] - Python's mark of a closed one
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
