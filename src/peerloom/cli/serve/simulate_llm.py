"""Implement `peerloom simulate-llm`: serve the simulated model over OpenAI's protocol.

Its options are generated from the keys of `llm=simulated`.
"""

from collections.abc import Iterator
from dataclasses import fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from peerloom.config import check, compose
from peerloom.config.sections.base import field_docs, fields_of
from peerloom.config.sections.llm import Simulated
from peerloom.services.llm.simulated.behavior import SimulatedBehavior, SimulatorOptions
from peerloom.services.llm.simulated.server.app import ServerConfig, run_server


def simulate_llm(
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    model: Annotated[str, typer.Option(help="The model's name.")] = "simulated",
    seed: Annotated[int, typer.Option(help="Another seed is another model.")] = 0,
    log: Annotated[
        Path | None, typer.Option(help="Gets a JSON line for each served call.", show_default=False)
    ] = None,
    strict_model: Annotated[
        bool, typer.Option("--strict-model", help="Refuse calls of another model with 404.")
    ] = False,
    admin: Annotated[bool, typer.Option("--admin", help="Let clients make it fail: POST /admin/...")] = False,
    **options: Any,
) -> None:
    """Serve until interrupted."""
    values = {"llm": "simulated", "seed": seed, **{f"llm.{name}": value for name, value in options.items()}}
    config = check(compose(None, values=values))
    assert isinstance(config.llm, Simulated)
    behavior = SimulatedBehavior(
        **{name: getattr(config.llm, name) for name in fields_of(SimulatorOptions)}, seed=seed
    )
    run_server(
        ServerConfig(
            behavior=behavior,
            host=host,
            port=port,
            model=model,
            log=log,
            admin=admin,
            strict_model=strict_model,
        )
    )


def _simulator_parameters() -> Iterator[Parameter]:
    helps, known = field_docs(SimulatorOptions), fields_of(SimulatorOptions)
    for field in fields(SimulatorOptions):
        kind = _kind(known[field.name].annotation)
        option = typer.Option(help=helps[field.name], show_default=field.default is not None)
        hint = Annotated[kind | None if field.default is None else kind, option]
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hint)


def _kind(annotation: Any) -> Any:
    """Return the type of a command line option for a key of that type."""
    if get_origin(annotation) is Literal:
        return annotation
    kinds = (annotation, *get_args(annotation))
    return int if any(int in (each, *get_args(each)) for each in kinds) else float


_own = [each for each in signature(simulate_llm).parameters.values() if each.kind != Parameter.VAR_KEYWORD]
_parameters = [*_own, *_simulator_parameters()]
simulate_llm.__signature__ = Signature(_parameters)  # pyright: ignore[reportFunctionMemberAccess] - for Typer
simulate_llm.__annotations__ = {each.name: each.annotation for each in _parameters}
