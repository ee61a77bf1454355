"""Check the resources of a Ray cluster against those that members request."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from peerloom.errors import EngineError
from peerloom.runtime.engines.ray.api import ray
from peerloom.runtime.settings import RunSettings

OWN_OPTIONS = {"num_cpus": "CPU", "num_gpus": "GPU"}  # options of actors, and the names of their resources


def check_capacity(settings: RunSettings) -> None:
    """Check that the cluster has the requested resources, free or not.

    Raises:
        EngineError: if the roles request more than the cluster has.
    """
    total: dict[str, float] = ray.cluster_resources()
    wanted: Counter[str] = Counter()
    for name, role in settings.roles.items():
        for resource, amount in role.resources.items():
            wanted[resource] += amount * settings.replicas(name)  # pyright: ignore[reportArgumentType] - counts fractions
    for resource, amount in wanted.items():
        has = total.get(OWN_OPTIONS.get(resource, resource), 0.0)
        if amount > has:
            raise EngineError(f"the roles ask for {resource}={amount:g} in all, but the cluster has {has:g}")


def missing_resources(requested: Mapping[str, float]) -> str:
    """Describe why no node can run a process at present; empty if one can. Blocks for milliseconds."""
    named = {OWN_OPTIONS.get(resource, resource): amount for resource, amount in requested.items()}
    free: dict[str, float] = ray.available_resources()
    wish = ", ".join(f"{resource}={amount:g}" for resource, amount in requested.items())
    if not some_node_has(requested):
        return f"no node of the cluster has {wish}"
    if any(free.get(key, 0.0) < amount for key, amount in named.items()):
        return f"no node of the cluster has {wish} free"
    return ""


def some_node_has(requested: Mapping[str, float]) -> bool:
    """Return whether a node has all of these resources, free or not. Blocks for milliseconds."""
    named = {OWN_OPTIONS.get(resource, resource): amount for resource, amount in requested.items()}
    nodes: list[dict[str, Any]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(all(node.get(key, 0.0) >= amount for key, amount in named.items()) for node in nodes)
