"""Define the keys of `peerloom serve up`, one class for each engine that serves a model, and check them."""

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
    """Server processes, each of which is a replica."""

    replicas: Count = 1
    """The number of servers."""
    host: str | None = None
    """The address they listen on; by default loopback, on a Ray cluster each node's own."""


class LlamaCppServers(_Processes):
    """llama.cpp's server, which comes with Peerloom."""

    engine: Literal["llamacpp"] = "llamacpp"
    model: str = "smollm2-135m"
    """A name that `peerloom models list` prints, or the path of a .gguf file."""
    slots: Count = 8
    """The number of conversations that each server processes at once."""
    context: Count = 2048
    """Tokens that each slot holds, prompt and reply together."""
    threads: Count | None = None
    """Compute threads on one machine, over all its servers; by default one for each core."""


class _GpuServers(_Processes):
    model: str
    """A name on Hugging Face, or a directory."""
    served_name: str | None = None
    """The model's name in requests; by default `model`."""
    tensor_parallel_size: Count = 1
    """GPUs of one replica."""
    gpus: NotNegative | None = None
    """GPUs to request from Ray for each replica; by default `tensor_parallel_size`."""
    dtype: str | None = None
    """Type of the weights; by default the engine's own choice."""
    extra: tuple[str, ...] = ()
    """Further options on the engine's command line."""


class VllmServers(_GpuServers):
    """`vllm serve`, which must be installed."""

    engine: Literal["vllm"] = "vllm"
    max_model_len: Count | None = None
    """Longest prompt and reply together, in tokens."""
    prefix_caching: bool | None = None
    """Whether prompts with a common prefix share its computation; by default vLLM's own choice."""
    gpu_memory_utilization: Share | None = None
    """Share of a GPU's memory that it uses."""
    max_num_seqs: Count | None = None
    """The number of sequences processed at once."""
    lora: bool = False
    """Whether `peerloom serve load` can add LoRA adapters."""
    program: str = "vllm"
    """The executable."""


class SglangServers(_GpuServers):
    """`python -m sglang.launch_server`, which must be installed."""

    engine: Literal["sglang"] = "sglang"
    context_length: Count | None = None
    """Longest prompt and reply together, in tokens."""
    mem_fraction_static: Share | None = None
    """Share of a GPU's memory for weights and cache."""
    python: str | None = None
    """The interpreter that has SGLang; by default the one that runs Peerloom."""


class PlacementGroup(Section):
    """The cluster resources of one replica, as in `LLMConfig`: `bundles` or `bundle_per_worker`."""

    bundles: tuple[dict[str, NotNegative], ...] | None = None
    """Resources of each bundle, which must be on one node: `[{CPU: 2}]`."""
    bundle_per_worker: dict[str, NotNegative] | None = None
    """Resources for each of the `tensor_parallel_size` devices: `{CPU: 1, GPU: 1}`."""
    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] | None = None
    """How the bundles are spread over nodes; by default PACK."""


class RayServe(Section):
    """An application of Ray Serve LLM: vLLM, scaled and routed by Ray."""

    engine: Literal["ray-serve"] = "ray-serve"
    model: str
    """A name on Hugging Face, or a path that every node has."""
    served_name: str | None = None
    """The model's name in requests; by default `model`."""
    min_replicas: Whole = 1
    """The minimum number of replicas."""
    max_replicas: Count = 1
    """The maximum number of replicas."""
    target_ongoing_requests: Positive | None = None
    """The number of concurrent requests for which one replica is sufficient; by default Ray's own choice."""
    tensor_parallel_size: Count = 1
    """GPUs of one replica, or the devices that `placement_group_config` names."""
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
    engine_kwargs: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Further arguments of the engine, by their names in Python."""
    port: Count = 8000
    """The port of Ray Serve on every node; an instance that runs already keeps its own."""


ServeOptions = LlamaCppServers | VllmServers | SglangServers | RayServe
ENGINES: dict[str, type[ServeOptions]] = {
    "llamacpp": LlamaCppServers,
    "vllm": VllmServers,
    "sglang": SglangServers,
    "ray-serve": RayServe,
}


def parse_serve_options(texts: Sequence[str]) -> ServeOptions:
    """Return the options in `key=value` texts.

    Raises:
        ConfigError: with a line for each invalid key or value.
    """
    return check_serve_options(keys(texts))


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
        options = model.model_validate_json(orjson.dumps(given))
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, model))) from error
    if isinstance(options, RayServe):
        _check_application(options)
    return options


def _check_application(options: RayServe) -> None:
    if options.min_replicas > options.max_replicas:
        raise ConfigError(
            f"min_replicas={options.min_replicas} is more than max_replicas={options.max_replicas}"
        )
    group = options.placement_group_config
    if group is not None and (group.bundles is None) == (group.bundle_per_worker is None):
        raise ConfigError(
            "placement_group_config: must have one of bundles and bundle_per_worker, as in "
            "'placement_group_config={bundles: [{CPU: 1}]}'."
        )
