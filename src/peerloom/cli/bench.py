"""`peerloom bench`: measure this machine."""

import typer

from peerloom.cli.app import VERBS, guarded
from peerloom.cli.arguments import Json


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("bench", help=VERBS["bench"])(guarded(bench))


def bench(name: str, as_json: Json = False) -> None:
    """Measure."""
    raise NotImplementedError(name, as_json)
