"""Implement `peerloom export`: write the rows of a run to one file, at any time."""

from pathlib import Path
from typing import Annotated

import typer

from peerloom.cli.arguments import Json, expanded
from peerloom.cli.output import echo_json
from peerloom.errors import ConfigError
from peerloom.observe.console import open_console
from peerloom.observe.words import count, plain
from peerloom.sink.export import writer

RunDir = Annotated[
    Path,
    typer.Argument(
        metavar="RUN_DIR",
        help="The directory of a run, which may be active.",
        callback=expanded,
    ),
]
FormatOptions = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[OPTION=VALUE]...",
        help="Options of the format, e.g. score=result.score min_gap=1.",
        show_default=False,
    ),
]
Target = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The file. [default: RUN_DIR/data.parquet, which is replaced]",
        show_default=False,
        callback=expanded,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="parquet, jsonl, sft, dpo, kto, grpo, openai, sharegpt, atif, or another exporter's name or "
        "import path. [default: by FILE's suffix]",
        show_default=False,
    ),
]
Rejected = Annotated[
    bool,
    typer.Option(
        "--rejected",
        help="The filtered, truncated and failed rows instead of the completed ones "
        "(by default to RUN_DIR/rejected.parquet).",
    ),
]
Assistant = Annotated[
    str | None,
    typer.Option(
        metavar="ROLES",
        help="The role that a model is to learn, in training formats; several with commas. "
        "[default: the assistant of the rows' messages]",
        show_default=False,
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="EXPRESSION",
        help="""Only rows for which it is true, e.g. 'result.score >= 4 and input.level != "easy"'.""",
        show_default=False,
    ),
]
TestFraction = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Write FILE-train and FILE-test, the second with about this share of the input rows.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")]


def export(  # noqa: PLR0913, PLR0917 - the options of the command
    run_dir: RunDir,
    options: FormatOptions = None,
    to: Target = None,
    format: Format = None,
    rejected: Rejected = False,
    assistant: Assistant = None,
    where: Where = None,
    test_fraction: TestFraction = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the file, and print its path."""
    given = _parse(options or []) | ({"assistant": assistant} if assistant is not None else {})
    select = writer.Selection(rejected, where, test_fraction, force)
    written = writer.export(run_dir, to, format=format, options=given, select=select)
    if as_json:
        for path, rows, texts, skipped in written:
            echo_json({"path": str(path), "rows": rows, "json": texts, "skipped": skipped})
        return
    console = open_console()
    for path, rows, texts, skipped in written:
        console.print(plain(f"{count(rows)} rows in {path}"), soft_wrap=True)
        for reason, number in skipped.items():
            console.print(plain(f"skipped {count(number)}: {reason}"), soft_wrap=True)
        if texts:
            console.print(
                plain(f"as JSON text, because their types differ between rows: {', '.join(texts)}"),
                soft_wrap=True,
            )


def _parse(options: list[str]) -> dict[str, str]:
    for each in options:
        if "=" not in each:
            raise ConfigError(f"{each} is no option of the format: write NAME=VALUE")
    return dict(each.split("=", 1) for each in options)
