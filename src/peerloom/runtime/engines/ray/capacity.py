"""What members ask of the cluster, and whether it has that at present."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from peerloom.errors import EngineError
from peerloom.runtime.engines.ray.api import ray
from peerloom.runtime.settings import RunSettings

OWN_OPTIONS = {"num_cpus": "CPU", "num_gpus": "GPU"}  # which are options of their own, and resources' names


def check_capacity(settings: RunSettings) -> None:
    """Refuse what the cluster does not have; a busy one may come free.

    Raises:
        EngineError: if the roles ask for more than there is.
    """
    there: dict[str, float] = ray.cluster_resources()
    wanted: Counter[str] = Counter()
    for role in settings.roles.values():
        for resource, amount in role.resources.items():
            wanted[resource] += amount * role.replicas  # pyright: ignore[reportArgumentType] - counts fractions
    for resource, amount in wanted.items():
        has = there.get(OWN_OPTIONS.get(resource, resource), 0.0)
        if amount > has:
            raise EngineError(f"the roles ask for {resource}={amount:g} in all, but the cluster has {has:g}")


def missing_resources(requested: Mapping[str, float]) -> str:
    """Why there is no room for a process at present, or nothing if there is. Blocks for milliseconds."""
    named = {OWN_OPTIONS.get(resource, resource): amount for resource, amount in requested.items()}
    nodes: list[dict[str, Any]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    free: dict[str, float] = ray.available_resources()
    wish = ", ".join(f"{resource}={amount:g}" for resource, amount in requested.items())
    if not any(all(node.get(key, 0.0) >= amount for key, amount in named.items()) for node in nodes):
        return f"no node of the cluster has {wish}"
    if any(free.get(key, 0.0) < amount for key, amount in named.items()):
        return f"no node of the cluster has {wish} free"
    return ""
