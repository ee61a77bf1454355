"""Reopen standard streams that the parent process has closed."""

import os
import sys


def reopen_closed() -> None:
    """Open the null device for closed standard streams, so that no file of a run gets their descriptors."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] - None for a closed stream
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
