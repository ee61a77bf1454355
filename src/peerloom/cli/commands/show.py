"""Implement `peerloom show`: print rows of a run as dialogues, at any time."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Annotated, Any

import typer

from peerloom.cli.arguments import expanded
from peerloom.cli.output import echo, echo_json
from peerloom.errors import ConfigError, RunDirError
from peerloom.observe.console import open_console, paged
from peerloom.observe.dialogue import print_row
from peerloom.observe.words import count, outcomes
from peerloom.sink.export.where import parse_where
from peerloom.sink.find import find_rows, sample, sample_rows
from peerloom.sink.layout import DATA, REJECTED, RUN_LOCK, list_parts
from peerloom.sink.read import list_extents, parse_lines, read_totals
from peerloom.task import COMPLETED, TaskId

LIMIT = 3
"""The number of rows that are shown if none are named."""


def show(  # noqa: PLR0913, PLR0917 - the options of a command
    run_dir: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR", help="The directory of a run, which may be active.", callback=expanded
        ),
    ],
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...",
            help="The ids of rows, completed or not. [default: the first completed rows]",
            show_default=False,
        ),
    ] = None,
    requests: Annotated[
        bool, typer.Option("--requests", help="Also show the requests that were sent to models.")
    ] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="The filtered, truncated and failed rows instead.")
    ] = False,
    random: Annotated[
        int | None, typer.Option(min=1, help="This many rows, chosen at random.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Choose the same random rows each time.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=1, help=f"At most this many rows. [default: {LIMIT}]", show_default=False
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="EXPR",
            help="The rows of which this is true, e.g. 'result.score > 3'.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each row as one line of JSON.")] = False,
) -> None:
    """Print the rows that are named, or the first ones."""
    folder = REJECTED if failed else DATA
    _check_options(ids or (), failed=failed, random=random, seed=seed, limit=limit, where=where)
    _check_run(run_dir)
    if ids:
        rows: Iterable[dict[str, Any]] = _named(run_dir, ids)
    elif random:
        rows = _sample(run_dir, folder, where, random, seed)
    else:
        rows = islice(_select(run_dir, folder, where), limit or LIMIT)
    if as_json:
        shown = sum(1 for _ in takewhile(echo_json, rows))
    else:
        shown = _print(rows, requests=requests, whole=bool(ids))
    if not ids:
        _print_total(run_dir, shown, failed=failed)


def _check_options(ids: Sequence[str], *, seed: int | None, **choices: Any) -> None:
    given = [f"--{name}" for name, value in choices.items() if value]
    if ids and given:
        raise ConfigError(f"ids name the rows to show: leave out {' and '.join(given)}")
    if choices["random"] and choices["limit"]:
        raise ConfigError("--random says how many rows to show: leave out --limit")
    if seed is not None and not choices["random"]:
        raise ConfigError("--seed is for --random, e.g. --random 5 --seed 1")


def _check_run(run_dir: Path) -> None:
    if not run_dir.is_dir():
        raise RunDirError(f"there is no run directory {run_dir}")
    if not (run_dir / RUN_LOCK).exists() and not list_parts(run_dir, DATA):
        raise RunDirError(f"{run_dir} contains no run of Peerloom")


def _named(run_dir: Path, ids: Sequence[str]) -> list[dict[str, Any]]:
    wanted = {id: _task_id(id) for id in ids}
    found = find_rows(run_dir, set(wanted.values()))
    if missing := [id for id, task in wanted.items() if task not in found]:
        raise RunDirError(f"{run_dir} has no row {', '.join(missing)}: ids are FILE-ROW-TRIAL, from 0-0-0")
    return [found[task] for task in wanted.values()]


def _task_id(text: str) -> TaskId:
    parts = text.split("-")
    if len(parts) != len(TaskId._fields) or not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"{text} is no id of a row: ids are FILE-ROW-TRIAL, each from 0, such as 0-17-2")
    return TaskId(*map(int, parts))


def _all(run_dir: Path, folder: str) -> Iterator[dict[str, Any]]:
    return (row for extent in list_extents(run_dir, folder) for row in parse_lines(extent))


def _select(run_dir: Path, folder: str, where: str | None) -> Iterator[dict[str, Any]]:
    """Return all rows, or those of which an expression is true."""
    rows = _all(run_dir, folder)
    return rows if where is None else filter(parse_where(where), rows)


def _sample(
    run_dir: Path, folder: str, where: str | None, number: int, seed: int | None
) -> list[dict[str, Any]]:
    if where is None:
        return sample_rows(run_dir, folder, number, seed)  # without parsing the other rows
    return sample(_select(run_dir, folder, where), number, seed)


def _print(rows: Iterable[dict[str, Any]], *, requests: bool, whole: bool) -> int:
    console = open_console()
    shown = 0
    with paged(console):
        for row in rows:
            print_row(console, row, requests=requests, whole=whole)
            console.print()
            shown += 1
            if console.quiet:  # the reader of the output has ended
                break
    return shown


def _print_total(run_dir: Path, shown: int, *, failed: bool) -> None:
    """Print the number of rows on stderr, so that stdout has only rows."""
    counts = read_totals(run_dir).outcomes
    completed = counts.get(COMPLETED, 0)
    total = max(shown, sum(counts.values()) - completed if failed else completed)  # without an index 0
    kind = "rejected" if failed else "completed"
    if not total and not failed:
        rest = f" ({outcomes(counts)}: add --failed)" if counts else ""
        raise RunDirError(f"{run_dir} has no completed row{rest}")
    echo(f"{count(shown)} of {count(total)} {kind} rows" if total else "no row was rejected", stderr=True)
