"""Implement `peerloom serve`: start, watch and end fleets of model servers that several runs share.

Each fleet is supervised by a background process, `peerloom serve supervise`.
"""

import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text

from peerloom.cli.arguments import Json
from peerloom.cli.commands.models import pull_with_bar
from peerloom.cli.output import echo, echo_json
from peerloom.cli.serve.adapters import Name, load, unload
from peerloom.cli.serve.supervise import Order, supervise
from peerloom.config.composition.overrides import keys
from peerloom.config.serve import ServeOptions, check_serve_options
from peerloom.errors import ConfigError
from peerloom.observe.console import open_console
from peerloom.observe.words import duration, headed_table
from peerloom.runtime.engines.ray.serve_app import RayServeFleet
from peerloom.services.fleets.adapters import adapters_of
from peerloom.services.fleets.control import end, launch
from peerloom.services.fleets.directory import Entry, directory, names, path_of, read
from peerloom.services.fleets.engines import LlamaCppFleet
from peerloom.services.fleets.service import KEY_VARIABLE
from peerloom.terminal.printable import printable

_LINE_SECONDS = 10.0
_SUPERVISE_COMMAND = (sys.executable, "-m", "peerloom", "serve", "supervise")


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
    timeout: Annotated[float, typer.Option(help="Seconds it may take until the fleet is healthy.")] = 3600.0,
    as_json: Json = False,
) -> None:
    """Start a fleet."""
    path = path_of(name)
    resolved = _resolve(check_serve_options(keys(options or [])))
    variable = _key_variable(api_key_env, resolved)
    order = Order(path=str(path.absolute()), keys=asdict(resolved), ray=ray, key_variable=variable)
    with _show_progress() as report:
        entry = launch(path, _SUPERVISE_COMMAND, msgspec.json.encode(order), timeout, report)
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
    ended_by_supervisor = end(path)
    if entry.engine == "ray-serve" and not ended_by_supervisor:  # on Ray it runs on without its supervisor
        from peerloom.runtime.engines.ray.serving import delete  # noqa: PLC0415 - Ray is slow to import

        delete(entry.ray, path.stem)
    echo(f"fleet {path.stem} is down" + ("" if ended_by_supervisor else "; its supervisor was gone already"))


COMMANDS = {
    "up": (up, "Start a fleet, and wait until it is healthy."),
    "status": (status, "Show the state of the fleets."),
    "down": (down, "End a fleet."),
    "load": (load, "Load a LoRA adapter into a vLLM fleet."),
    "unload": (unload, "Remove a LoRA adapter from a fleet."),
    "supervise": (supervise, ""),
}


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
    if not isinstance(options, LlamaCppFleet):
        return options
    weights = pull_with_bar(options.model)
    is_name = Path(options.model).suffix != ".gguf" and "/" not in options.model
    return options if is_name else replace(options, model=str(weights.absolute()))


def _key_variable(given: str | None, options: ServeOptions) -> str | None:
    """Return the environment variable with the fleet's key, or None if it has no key."""
    if isinstance(options, RayServeFleet):
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
    return {
        **document,
        "name": path.stem,
        "state": _state(entry),
        "file": str(path),
        "supervisor_is": entry.life,
    }


def _state(entry: Entry) -> str:
    """Return the state that a supervisor has written, or `dead` or `silent` if the supervisor is."""
    if entry.life == "dead" and entry.state != "failed":
        return "dead"
    return "silent" if entry.life == "silent" else entry.state


def _why(path: Path, entry: Entry) -> str:
    if _state(entry) == "dead":
        return (
            "its supervisor is gone, and its servers with it; "
            f"`peerloom serve down {path.stem}` removes it from the directory"
        )
    if entry.life == "silent":
        host = entry.supervisor.host if entry.supervisor is not None else "?"
        return f"its supervisor on {host} has not been heard of for {duration(time.time() - entry.beat)}"
    return entry.detail


def _print_all(entries: list[tuple[Path, Entry]]) -> None:
    table = headed_table("fleet", "model", "engine", "state", "endpoints up")
    for path, entry in entries:
        up = f"{0 if _state(entry) == 'dead' else len(entry.urls)} of {len(entry.endpoints)}"
        table.add_row(path.stem, entry.model, entry.engine or "-", _state(entry), up)
    open_console().print(table)


def _print_one(path: Path, entry: Entry) -> None:
    lines = [("fleet", path.stem), ("model", entry.model), ("engine", entry.engine or "external")]
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
