"""Prints figures: JSON lines for programs, tables for people."""

import sys
from typing import Any

import orjson
from rich import box
from rich.table import Table


def print_json(found: Any) -> None:
    """Print a value as one line of JSON, at once."""
    sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


def significant(value: Any, digits: int = 5) -> Any:
    """Return a float with so many significant digits; anything else as it is."""
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def new_table(title: str, **options: Any) -> Table:
    """Return an empty table in the style of all benchmarks."""
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, **options)
