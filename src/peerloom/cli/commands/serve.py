"""Implement `peerloom serve`: start, watch and end fleets of model servers that several runs share.

Each fleet is supervised by a background process, `peerloom serve keep`.
"""

import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from peerloom.cli.app import VERBS, handle_errors
from peerloom.cli.arguments import Json
from peerloom.cli.commands.models import pull_with_bar
from peerloom.cli.output import echo, echo_json
from peerloom.cli.serve.adapters import Name, load, unload
from peerloom.cli.serve.keeper import Order, keep
from peerloom.config.serve import LlamaCppServers, RayServe, ServeOptions, parse_serve_options
from peerloom.errors import ConfigError
from peerloom.observe.console import open_console
from peerloom.observe.words import duration
from peerloom.services.fleets.adapters import adapters_of
from peerloom.services.fleets.control import end, launch
from peerloom.services.fleets.directory import Entry, directory, names, path_of, read
from peerloom.services.fleets.service import KEY_VARIABLE
from peerloom.terminal.printable import printable

_LINE_SECONDS = 10.0
_KEEP_COMMAND = (sys.executable, "-m", "peerloom", "serve", "keep")


def add_to(app: typer.Typer) -> None:
    """Register the verb and its subcommands."""
    serve = typer.Typer(help=VERBS["serve"], no_args_is_help=True, rich_markup_mode=None)
    serve.command("up", help="Start a fleet, and wait until it is well.")(handle_errors(up))
    serve.command("status", help="Tell how the fleets are.")(handle_errors(status))
    serve.command("down", help="End a fleet.")(handle_errors(down))
    serve.command("load", help="Load a LoRA adapter into a vLLM fleet.")(handle_errors(load))
    serve.command("unload", help="Remove a LoRA adapter from a fleet.")(handle_errors(unload))
    serve.command("keep", hidden=True)(handle_errors(keep))
    app.add_typer(serve, name="serve")


def up(
    name: Name,
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="engine=ENGINE [KEY=VALUE]...",
            help="engine=llamacpp, vllm, sglang or ray-serve, and its keys, e.g. "
            "engine=vllm model=Qwen/Qwen3-8B replicas=2 max_model_len=8192.",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Place the servers on this Ray cluster.", show_default=False),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE",
            help="The environment variable with the key that calls have to show; "
            f"by default {KEY_VARIABLE}, if that is set.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds it may take until the fleet is well.")] = 3600.0,
    as_json: Json = False,
) -> None:
    """Start a fleet."""
    path = path_of(name)
    resolved = _resolve(parse_serve_options(options or []))
    variable = _key_variable(api_key_env, resolved)
    order = Order(
        path=str(path.absolute()), keys=resolved.model_dump(mode="json"), ray=ray, key_variable=variable
    )
    with _show_progress() as report:
        entry = launch(path, _KEEP_COMMAND, msgspec.json.encode(order), timeout, report)
    if as_json:
        echo_json(_document(path, entry), indent=True)
        return
    echo(f"fleet {path.stem}: {entry.model} at {', '.join(entry.urls)}")
    echo(f"llm=fleet llm.name={name} uses it; logs are in {entry.log}")


