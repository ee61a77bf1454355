"""The keys of `peerloom serve up`: which engine serves a model, and how; one class for each engine."""

from collections.abc import Sequence
from typing import Any, Literal

import orjson
from pydantic import Field, ValidationError

from peerloom.config.composition.overrides import keys
from peerloom.config.explain import explain
from peerloom.config.nearest import did_you_mean
from peerloom.config.secrets import refuse_secrets
from peerloom.config.sections.base import Section
from peerloom.errors import ConfigError
from peerloom.options import Count, NotNegative, Positive, Share, Whole


class _Processes(Section):
    """Server processes, each a replica."""

    replicas: Count = 1
    """Servers, side by side."""
    host: str | None = None
    """The address they listen on; by default loopback, on a Ray cluster each node's own."""


class LlamaCppServers(_Processes):
    """llama.cpp's server, which comes with Peerloom."""

    engine: Literal["llamacpp"] = "llamacpp"
    model: str = "smollm2-135m"
    """A name that `peerloom models list` prints, or the path of a .gguf file."""
    slots: Count = 8
    """Conversations each server works on at once."""
    context: Count = 2048
    """Tokens each slot holds, prompt and reply together."""
    threads: Count | None = None
    """Threads that compute on one machine, over all its servers; by default one for each core."""


class _OnGpus(_Processes):
    model: str
    """A name on Hugging Face, or a directory."""
    served_name: str | None = None
    """What the model is called in calls; by default as `model` says."""
    tensor_parallel_size: Count = 1
    """GPUs of one replica."""
    gpus: NotNegative | None = None
    """GPUs that Ray is asked for, for each replica; by default `tensor_parallel_size`."""
    dtype: str | None = None
    """Type of the weights; by default the engine's own choice."""
    extra: tuple[str, ...] = ()
    """Further options as they stand on the engine's command line."""


class VllmServers(_OnGpus):
    """`vllm serve`, which you have installed."""

    engine: Literal["vllm"] = "vllm"
    max_model_len: Count | None = None
    """Longest prompt and reply together, in tokens."""
    prefix_caching: bool | None = None
    """Whether prompts that begin alike share what was computed; by default vLLM's own choice."""
    gpu_memory_utilization: Share | None = None
    """Share of a GPU's memory that it takes."""
    max_num_seqs: Count | None = None
    """Sequences worked on at once."""
    lora: bool = False
    """Whether `peerloom serve load` can add LoRA adapters."""
    program: str = "vllm"
    """The executable."""


class SglangServers(_OnGpus):
    """`python -m sglang.launch_server`, which you have installed."""

    engine: Literal["sglang"] = "sglang"
    context_length: Count | None = None
    """Longest prompt and reply together, in tokens."""
    mem_fraction_static: Share | None = None
    """Share of a GPU's memory for weights and cache."""
    python: str | None = None
    """The interpreter that has SGLang; by default the one that runs Peerloom."""


class PlacementGroup(Section):
    """What one replica asks of the cluster, as `LLMConfig` has it: `bundles` or `bundle_per_worker`."""

    bundles: tuple[dict[str, NotNegative], ...] | None = None
    """Resources of each part, which has to be on one node: `[{CPU: 2}]`."""
    bundle_per_worker: dict[str, NotNegative] | None = None
    """Resources for each device, as many as `tensor_parallel_size` says: `{CPU: 1, GPU: 1}`."""
    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] | None = None
    """How the parts are spread over nodes; by default PACK."""


class RayServe(Section):
    """An application of Ray Serve LLM: vLLM, scaled and routed by Ray."""

    engine: Literal["ray-serve"] = "ray-serve"
    model: str
    """A name on Hugging Face, or a path that every node has."""
    served_name: str | None = None
    """What the model is called in calls; by default as `model` says."""
    min_replicas: Whole = 1
    """As few as there may be."""
    max_replicas: Count = 1
    """As many as there may be."""
    target_ongoing_requests: Positive | None = None
    """Calls under way for which a replica is enough; by default Ray's own choice."""
    tensor_parallel_size: Count = 1
    """GPUs of one replica, or other devices if `placement_group_config` says so."""
    max_model_len: Count | None = None
    """Longest prompt and reply together, in tokens."""
    accelerator_type: str | None = None
    """The kind of GPU, as Ray names it."""
    placement_group_config: PlacementGroup | None = None
    """What one replica asks of the cluster; by default a GPU for each of `tensor_parallel_size`."""
    placement_seconds: NotNegative = 300.0
    """How long no node may have that before `serve up` gives up; longer where nodes are added on demand."""
    prefix_routing: bool = True
    """Whether calls go to the replica that has seen the longest part of their prompt."""
    engine_kwargs: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Further arguments of the engine, by their names in Python."""
    port: Count = 8000
    """Where Ray Serve listens, on every node; one that runs already keeps its own."""


Served = LlamaCppServers | VllmServers | SglangServers | RayServe
ENGINES: dict[str, type[Served]] = {
    "llamacpp": LlamaCppServers,
    "vllm": VllmServers,
    "sglang": SglangServers,
    "ray-serve": RayServe,
}


def read_served(texts: Sequence[str]) -> Served:
    """What `key=value` texts ask for.

    Raises:
        ConfigError: with a line for each key or value that is wrong.
    """
    given = keys(texts)
    return checked(given)


def checked(given: dict[str, Any]) -> Served:
    """What a dictionary of keys asks for.

    Raises:
        ConfigError: with a line for each key or value that is wrong.
    """
    refuse_secrets(given)
    engine = str(given.get("engine", ""))
    model = ENGINES.get(engine)
    if model is None:
        said = f"engine={engine}: must be one of" if engine else "engine is needed:"
        raise ConfigError(f"{said} {', '.join(ENGINES)}.{did_you_mean(engine, ENGINES)}")
    try:
        served = model.model_validate_json(orjson.dumps(given))
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, model))) from error
    if isinstance(served, RayServe):
        _check_application(served)
    return served


def _check_application(served: RayServe) -> None:
    if served.min_replicas > served.max_replicas:
        raise ConfigError(
            f"min_replicas={served.min_replicas} is more than max_replicas={served.max_replicas}"
        )
    group = served.placement_group_config
    if group is not None and (group.bundles is None) == (group.bundle_per_worker is None):
        raise ConfigError(
            "placement_group_config: must have one of bundles and bundle_per_worker, as in "
            "'placement_group_config={bundles: [{CPU: 1}]}'."
        )
