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
        help="A folder of your own groups: llm/NAME.yaml for llm=NAME, recipe/NAME.yaml for that recipe.",
        show_default=False,
    ),
]
KeptRunDir = Annotated[
    Path | None,
    typer.Option(
        help="Keep the run there. [default: it is removed, if no row failed]",
        show_default=False,
        callback=expanded,
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Process the failed rows of earlier sessions again.")
]
AcceptProgram = Annotated[
    bool,
    typer.Option(
        "--accept-program", help="Continue although agents, prompts, or functions differ from those before."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout, and messages on stderr.")]
