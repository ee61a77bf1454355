"""Implement `peerloom models`: list and pull weights for the embedded engine, `llm=llamacpp`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from peerloom.cli.arguments import Json
from peerloom.cli.output import echo, echo_json
from peerloom.config.build import embedded_models
from peerloom.config.schema import Config
from peerloom.observe.console import open_console
from peerloom.observe.words import headed_table
from peerloom.services.llm.llamacpp.weights import Step, listing, pull


def list_models(as_json: Json = False) -> None:
    """Print every known model, and whether it is pulled."""
    if as_json:
        listed = [model._asdict() for model in listing()]
        echo_json(listed, indent=True)
        return
    table = headed_table("model", "size", "licence", "weights", "pulled")
    for model in listing():
        pulled = "yes" if model.path else "no"
        table.add_row(model.name, f"{model.size / 1e6:.0f} MB", model.licence, model.file, pulled)
    open_console().print(table)


def pull_model(
    name: Annotated[
        str, typer.Argument(help="A name that `models list` prints, or owner/repository/file.gguf.")
    ],
    as_json: Json = False,
) -> None:
    """Pull a model, and print its path."""
    path = pull_with_bar(name)
    echo_json({"name": name, "path": str(path)}) if as_json else echo(str(path))


COMMANDS = {
    "list": (list_models, "List the models that can be pulled."),
    "pull": (pull_model, "Fetch a model into your cache, if it is not there."),
}


def pull_embedded(config: Config, *, quiet: bool) -> None:
    """Pull the models of a run's own llama.cpp servers, with progress bars for those that are missing.

    Raises:
        ModelError: if one of the models cannot be pulled.
    """
    for model in embedded_models(config):
        pull_with_bar(model, quiet=quiet)


def pull_with_bar(name: str, *, quiet: bool = False) -> Path:
    """Return the file of a model; if it is missing, pull and convert it with progress bars on stderr.

    Raises:
        ModelError: if there is no such model, or it cannot be pulled.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=open_console(stderr=True), disable=quiet)
    tasks: dict[Step, TaskID] = {}

    def report(step: Step, done: int, total: int | None) -> None:
        bar.start()  # not before there is something to pull
        if step not in tasks:
            if not (quiet or bar.console.is_terminal):
                bar.console.print(f"{step} {name}")  # without a terminal the bars appear only at the end
            tasks[step] = bar.add_task(f"{step} {name}", total=None)
        bar.update(tasks[step], completed=done, total=total)

    try:
        return pull(name, report)
    finally:
        if bar.live.is_started:
            bar.stop()
