"""Implement `peerloom ctl`: query or control an active run, from its host or another one."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from peerloom.cli.app import VERBS, handle_errors
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
        help=f"Instead of RUN, where its directory is not; the token is taken from {TOKEN_VARIABLE}.",
        show_default=False,
    ),
]
_COMMANDS = {
    "pause": "Admit nothing and begin no turn; turns under way finish.",
    "continue": "Go on after a pause.",
    "drain": "Finish the tasks in flight, admit no more; like the first Ctrl-C.",
    "cancel": "Stop at once; rows written so far are kept, and the run can be resumed.",
}


def add_to(app: typer.Typer) -> None:
    """Register the verb and its subcommands."""
    ctl = typer.Typer(help=VERBS["ctl"], no_args_is_help=True, rich_markup_mode=None)
    ctl.command("status", help="Tell how the run is going.")(handle_errors(status))
    for name, summary in _COMMANDS.items():
        ctl.command(name, help=summary)(handle_errors(_command(name)))
    ctl.command("set", help="Change a setting while the run goes on.")(handle_errors(set_value))
    app.add_typer(ctl, name="ctl")


def status(run: RunDirectory = None, address: Address = None, as_json: Json = False) -> None:
    """Print the status."""
    _check_given(run, address)
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


def _send(
    run: Path | None, address: str | None, as_json: bool, verb: str, content: dict[str, Any] | None = None
) -> None:
    _check_given(run, address)
    answer = find(run, address).request(verb, content)
    echo_json(answer) if as_json else echo(answer["told"])


def _check_given(run: Path | None, address: str | None) -> None:
    if (run is None) == (address is None):
        raise ConfigError("give either the run's directory or --address HOST:PORT")


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
                f"from a host without this directory: {TOKEN_VARIABLE}=(the token in {run / CONTROL}) "
                f"peerloom ctl status --address {address}"
            ),
            soft_wrap=True,
        )


def _lines(document: dict[str, Any], run: Path | None) -> list[tuple[str, str]]:
    state = document["state"]
    if "view" not in document:
        hint = (
            f"; `peerloom resume {run}` goes on with it"
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
        ("in flight", f"{count(document['in_flight'])}, {count(document['turns'])} turns under way"),
        ("outcomes", outcomes(document["outcomes"])),
        (
            "a second",
            f"{rates['rows_per_second']:,.1f} rows, {rates['calls_per_second']:,.1f} calls, "
            f"{rates['tokens_per_second']:,.0f} tokens",
        ),
        ("members", ", ".join(members)),
        ("view", count(document["view"])),
        ("can be set", " ".join(f"{key}={value:g}" for key, value in document["settings"].items())),
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
