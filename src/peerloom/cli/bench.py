"""`peerloom bench`: measure this machine."""

from typing import Annotated

import typer

from peerloom.bench.main import main as measure
from peerloom.bench.points import Placement, Without
from peerloom.cli.app import VERBS, guarded
from peerloom.cli.arguments import Json


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("bench", help=VERBS["bench"])(guarded(bench))


def bench(
    name: Annotated[str, typer.Argument(help="hops, calls, recovery or affinity.")],
    in_flight: Annotated[
        int | None, typer.Option(min=1, help="Measure with so many tasks at once only.")
    ] = None,
    tasks: Annotated[int | None, typer.Option(min=1, help="Tasks of each measured run.")] = None,
    placement: Annotated[Placement | None, typer.Option(help="Measure this placement only.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Runs of each setting; the median counts.")] = None,
    without: Annotated[
        Without | None, typer.Option(help="Measure with this switched off too, in turn, and compare.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure, and print a point for each setting."""
    measure(
        name,
        in_flight=in_flight,
        tasks=tasks,
        placement=placement,
        runs=runs,
        without=without,
        json=as_json,
    )
