"""A service at known addresses, and a client of it, without the checks that a run makes first."""

import asyncio
from typing import Any

from peerloom.services.llm.dialects.openai import OpenAIDialect
from peerloom.services.llm.endpoint import Endpoint
from peerloom.services.llm.fleet import FleetClient, FleetSpec
from peerloom.services.llm.http import HttpDial
from peerloom.services.llm.limits.desk import Desk
from peerloom.services.secret import Secret

_DIALECT = ("structured", "limit_field", "extra_body", "shape")
_ENDPOINT = ("timeout", "connect_timeout")


def fleet(*urls: str, model: str = "m", api_key: str | None = None, **fields: Any) -> FleetSpec:
    """OpenAI-compatible replicas; `fields` are those of `OpenAIDialect`, `Endpoint` and `FleetSpec`."""
    secret = Secret(api_key) if api_key is not None else None
    there = {name: fields.pop(name) for name in _ENDPOINT if name in fields}
    endpoint = Endpoint(base_url=urls[0], api_key=secret, **there)
    dialect = OpenAIDialect(**{name: fields.pop(name) for name in _DIALECT if name in fields})
    return FleetSpec(model=model, replicas=urls, dial=HttpDial(endpoint, dialect, model), **fields)


def client(spec: FleetSpec, sleep: Any = asyncio.sleep) -> FleetClient:
    """A client that waits between tries with `sleep`."""
    return FleetClient(spec, Desk(), sleep=sleep)