def status(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="By default all.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the state of one fleet, or of all."""
    paths = [path_of(each) for each in ([name] if name is not None else names())]
    entries = [(path, read(path)) for path in paths]
    if as_json:
        documents = [_document(path, entry) for path, entry in entries]
        output: Any = documents[0] if name is not None else documents
        echo_json(output, indent=True)
        return
    if not entries:
        echo(f"there are no fleets in {directory()}")
    elif name is None:
        _print_all(entries)
    else:
        _print_one(*entries[0])


def down(name: Name) -> None:
    """End a fleet."""
    path = path_of(name)
    entry = read(path)
    ended_by_keeper = end(path)
    if entry.engine == "ray-serve" and not ended_by_keeper:  # on Ray it runs on without its keeper
        from peerloom.runtime.engines.ray.serving import delete  # noqa: PLC0415 - Ray is slow to import

        delete(entry.ray, path.stem)
    echo(f"fleet {path.stem} is down" + ("" if ended_by_keeper else "; its keeper was gone already"))


@contextmanager
def _show_progress() -> Generator[Callable[[str], None]]:
    """Show progress on standard error: a status line on a terminal, else a line every few seconds."""
    console = open_console(stderr=True)
    if console.is_terminal:
        with console.status("starting") as line:
            yield lambda text: line.update(Text(printable(text)[: console.width - 4]))
        return
    printed, printed_at = "", time.monotonic()

    def report(text: str) -> None:
        nonlocal printed, printed_at
        if text != printed and time.monotonic() - printed_at > _LINE_SECONDS:
            printed, printed_at = text, time.monotonic()
            echo(text, stderr=True)

    yield report


def _resolve(options: ServeOptions) -> ServeOptions:
    """Pull the weights of llama.cpp servers, and return the options with an absolute path to them."""
    if not isinstance(options, LlamaCppServers):
        return options
    weights = pull_with_bar(options.model)
    is_name = Path(options.model).suffix != ".gguf" and "/" not in options.model
    return options if is_name else options.model_copy(update={"model": str(weights.absolute())})


def _key_variable(given: str | None, options: ServeOptions) -> str | None:
    """Return the environment variable with the fleet's key, or None if it has no key."""
    if isinstance(options, RayServe):
        if given is not None:
            raise ConfigError("engine=ray-serve takes no key: Ray Serve's proxy asks for none")
        return None
    if given is not None and not os.environ.get(given, "").strip():
        raise ConfigError(f"--api-key-env {given}: that environment variable is not set: export it first")
    return given or (KEY_VARIABLE if os.environ.get(KEY_VARIABLE, "").strip() else None)


def _document(path: Path, entry: Entry) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(entry)
    document["endpoints"] = [msgspec.structs.asdict(endpoint) for endpoint in entry.endpoints]
    document["adapters"] = adapters_of(path)
    return {**document, "name": path.stem, "state": _state(entry), "file": str(path), "keeper_is": entry.life}


def _state(entry: Entry) -> str:
    """Return the state of a fleet: the one its keeper has written, unless the keeper is dead or silent."""
    if entry.life == "dead" and entry.state != "failed":
        return "dead"
    return "silent" if entry.life == "silent" else entry.state


def _why(path: Path, entry: Entry) -> str:
    if _state(entry) == "dead":
        return (
            f"its keeper is gone, and its servers with it; `peerloom serve down {path.stem}` clears it away"
        )
    if entry.life == "silent":
        host = entry.keeper.host if entry.keeper is not None else "?"
        return f"its keeper on {host} has not been heard of for {duration(time.time() - entry.beat)}"
    return entry.detail


def _print_all(entries: list[tuple[Path, Entry]]) -> None:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("fleet", "model", "engine", "state", "endpoints up"):
        table.add_column(column)
    for path, entry in entries:
        up = f"{0 if _state(entry) == 'dead' else len(entry.urls)} of {len(entry.endpoints)}"
        table.add_row(path.stem, entry.model, entry.engine or "-", _state(entry), up)
    open_console().print(table)


def _print_one(path: Path, entry: Entry) -> None:
    lines = [("fleet", path.stem), ("model", entry.model), ("engine", entry.engine or "not ours")]
    since = f", for {duration(time.time() - entry.since)}" if entry.since and entry.life == "alive" else ""
    lines.append(("state", _state(entry) + since))
    if why := _why(path, entry):
        lines.append(("why", why))
    for endpoint in entry.endpoints:
        more = [
            f"process {endpoint.pid}" if endpoint.pid else "",
            f"on {endpoint.place}" * bool(endpoint.place),
        ]
        more.append(f"restarted {endpoint.restarts} times" if endpoint.restarts else "")
        lines.append(("endpoint", ", ".join(filter(None, (f"{endpoint.url} {endpoint.state}", *more)))))
    lines += [("adapter", f"{adapter} {weights}") for adapter, weights in adapters_of(path).items()]
    if entry.log:
        lines.append(("logs", entry.log))
    for name, text in lines:
        echo(f"{name:<10}{text}")
