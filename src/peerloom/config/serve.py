"""Check the keys of `peerloom serve up`, by the options class of its engine."""

from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from peerloom.config.explain import explain
from peerloom.config.secrets import refuse_secrets
from peerloom.errors import ConfigError
from peerloom.lookup.nearest import did_you_mean
from peerloom.runtime.engines.ray.serve_app import RayServeFleet
from peerloom.services.fleets.engines import LlamaCppFleet, SglangFleet, VllmFleet

ServeOptions = LlamaCppFleet | VllmFleet | SglangFleet | RayServeFleet
ENGINES: dict[str, type[ServeOptions]] = {
    "llamacpp": LlamaCppFleet,
    "vllm": VllmFleet,
    "sglang": SglangFleet,
    "ray-serve": RayServeFleet,
}


def check_serve_options(given: dict[str, Any]) -> ServeOptions:
    """Return the options in a dictionary of keys.

    Raises:
        ConfigError: with a line for each invalid key or value.
    """
    refuse_secrets(given)
    engine = str(given.get("engine", ""))
    model = ENGINES.get(engine)
    if model is None:
        problem = f"engine={engine}: must be one of" if engine else "engine is needed:"
        raise ConfigError(f"{problem} {', '.join(ENGINES)}.{did_you_mean(engine, ENGINES)}")
    try:
        return TypeAdapter(model).validate_json(orjson.dumps(given))
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, model))) from error
