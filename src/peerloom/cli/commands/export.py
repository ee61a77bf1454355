"""Implement `peerloom export`: write the rows of a run to one file, at any time."""

from pathlib import Path
from typing import Annotated

import typer

from peerloom.cli.app import VERBS, handle_errors
from peerloom.cli.arguments import Json, expanded
from peerloom.cli.output import echo_json
from peerloom.observe.console import open_console
from peerloom.observe.words import count, plain
from peerloom.sink.export.writer import export


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("export", help=VERBS["export"])(handle_errors(export_rows))


def export_rows(
    run_dir: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR",
            help="The directory of a run; if it goes on, what is committed by now is exported.",
            callback=expanded,
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A .parquet or .jsonl file, written over if it is there. [default: RUN_DIR/data.parquet]",
            show_default=False,
            callback=expanded,
        ),
    ] = None,
    rejected: Annotated[
        bool,
        typer.Option(
            "--rejected",
            help="The filtered, truncated and failed rows instead of the completed ones "
            "(by default to RUN_DIR/rejected.parquet).",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the file, and print its path."""
    path, rows, texts = export(run_dir, to, rejected=rejected)
    if as_json:
        echo_json({"path": str(path), "rows": rows, "json": texts})
        return
    console = open_console()
    console.print(plain(f"{count(rows)} rows in {path}"), soft_wrap=True)
    if texts:
        console.print(plain(f"as JSON text, for the rows differ there: {', '.join(texts)}"), soft_wrap=True)
