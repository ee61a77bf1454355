"""`peerloom serve`: fleets of model servers that several runs use, kept by a process of their own."""

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

from peerloom.cli.app import VERBS, guarded
from peerloom.cli.arguments import Json
from peerloom.cli.commands.models import pull_with_bar
from peerloom.cli.output import echo, echo_json
from peerloom.cli.serve.adapters import Name, load, unload
from peerloom.cli.serve.keeper import Order, keep
from peerloom.config.serve import LlamaCppServers, RayServe, Served, read_served
from peerloom.errors import ConfigError
from peerloom.observe.console import open_console
from peerloom.observe.words import duration
from peerloom.services.fleets.adapters import adapters_of
from peerloom.services.fleets.control import end, launch
from peerloom.services.fleets.directory import Entry, directory, names, path_of, read
from peerloom.services.fleets.service import KEY_VARIABLE
from peerloom.terminal.printable import printable

_LINE_SECONDS = 10.0
_KEEPER = (sys.executable, "-m", "peerloom", "serve", "keep")


def add_to(app: typer.Typer) -> None:
    """Register the verb and those below it."""
    serve = typer.Typer(help=VERBS["serve"], no_args_is_help=True, rich_markup_mode=None)
    serve.command("up", help="Start a fleet, and wait until it is well.")(guarded(up))
    serve.command("status", help="Tell how the fleets are.")(guarded(status))
    serve.command("down", help="End a fleet.")(guarded(down))
    serve.command("load", help="Load a LoRA adapter into a vLLM fleet.")(guarded(load))
    serve.command("unload", help="Remove a LoRA adapter from a fleet.")(guarded(unload))
    serve.command("keep", hidden=True)(guarded(keep))
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
    served = _settled(read_served(options or []))
    variable = _key_variable(api_key_env, served)
    order = Order(
        path=str(path.absolute()), keys=served.model_dump(mode="json"), ray=ray, key_variable=variable
    )
    with _progress_shown() as report:
        entry = launch(path, _KEEPER, msgspec.json.encode(order), timeout, report)
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
    """Print how fleets are."""
    paths = [path_of(each) for each in ([name] if name is not None else names())]
    entries = [(path, read(path)) for path in paths]
    if as_json:
        documents = [_document(path, entry) for path, entry in entries]
        told: Any = documents[0] if name is not None else documents
        echo_json(told, indent=True)
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
    by_itself = end(path)
    if entry.engine == "ray-serve" and not by_itself:  # Ray keeps it running without its keeper
        from peerloom.runtime.engines.ray.serving import delete  # noqa: PLC0415 - Ray is slow to import

        delete(entry.ray, path.stem)
    echo(f"fleet {path.stem} is down" + ("" if by_itself else "; its keeper was gone already"))


@contextmanager
def _progress_shown() -> Generator[Callable[[str], None]]:
    """Show how far it is on standard error: in place on a terminal, else a line now and then."""
    console = open_console(stderr=True)
    if console.is_terminal:
        with console.status("starting") as line:
            yield lambda text: line.update(Text(printable(text)[: console.width - 4]))
        return
    told, told_at = "", time.monotonic()

    def report(text: str) -> None:
        nonlocal told, told_at
        if text != told and time.monotonic() - told_at > _LINE_SECONDS:
            told, told_at = text, time.monotonic()
            echo(text, stderr=True)

    yield report


def _settled(served: Served) -> Served:
    """With the weights pulled, and a path that does not hang on this directory."""
    if not isinstance(served, LlamaCppServers):
        return served
    weights = pull_with_bar(served.model)
    known = Path(served.model).suffix != ".gguf" and "/" not in served.model
    return served if known else served.model_copy(update={"model": str(weights.absolute())})


def _key_variable(asked: str | None, served: Served) -> str | None:
    """The variable with the key, if there is to be one."""
    if isinstance(served, RayServe):
        if asked is not None:
            raise ConfigError("engine=ray-serve takes no key: Ray Serve's proxy asks for none")
        return None
    if asked is not None and not os.environ.get(asked, "").strip():
        raise ConfigError(f"--api-key-env {asked}: that environment variable is not set: export it first")
    return asked or (KEY_VARIABLE if os.environ.get(KEY_VARIABLE, "").strip() else None)


def _document(path: Path, entry: Entry) -> dict[str, Any]:
    said: dict[str, Any] = msgspec.to_builtins(entry)
    said["endpoints"] = [msgspec.structs.asdict(endpoint) for endpoint in entry.endpoints]
    said["adapters"] = adapters_of(path)
    return {**said, "name": path.stem, "state": _state(entry), "file": str(path), "keeper_is": entry.life}


def _state(entry: Entry) -> str:
    """Of the whole: as the keeper says, if it is there to say so."""
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
