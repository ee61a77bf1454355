"""Implement `peerloom new`: create a recipe as a package that runs immediately.

The files are copies of those in `scaffold/`; in files that end in `.txt`, `$name` is replaced.
"""

import keyword
import os
import shlex
import shutil
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from peerloom.cli.arguments import Json, expanded
from peerloom.cli.output import echo, echo_json
from peerloom.errors import ConfigError

_SCAFFOLD = Path(__file__).parent / "scaffold"


def new(
    name: Annotated[
        str, typer.Argument(help="The recipe's name, which Python can import: letters, digits, _.")
    ],
    directory: Annotated[
        Path,
        typer.Option("--dir", help="Where to make the directory NAME.", callback=expanded),
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Create the directory, and print how to run the recipe in it."""
    target = directory / name
    _check(name, target)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(name, target)
    except OSError as error:
        raise ConfigError(f"{error.filename or target} cannot be created: {error.strerror}") from error
    recipe = f"{name}:RECIPE"
    if as_json:
        echo_json({"path": str(target), "recipe": recipe})
        return
    echo(f"{target} was created: start with its recipe.py and prompts")
    if directory != Path():
        echo(f"cd {shlex.quote(str(directory))}")
    echo(f"peerloom preview {recipe} llm=simulated   # without a model")
    echo(f"peerloom preview {recipe}                 # with a small one on this machine")
    echo(f"peerloom run {recipe} source.path=FILE.jsonl")
    echo(f"pytest {name}")


def _check(name: str, target: Path) -> None:
    if not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name) or name.startswith("_"):
        raise ConfigError(
            f"{name!r} is not a valid recipe name: it becomes a Python package, so it must begin with a "
            "letter and consist of letters, digits and _"
        )
    if target.exists():
        raise ConfigError(f"{target} exists already: choose another name, or another --dir")
    if _is_installed(name):
        raise ConfigError(f"{name!r} is an installed Python package, which would hide yours: choose another")


def _is_installed(name: str) -> bool:
    """Return whether Python finds a package of that name outside the current directory."""
    elsewhere = [path for path in sys.path if path not in ("", os.getcwd())]
    return name in sys.stdlib_module_names or PathFinder.find_spec(name, elsewhere) is not None


def _write(name: str, target: Path) -> None:
    """Create the directory atomically."""
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target.parent) as scratch:
        package = Path(scratch) / name
        for source in sorted(path for path in _SCAFFOLD.rglob("*") if path.is_file()):
            file = package / source.relative_to(_SCAFFOLD)
            file.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix != ".txt":
                shutil.copyfile(source, file)
                continue
            text = Template(source.read_text("utf-8"))
            file.with_suffix("").write_text(
                text.substitute(name=name, title=name.replace("_", " ").capitalize()), "utf-8"
            )
        package.rename(target)
