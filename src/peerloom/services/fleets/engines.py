"""Define the options of the engines that `peerloom serve` starts as processes, and build their commands.

vLLM's options are tested on vLLM 0.32 (`make engines`); SGLang's follow its documentation. All other tests
use stand-ins for the engines. Keys are passed in the environment, never on the command line.
"""

import sys
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from peerloom.options import Count, NotNegative, Options, Share
from peerloom.services.fleets import sglang_launcher
from peerloom.services.fleets.adapters import adapters_of
from peerloom.services.llm.llamacpp.service import LlamaCppServers, named
from peerloom.services.llm.llamacpp.weights import pull
from peerloom.services.processes.server import Command, ServerAddress
from peerloom.services.secret import Secret


@dataclass(frozen=True, kw_only=True)
class ProcessFleet(Options):
    """Server processes, each of which is a replica."""

    section: ClassVar[str] = "serve"

    replicas: Count = 1
    """The number of servers."""
    host: str | None = None
    """The address they listen on; by default loopback, on a Ray cluster each node's own."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The model's name in calls."""

    @property
    def gpus_on_ray(self) -> float:
        """The GPUs to request from Ray for each replica."""
        return 0.0

    @abstractmethod
    def command(self, fleet: Path, key: Secret | None) -> Command:
        """Return the command of a replica; calls must present `key`, if any. `fleet` is the fleet's file."""


@dataclass(frozen=True, kw_only=True)
class LlamaCppFleet(LlamaCppServers, ProcessFleet):
    """llama.cpp's server, which comes with Peerloom."""

    engine: Literal["llamacpp"] = "llamacpp"

    @property
    def name(self) -> str:
        """The model's name in calls."""
        return named(self.model, Path(self.model))

    def command(self, fleet: Path, key: Secret | None) -> Command:
        """Return the command of one replica; pulls the weights if they are missing."""
        return self.server_command(pull(self.model), key)


@dataclass(frozen=True, kw_only=True)
class GpuModel(Options):
    """A model that its replicas hold on GPUs."""

    section: ClassVar[str] = "serve"

    model: str
    """A name on Hugging Face, or a directory that every node has."""
    served_name: str | None = None
    """The model's name in requests; by default `model`."""
    tensor_parallel_size: Count = 1
    """GPUs of one replica, or other devices that Ray Serve is given for them."""

    @property
    def name(self) -> str:
        """The model's name in calls."""
        return self.served_name or self.model


@dataclass(frozen=True, kw_only=True)
class _GpuFleet(GpuModel, ProcessFleet):
    gpus: NotNegative | None = None
    """GPUs to request from Ray for each replica; by default `tensor_parallel_size`."""
    dtype: str | None = None
    """Type of the weights; by default the engine's own choice."""
    extra: tuple[str, ...] = ()
    """Further options on the engine's command line."""

    @property
    def gpus_on_ray(self) -> float:
        """The GPUs to request from Ray for each replica."""
        return self.tensor_parallel_size if self.gpus is None else self.gpus

    def _flags(self, *names: str) -> list[str]:
        """Return the arguments of the options that are set, which the engine calls by the same names."""
        given = {name: getattr(self, name) for name in names}
        named = ((f"--{name.replace('_', '-')}", value) for name, value in given.items())
        return [text for flag, value in named if value is not None for text in (flag, str(value))]

    def _command(
        self, engine: str, argv: Callable[[ServerAddress], list[str]], env: dict[str, str]
    ) -> Command:
        return Command(
            engine=engine,
            description=f"the {engine} server of model {self.model}",
            argv=argv,
            env=env,
            load_seconds=3600.0,  # includes the download of weights, and compilation
            check_seconds=10.0,
            max_failed_checks=6,
        )


@dataclass(frozen=True, kw_only=True)
class VllmFleet(_GpuFleet):
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

    def command(self, fleet: Path, key: Secret | None) -> Command:
        """Return the command of one replica, which loads the fleet's adapters."""

        def argv(address: ServerAddress) -> list[str]:
            argv = [self.program, "serve", self.model, "--host", address.host, "--port", str(address.port)]
            argv += ["--served-model-name", self.name]
            argv += ["--enable-prompt-tokens-details"]  # adds the number of cached tokens to replies
            argv += ["--tensor-parallel-size", str(self.tensor_parallel_size)]
            argv += self._flags("max_model_len", "gpu_memory_utilization", "max_num_seqs", "dtype")
            if self.prefix_caching is not None:
                argv.append(
                    "--enable-prefix-caching" if self.prefix_caching else "--no-enable-prefix-caching"
                )
            if self.lora:
                argv.append("--enable-lora")
            if loaded := [f"{name}={path}" for name, path in adapters_of(fleet).items()]:
                argv += ["--lora-modules", *loaded]
            return [*argv, *self.extra]

        env = {"VLLM_API_KEY": key.reveal()} if key is not None else {}
        if self.lora:
            env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        return self._command("vllm", argv, env)


@dataclass(frozen=True, kw_only=True)
class SglangFleet(_GpuFleet):
    """`python -m sglang.launch_server`, which must be installed."""

    engine: Literal["sglang"] = "sglang"
    context_length: Count | None = None
    """Longest prompt and reply together, in tokens."""
    mem_fraction_static: Share | None = None
    """Share of a GPU's memory for weights and cache."""
    python: str | None = None
    """The interpreter that has SGLang; by default the one that runs Peerloom."""

    def command(self, fleet: Path, key: Secret | None) -> Command:
        """Return the command of one replica."""
        run = ["-m", "sglang.launch_server"] if key is None else [str(Path(sglang_launcher.__file__))]

        def argv(address: ServerAddress) -> list[str]:
            argv = [self.python or sys.executable, *run, "--model-path", self.model]
            argv += ["--host", address.host, "--port", str(address.port), "--served-model-name", self.name]
            argv += ["--enable-cache-report"]  # adds the number of cached tokens to replies
            argv += ["--tp-size", str(self.tensor_parallel_size)]
            argv += self._flags("context_length", "mem_fraction_static", "dtype")
            return [*argv, *self.extra]

        env = {sglang_launcher.KEY: key.reveal()} if key is not None else {}
        return self._command("sglang", argv, env)
