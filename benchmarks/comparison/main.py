"""Measures all cases, and writes the results; installs the peers."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.comparison.case import Case, complete, measure
from benchmarks.comparison.cases import calls, engine, growth, hops, memory, paper, parallel, start, traffic
from benchmarks.comparison.install import install
from benchmarks.comparison.machine import machine, peer_versions
from benchmarks.comparison.peers import PEERS, known
from benchmarks.comparison.report import Results, cells, measured_before, write
from benchmarks.comparison.rows import Row
from benchmarks.comparison.sides import Scope
from benchmarks.harness.output import new_table, print_json
from peerloom.errors import ConfigError

GROUPS = (hops, calls, memory, engine, paper, traffic, parallel, growth, start)
"""In the order of the table."""


def measure_all(
    *,
    quick: bool = False,
    json: bool = False,
    results: Path | None = None,
    keep: bool = False,
    peers: Sequence[str] = (),
    only: str = "",
    runs: int | None = None,
) -> None:
    """Measure every case and print its rows as they come.

    Args:
        quick: one run each of less work, without most peers.
        json: one JSON object a line for each row on standard output, instead of a table.
        results: the Markdown file to write, after each case; JSON and plots go beside it.
        keep: cases that the results hold already stay as they are, and are not measured again; except those
            that `only` names, and those of which a side has failed.
        peers: only these.
        only: only cases with this in their name.
        runs: of each side.

    Raises:
        ConfigError: if there is no such peer, or no such case, or what is to be kept cannot be read.
    """
    if keep and results is None:
        raise ConfigError("--keep wants --results: the file whose cases are kept")
    kept = measured_before(results) if keep and results is not None else {}
    scope = Scope(quick, frozenset(known(name).name for name in peers) or None, runs)
    progress = Console(stderr=True)
    found = Results(machine())
    for case in _chosen(scope, only, kept):
        again = only and only in case.name
        outcome = None if again else kept.get(case.name)
        if outcome is None or not complete(case, outcome):
            outcome = measure(case, _teller(progress))
        rows = case.rows(outcome)
        found.outcomes.append((case, outcome))
        found.rows += rows
        for row in rows if json else ():
            print_json(row.as_json())
        if results is not None:  # as it grows, so that a run that is cut short leaves what it has
            found.versions = peer_versions(PEERS)
            write(found, results, _command(peers, quick, only, runs, keep))
    if not json:
        Console().print(table(found.rows))


def install_peers(names: Sequence[str]) -> None:
    """Install the peers, each into an environment of its own.

    Raises:
        ConfigError: if there is no such peer.
        BenchError: if one cannot be installed.
    """
    install(names, _teller(Console(stderr=True)))


def table(rows: Sequence[Row]) -> Table:
    """Return the rows as a table."""
    shown = new_table("python -m benchmarks all")
    for name in ("figure", "ours", "peer", "its", "ratio", "reach", "holds", "note"):
        shown.add_column(name, justify="left" if name in ("figure", "peer", "note") else "right")
    for row in rows:
        shown.add_row(*(cell.replace("**", "") for cell in cells(row)))
    return shown


def _teller(console: Console) -> Callable[[str], None]:
    """Return a function that prints progress, without folding long lines or reading markup."""
    return partial(console.print, soft_wrap=True, markup=False, highlight=False)


def _chosen(scope: Scope, only: str, kept: Collection[str]) -> list[Case]:
    cases = [case for group in GROUPS for case in group.cases(scope)]
    lost = set(kept) - {case.name for case in cases}
    if lost:
        raise ConfigError(
            f"the results hold what this run has no case for, and would lose it: {'; '.join(sorted(lost))}. "
            "Measure as they were measured, into another file, or delete them from its JSON"
        )
    chosen = [case for case in cases if only in case.name or case.name in kept]
    if not chosen:
        raise ConfigError(f"no case has {only!r} in its name; there are {'; '.join(c.name for c in cases)}")
    return chosen


def _command(peers: Sequence[str], quick: bool, only: str, runs: int | None, keep: bool) -> str:
    flags = [*peers, *(["--quick"] if quick else []), *([f"--only '{only}'"] if only else [])]
    flags += [f"--runs {runs}"] if runs is not None else []
    flags += ["--keep"] if keep else []  # the other cases are of earlier runs
    return " ".join(["python -m benchmarks all", *flags])
