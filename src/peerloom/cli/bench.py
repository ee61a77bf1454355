"""`peerloom bench`: measure this machine."""

from typing import Annotated, Literal

import typer

from peerloom.bench.main import BENCHES, main
from peerloom.cli.app import VERBS, guarded
from peerloom.cli.arguments import Json


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("bench", help=VERBS["bench"])(guarded(bench))


def bench(
    name: Annotated[str, typer.Argument(help=f"What to measure: {' or '.join(BENCHES)}.", metavar="NAME")],
    in_flight: Annotated[int | None, typer.Option(min=1, help="Tasks in flight at once.")] = None,
    tasks: Annotated[int | None, typer.Option(min=1, help="Tasks of each run.")] = None,
    placement: Annotated[
        Literal["spread", "packed"] | None, typer.Option(help="Where the roles run.")
    ] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Runs of each setting; medians are shown.")] = None,
    as_json: Json = False,
) -> None:
    """Measure all settings of a benchmark, or those asked for."""
    main(name, in_flight=in_flight, tasks=tasks, placement=placement, runs=runs, json=as_json)
