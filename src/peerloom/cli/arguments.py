"""Define the arguments that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer


def expanded(path: Path | None) -> Path | None:
    """Return a path with `~` expanded, which the shell does not do in `--run-dir=~/x`."""
    return None if path is None else path.expanduser()


RecipeName = Annotated[
    str,
    typer.Argument(help="A recipe's name, an import path (package.module:name), or the path of a run.yaml."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Configuration, e.g. source.path=q.jsonl limit=20 llm=openai llm.model=NAME.",
        show_default=False,
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(
        help="Your own groups: llm/NAME.yaml is chosen by llm=NAME, recipe/NAME.yaml taken with that recipe.",
        show_default=False,
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Do the failed rows of an earlier session again.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout; all else is on stderr.")]
