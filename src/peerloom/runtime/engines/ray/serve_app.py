"""Configure an application of Ray Serve LLM, and read its status."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FAILED = "DEPLOY_FAILED"
RUNNING = "RUNNING"

_PREFIX_ROUTER = "ray.serve.llm.request_router.PrefixCacheAffinityRouter"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LAST_LINES = 8
_MAX_LINE = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeApp:
    """One model, served as an application.

    Args:
        app: the name of the application, which is also the first part of its URL's path.
        model: the name of the model on Hugging Face, or a path that exists on every node.
        name: the name of the model in calls.
        min_replicas: the minimum number of replicas.
        max_replicas: the maximum number of replicas.
        target_ongoing_requests: the calls under way per replica; default Ray's own.
        tensor_parallel_size: the devices of one replica, GPUs by default.
        max_model_len: the maximum tokens of prompt and reply together; default the model's own.
        accelerator_type: the kind of GPU, by Ray's name.
        placement_group_config: the resources of one replica; default a GPU for each device.
        placement_seconds: the time without a suitable node after which the deployment fails.
        prefix_routing: whether a call goes to the replica that has cached the longest prefix of its prompt.
        engine_kwargs: further arguments of the engine.
        port: the port of Serve on every node.
    """

    app: str
    model: str
    name: str
    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float | None = None
    tensor_parallel_size: int = 1
    max_model_len: int | None = None
    accelerator_type: str | None = None
    placement_group_config: Mapping[str, Any] | None = None
    placement_seconds: float = 300.0
    prefix_routing: bool = True
    engine_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    port: int = 8000

    def config(self) -> dict[str, Any]:
        """Return the arguments of `LLMConfig`."""
        scaling: dict[str, Any] = {"min_replicas": self.min_replicas, "max_replicas": self.max_replicas}
        if self.target_ongoing_requests is not None:
            scaling["target_ongoing_requests"] = self.target_ongoing_requests
        deployment: dict[str, Any] = {"autoscaling_config": scaling}
        if self.prefix_routing:
            deployment["request_router_config"] = {"request_router_class": _PREFIX_ROUTER}
        engine = {"tensor_parallel_size": self.tensor_parallel_size, **self.engine_kwargs}
        if self.max_model_len is not None:
            engine["max_model_len"] = self.max_model_len
        config: dict[str, Any] = {
            "model_loading_config": {"model_id": self.name, "model_source": self.model},
            "deployment_config": deployment,
            "engine_kwargs": engine,
        }
        if self.accelerator_type is not None:
            config["accelerator_type"] = self.accelerator_type
        if self.placement_group_config is not None:
            config["placement_group_config"] = dict(self.placement_group_config)
        return config

    def bundles(self) -> list[dict[str, float]]:
        """Return the resource bundles of one replica, each of which must fit on one node."""
        asked = self.placement_group_config or {"bundle_per_worker": {"GPU": 1}}
        given: Sequence[Mapping[str, float]] | None = asked.get("bundles")
        if given is None:
            engine = {"tensor_parallel_size": self.tensor_parallel_size, **self.engine_kwargs}
            devices = int(engine["tensor_parallel_size"]) * int(engine.get("pipeline_parallel_size", 1))
            given = [asked["bundle_per_worker"]] * devices
        return [dict(bundle) for bundle in given]


def too_large(bundles: Sequence[Mapping[str, float]], nodes: Sequence[Mapping[str, float]]) -> str:
    """Describe why the nodes could not hold the bundles even if they were idle; empty if they might.

    Args:
        bundles: the resource bundles of a replica.
        nodes: the total resources of each node.
    """
    for bundle in bundles:
        if not any(all(node.get(key, 0.0) >= amount for key, amount in bundle.items()) for node in nodes):
            return f"no node of the cluster has {_listed(bundle)}"
    total = {key: sum(bundle.get(key, 0.0) for bundle in bundles) for bundle in bundles for key in bundle}
    if any(sum(node.get(key, 0.0) for node in nodes) < amount for key, amount in total.items()):
        return f"all nodes of the cluster together have not {_listed(total)}"
    return ""


def text(status: Any) -> str:
    """Return the text of a status of Serve, which may be an enumeration."""
    return str(getattr(status, "value", status))


def messages(overview: Any) -> str:
    """Return the messages of Serve about an application and its unhealthy deployments."""
    return "\n".join(dict.fromkeys(filter(None, _messages(overview))))


def _messages(overview: Any) -> Iterator[str]:
    yield _ends(str(overview.message))
    for name, deployment in overview.deployments.items():
        if text(deployment.status) != "HEALTHY" and deployment.message:
            yield f"{name}: {_ends(str(deployment.message))}"


def _ends(message: str) -> str:
    """Return the first line of a message, which names the failure, and the last ones, with its reason."""
    all_lines = [line.rstrip()[:_MAX_LINE] for line in _COLOURS.sub("", message).splitlines()]
    lines = [line for line in all_lines if line.strip(" ^~")]  # without lines that only underline
    if len(lines) > _LAST_LINES + 1:
        lines = [lines[0], *lines[-_LAST_LINES:]]
    return "\n  ".join(lines)


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{key}={amount:g}" for key, amount in resources.items())
