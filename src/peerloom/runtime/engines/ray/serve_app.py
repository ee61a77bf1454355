"""Define the options of an application of Ray Serve LLM, and read its status."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from peerloom.errors import ConfigError
from peerloom.options import Count, NotNegative, Options, Positive, Whole
from peerloom.services.fleets.engines import GpuModel

FAILED = "DEPLOY_FAILED"
RUNNING = "RUNNING"

_PREFIX_ROUTER = "ray.serve.llm.request_router.PrefixCacheAffinityRouter"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LAST_LINES = 8
_MAX_LINE = 300


@dataclass(frozen=True, kw_only=True)
class PlacementGroup(Options):
    """The cluster resources of one replica, as in `LLMConfig`: `bundles` or `bundle_per_worker`."""

    section: ClassVar[str] = "placement_group_config"

    bundles: list[dict[str, NotNegative]] | None = None
    """Resources of each bundle, which must be on one node: `[{CPU: 2}]`."""
    bundle_per_worker: dict[str, NotNegative] | None = None
    """Resources for each of the `tensor_parallel_size` devices: `{CPU: 1, GPU: 1}`."""
    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] | None = None
    """How the bundles are spread over nodes; by default PACK."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.bundles is None) == (self.bundle_per_worker is None):
            raise ConfigError(
                "placement_group_config: must have one of bundles and bundle_per_worker, as in "
                "'placement_group_config={bundles: [{CPU: 1}]}'."
            )


@dataclass(frozen=True, kw_only=True)
class RayServeFleet(GpuModel):
    """An application of Ray Serve LLM: vLLM, scaled and routed by Ray."""

    engine: Literal["ray-serve"] = "ray-serve"
    min_replicas: Whole = 1
    """The minimum number of replicas."""
    max_replicas: Count = 1
    """The maximum number of replicas."""
    target_ongoing_requests: Positive | None = None
    """The number of concurrent requests for which one replica is sufficient; by default Ray's own choice."""
    max_model_len: Count | None = None
    """Longest prompt and reply together, in tokens."""
    accelerator_type: str | None = None
    """The kind of GPU, as Ray names it."""
    placement_group_config: PlacementGroup | None = None
    """The cluster resources of one replica; by default `tensor_parallel_size` GPUs."""
    placement_seconds: NotNegative = 300.0
    """Seconds without a node that has these resources after which `serve up` gives up; use more if nodes are
    added on demand."""
    prefix_routing: bool = True
    """Whether calls go to the replica that has seen the longest prefix of their prompt."""
    engine_kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    """Further arguments of the engine, by their names in Python."""
    port: Count = 8000
    """The port of Ray Serve on every node; an instance that runs already keeps its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_replicas > self.max_replicas:
            raise ConfigError(
                f"min_replicas={self.min_replicas} is more than max_replicas={self.max_replicas}"
            )

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
            given = asdict(self.placement_group_config).items()
            config["placement_group_config"] = {key: value for key, value in given if value is not None}
        return config

    def bundles(self) -> list[dict[str, float]]:
        """Return the resource bundles of one replica, each of which must fit on one node."""
        group = self.placement_group_config or PlacementGroup(bundle_per_worker={"GPU": 1})
        given: Sequence[Mapping[str, float]] | None = group.bundles
        if given is None:
            assert group.bundle_per_worker is not None
            engine = {"tensor_parallel_size": self.tensor_parallel_size, **self.engine_kwargs}
            devices = int(engine["tensor_parallel_size"]) * int(engine.get("pipeline_parallel_size", 1))
            given = [group.bundle_per_worker] * devices
        return [dict(bundle) for bundle in given]


def too_large(bundles: Sequence[Mapping[str, float]], nodes: Sequence[Mapping[str, float]]) -> str:
    """Describe why the nodes could not hold the bundles even if they were idle; empty if they might."""
    for bundle in bundles:
        if not any(all(node.get(key, 0.0) >= amount for key, amount in bundle.items()) for node in nodes):
            return f"no node of the cluster has {_listed(bundle)}"
    total = {key: sum(bundle.get(key, 0.0) for bundle in bundles) for bundle in bundles for key in bundle}
    if any(sum(node.get(key, 0.0) for node in nodes) < amount for key, amount in total.items()):
        return f"all nodes of the cluster together lack {_listed(total)}"
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
