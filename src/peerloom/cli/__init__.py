"""Provide the command line `peerloom`, with one module for each verb."""

from peerloom.cli.app import main

__all__ = ["main"]
