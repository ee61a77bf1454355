"""Implement `peerloom serve load` and `unload`: load and remove the LoRA adapters of a fleet."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from peerloom.cli.output import echo
from peerloom.errors import ConfigError, ServiceError
from peerloom.services.fleets.adapters import load_adapter, unload_adapter
from peerloom.services.fleets.directory import path_of, read
from peerloom.services.fleets.service import KEY_VARIABLE
from peerloom.services.secret import Secret

Name = Annotated[str, typer.Argument(metavar="NAME", help="The fleet's name.", show_default=False)]


def load(
    name: Name,
    adapter: Annotated[
        str,
        typer.Argument(
            metavar="ADAPTER=PATH",
            help="What calls name it (llm.model=ADAPTER), and the directory of its weights.",
            show_default=False,
        ),
    ],
    timeout: Annotated[
        float, typer.Option(help="Seconds that servers which are starting are waited for.")
    ] = 600.0,
) -> None:
    """Load an adapter."""
    adapter_name, equals, weights = adapter.partition("=")
    if not (equals and weights):
        raise ConfigError(f"{adapter}: must be ADAPTER=PATH, as in tuned=adapters/step-100")
    if Path(weights).expanduser().exists():
        weights = str(Path(weights).expanduser().absolute())
    fleet = path_of(name)
    asyncio.run(_load(fleet, adapter_name, weights, timeout))
    servers = len(read(fleet).urls)
    echo(
        f"{adapter_name} is loaded into {servers} servers: "
        f"llm=fleet llm.name={name} llm.model={adapter_name} uses it"
    )


async def _load(fleet: Path, adapter: str, weights: str, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await load_adapter(fleet, adapter, weights, Secret.from_env(KEY_VARIABLE))
    except TimeoutError as error:
        raise ServiceError(
            f"not all servers of fleet {fleet.stem} were up within {seconds:g} s (--timeout); "
            f"the others load adapter {adapter} when they start"
        ) from error


def unload(
    name: Name,
    adapter: Annotated[str, typer.Argument(help="The adapter's name.", show_default=False)],
) -> None:
    """Remove an adapter."""
    asyncio.run(unload_adapter(path_of(name), adapter, Secret.from_env(KEY_VARIABLE)))
    echo(f"{adapter} is removed from fleet {name}")
