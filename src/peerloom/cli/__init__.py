"""The command line: one file per verb."""

from peerloom.cli.app import main

__all__ = ["main"]
