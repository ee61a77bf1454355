"""Implement `peerloom ctl`: query or control an active run, from its host or another one."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from peerloom.cli.arguments import Json, expanded
from peerloom.cli.output import echo, echo_json
from peerloom.control.client import TOKEN_VARIABLE, NotRunning, find, last_state
from peerloom.errors import ConfigError
from peerloom.observe.console import open_console
from peerloom.observe.words import clock, count, duration, outcomes, plain
from peerloom.sink.layout import CONTROL

RunDirectory = Annotated[
    Path | None,
    typer.Argument(metavar="RUN", help="The run's directory.", show_default=False, callback=expanded),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help=f"Instead of RUN, on a host without the directory; the token is read from {TOKEN_VARIABLE}.",
        show_default=False,
    ),
]


def status(run: RunDirectory = None, address: Address = None, as_json: Json = False) -> None:
    """Print the status."""
    try:
        channel = find(run, address)
        document = {**channel.request("status"), "address": channel.address}
    except NotRunning:
        if run is None:
            raise
        document = last_state(run)
    if as_json:
        echo_json(document, indent=True)
    else:
        _print(document, run)


def set_value(
    setting: Annotated[str, typer.Argument(metavar="KEY=VALUE", help="E.g. in_flight=100.")],
    run: RunDirectory = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Change one setting."""
    key, equals, value = setting.partition("=")
    if not equals:
        raise ConfigError(f"{setting}: must be KEY=VALUE")
    _send(run, address, as_json, "set", {"key": key, "value": value})


def _command(name: str) -> Callable[..., None]:
    def command(run: RunDirectory = None, address: Address = None, as_json: Json = False) -> None:
        _send(run, address, as_json, name)

    return command


COMMANDS = {
    "status": (status, "Show the state of the run."),
    "pause": (_command("pause"), "Admit nothing and begin no turn; running turns finish."),
    "continue": (_command("continue"), "Continue after a pause."),
    "drain": (_command("drain"), "Finish the tasks in flight, admit no more; like the first Ctrl-C."),
    "cancel": (_command("cancel"), "Stop at once; rows written so far are kept, and the run can be resumed."),
    "set": (set_value, "Change a setting of the run."),
}


def _send(
    run: Path | None, address: str | None, as_json: bool, verb: str, content: dict[str, Any] | None = None
) -> None:
    answer = find(run, address).request(verb, content)
    echo_json(answer) if as_json else echo(answer["told"])


def _print(document: dict[str, Any], run: Path | None) -> None:
    console = open_console()
    for name, text in _lines(document, run):
        console.print(plain(f"{name:<11}", "dim"), plain(text), sep="", soft_wrap=True)
    for notice in document.get("notices", ()):
        console.print(plain(f"{clock(notice['time'])} {notice['text']}"), soft_wrap=True)
    address = document.get("address", "")
    if run is not None and address and not address.startswith("127."):
        console.print(
            plain(
                f"on a host without this directory: {TOKEN_VARIABLE}=(the token in {run / CONTROL}) "
                f"peerloom ctl status --address {address}"
            ),
            soft_wrap=True,
        )


def _lines(document: dict[str, Any], run: Path | None) -> list[tuple[str, str]]:
    state = document["state"]
    if "view" not in document:
        hint = (
            f"; resume it with `peerloom resume {run}`"
            if state in ("not running", "drained", "failed")
            else ""
        )
        lines = [("state", state + hint)]
        return [*lines, ("outcomes", outcomes(document["outcomes"]))] if "outcomes" in document else lines
    rates, total = document["rates"], document["total"]
    left = rates["seconds_left"]
    rows = count(document["committed"]) + (f"/{count(total)}" if total else "")
    members = (f"{each['name']} (process {each['pid']}{_node(each)})" for each in document["members"])
    return [
        ("state", _state(state, document)),
        ("rows", rows + (f", {duration(left)} left" if left is not None else "")),
        ("in flight", f"{count(document['in_flight'])}, {count(document['turns'])} running turns"),
        ("outcomes", outcomes(document["outcomes"])),
        (
            "per second",
            f"{rates['rows_per_second']:,.1f} rows, {rates['calls_per_second']:,.1f} calls, "
            f"{rates['tokens_per_second']:,.0f} tokens",
        ),
        ("members", ", ".join(members)),
        ("view", count(document["view"])),
        ("settings", " ".join(f"{key}={value:g}" for key, value in document["settings"].items())),
    ]


def _state(state: str, document: dict[str, Any]) -> str:
    """Return the state, and the reason why the run waits, if it does."""
    waiting = document["waiting"]
    if waiting is not None:
        at = clock(waiting["until"])
        return f"{state}: waiting until {at} for {waiting['service']}, which refuses calls ({waiting['why']})"
    return f"{state}: {document['why']}" if document["why"] else state


def _node(member: dict[str, Any]) -> str:
    return f" on node {member['node'][:8]}" if member["node"] else ""
