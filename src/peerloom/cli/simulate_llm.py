"""`peerloom simulate-llm`: the simulated model as an OpenAI-compatible server."""

from pathlib import Path
from typing import Annotated

import typer

from peerloom.cli.app import VERBS, guarded
from peerloom.config import check, compose
from peerloom.config.llm import Simulated
from peerloom.services.llm.laws import Laws
from peerloom.services.llm.server import ServerConfig, run_server


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("simulate-llm", help=VERBS["simulate-llm"])(guarded(simulate_llm))


def simulate_llm(
    laws: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Keys of llm=simulated, e.g. tokens_per_second=50 rate_429=0.1.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    latency: Annotated[float, typer.Option(help="Seconds a call takes.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Another seed is another model.")] = 0,
    log: Annotated[
        Path | None, typer.Option(help="Gets a JSON line for each served call.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option(help="The model's name.")] = "simulated",
) -> None:
    """Serve until interrupted."""
    keys = [f"llm.{law.removeprefix('llm.')}" for law in laws or ()]
    config = check(compose(None, ["llm=simulated", f"llm.latency={latency}", f"seed={seed}", *keys]))
    assert isinstance(config.llm, Simulated)
    obeyed = Laws(**config.llm.model_dump(exclude={"kind", "timeout", "max_retries"}), seed=config.seed)
    run_server(ServerConfig(laws=obeyed, host=host, port=port, model=model, log=log))
