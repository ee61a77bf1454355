"""`python -m benchmarks NAME`: measure this machine."""

from pathlib import Path
from typing import Annotated, TypedDict

import typer

from benchmarks.comparison.main import install_peers, measure_all
from benchmarks.harness.points import Placement, Without
from benchmarks.standalone.limits import main as measure_limits
from benchmarks.standalone.main import main as measure
from benchmarks.standalone.offload import main as measure_offload
from benchmarks.standalone.refusals import Engine
from peerloom.cli.app import handle_errors
from peerloom.cli.arguments import Json, expanded
from peerloom.errors import ConfigError

ALL, INSTALL, OFFLOAD, LIMITS = "all", "install", "offload", "limits"


class _Shape(TypedDict):
    in_flight: int | None
    placement: Placement | None
    without: Without | None


class _Cases(TypedDict):
    everything: bool
    engine: Engine | None
    peers: int | None
    only: str


Which = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PEER]...", help="With all or install: these systems only.", show_default=False),
]
Off = Annotated[
    Without | None, typer.Option(help="Measure with this switched off too, in turn, and compare.")
]
Quick = Annotated[
    bool, typer.Option("--quick", help="With all: one run each of less work, few other systems.")
]
Only = Annotated[str, typer.Option(help="With all or limits: cases with this in their name only.")]
Results = Annotated[
    Path | None, typer.Option(help="With all: the Markdown file to write.", show_default=False)
]
Everything = Annotated[bool, typer.Option("--all", help="With limits: every case, which takes hours.")]
OneEngine = Annotated[Engine | None, typer.Option(help="With limits: this engine only.")]
Peers = Annotated[int | None, typer.Option(min=1, help="With limits: so many peers only.")]


def main(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    name: Annotated[
        str,
        typer.Argument(
            help="hops, calls, recovery, affinity, limits, offload; all for the table beside other systems, "
            "install for those."
        ),
    ],
    which: Which = None,
    in_flight: Annotated[
        int | None, typer.Option(min=1, help="Measure with so many tasks at once only.")
    ] = None,
    tasks: Annotated[int | None, typer.Option(min=1, help="Tasks of each measured run.")] = None,
    placement: Annotated[Placement | None, typer.Option(help="Measure this placement only.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Runs of each setting; the median counts.")] = None,
    without: Off = None,
    quick: Quick = False,
    only: Only = "",
    results: Results = None,
    keep: Annotated[bool, typer.Option("--keep", help="With all: go on with those results.")] = False,
    everything: Everything = False,
    engine: OneEngine = None,
    peers: Peers = None,
    as_json: Json = False,
) -> None:
    """Measure, and print a point for each setting, or a row for each figure."""
    _check_names(name, which)
    _check(name, {ALL}, **{"--quick": quick, "--results": results, "--keep": keep})
    _check(name, {ALL, LIMITS}, **{"--only": only})
    _check(name, {LIMITS}, **{"--all": everything, "--engine": engine, "--peers": peers})
    shape: _Shape = {"in_flight": in_flight, "placement": placement, "without": without}
    if name == ALL:
        path, systems = expanded(results), which or ()
        measure_all(quick=quick, json=as_json, results=path, keep=keep, peers=systems, only=only, runs=runs)
    elif name == INSTALL:
        install_peers(which or ())
    elif name == LIMITS:
        _refuse_shape(name, **shape)
        cases: _Cases = {"everything": everything, "engine": engine, "peers": peers, "only": only}
        measure_limits(**cases, tasks=tasks, runs=runs, json=as_json)
    elif name == OFFLOAD:
        _refuse_shape(name, **shape, tasks=tasks, runs=runs)
        measure_offload(json=as_json)
    else:
        measure(name, **shape, tasks=tasks, runs=runs, json=as_json)


def _check_names(name: str, which: list[str] | None) -> None:
    """Refuse names of systems where they would be ignored."""
    if which and name not in (ALL, INSTALL):
        raise ConfigError(f"the benchmark {name} takes no names of systems: only all and install do")


def _check(name: str, where: set[str], **options: object) -> None:
    """Refuse options that would be ignored."""
    for option, value in options.items():
        if value and name not in where:
            raise ConfigError(f"{option} is not for {name} but for {' and '.join(sorted(where))}")


def _refuse_shape(name: str, /, **options: object) -> None:
    """Refuse options that mean nothing to a benchmark with work of its own."""
    for option, value in options.items():
        if value is not None:
            flag = f"--{option.replace('_', '-')}"
            raise ConfigError(f"{flag} is not for {name}: the work is its own")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help="Measure this machine.", no_args_is_help=True)(handle_errors(main))
    app(prog_name="python -m benchmarks")
