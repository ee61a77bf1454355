"""Build the command lines of the engines that `peerloom serve` starts as processes.

vLLM's options are tested on vLLM 0.32 (`make engines`); SGLang's follow its documentation. All other tests
use stand-ins for the engines. Keys are passed in the environment, never on the command line.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peerloom.services.fleets import sglang_launcher
from peerloom.services.processes.server import Command, ServerAddress
from peerloom.services.secret import Secret

_LOAD_SECONDS = 3600.0  # includes the download of weights, and compilation
_CHECK_SECONDS = 10.0
_MAX_FAILED_CHECKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Vllm:
    """The options of `vllm serve`.

    Args:
        model: a name on Hugging Face, or a directory.
        served_name: the model's name in calls; default `model`.
        tensor_parallel_size: the number of GPUs of one replica.
        max_model_len: the limit of prompt and reply together, in tokens; default the model's.
        prefix_caching: whether prompts with a common prefix share its computation; default vLLM's.
        gpu_memory_utilization: the fraction of a GPU's memory to use; default vLLM's.
        max_num_seqs: the number of concurrent sequences; default vLLM's.
        dtype: the data type of the weights; default vLLM's.
        lora: whether adapters can be loaded while it serves.
        adapters: the function that returns the adapters to start with, paths by names.
        extra: further command line arguments.
        program: the executable.
    """

    model: str
    served_name: str | None = None
    tensor_parallel_size: int = 1
    max_model_len: int | None = None
    prefix_caching: bool | None = None
    gpu_memory_utilization: float | None = None
    max_num_seqs: int | None = None
    dtype: str | None = None
    lora: bool = False
    adapters: Callable[[], Mapping[str, str]] = dict[str, str]
    extra: Sequence[str] = ()
    program: str = "vllm"

    @property
    def name(self) -> str:
        """The model's name in calls."""
        return self.served_name or self.model

    def command(self, key: Secret | None) -> Command:
        """Return the command of one replica; with a key, calls must present it."""

        def argv(address: ServerAddress) -> list[str]:
            argv = [self.program, "serve", self.model, "--host", address.host, "--port", str(address.port)]
            argv += ["--served-model-name", self.name]
            argv += ["--enable-prompt-tokens-details"]  # adds the number of cached tokens to replies
            argv += ["--tensor-parallel-size", str(self.tensor_parallel_size)]
            argv += _options(
                {
                    "--max-model-len": self.max_model_len,
                    "--gpu-memory-utilization": self.gpu_memory_utilization,
                    "--max-num-seqs": self.max_num_seqs,
                    "--dtype": self.dtype,
                }
            )
            if self.prefix_caching is not None:
                argv.append(
                    "--enable-prefix-caching" if self.prefix_caching else "--no-enable-prefix-caching"
                )
            if self.lora:
                argv.append("--enable-lora")
            if loaded := [f"{name}={path}" for name, path in self.adapters().items()]:
                argv += ["--lora-modules", *loaded]
            return [*argv, *self.extra]

        env = {"VLLM_API_KEY": key.reveal()} if key is not None else {}
        if self.lora:
            env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        return _command("vllm", self.model, argv, env)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sglang:
    """The options of `python -m sglang.launch_server`.

    Args:
        model: a name on Hugging Face, or a directory.
        served_name: the model's name in calls; default `model`.
        tensor_parallel_size: the number of GPUs of one replica.
        context_length: the limit of prompt and reply together, in tokens; default the model's.
        mem_fraction_static: the fraction of a GPU's memory for weights and cache; default SGLang's.
        dtype: the data type of the weights; default SGLang's.
        extra: further command line arguments.
        python: the interpreter that has SGLang; default this one.
    """

    model: str
    served_name: str | None = None
    tensor_parallel_size: int = 1
    context_length: int | None = None
    mem_fraction_static: float | None = None
    dtype: str | None = None
    extra: Sequence[str] = ()
    python: str = field(default=sys.executable)

    @property
    def name(self) -> str:
        """The model's name in calls."""
        return self.served_name or self.model

    def command(self, key: Secret | None) -> Command:
        """Return the command of one replica; with a key, calls must present it."""
        run = ["-m", "sglang.launch_server"] if key is None else [str(Path(sglang_launcher.__file__))]

        def argv(address: ServerAddress) -> list[str]:
            argv = [self.python, *run, "--model-path", self.model]
            argv += ["--host", address.host, "--port", str(address.port), "--served-model-name", self.name]
            argv += ["--enable-cache-report"]  # adds the number of cached tokens to replies
            argv += ["--tp-size", str(self.tensor_parallel_size)]
            argv += _options(
                {
                    "--context-length": self.context_length,
                    "--mem-fraction-static": self.mem_fraction_static,
                    "--dtype": self.dtype,
                }
            )
            return [*argv, *self.extra]

        env = {sglang_launcher.KEY: key.reveal()} if key is not None else {}
        return _command("sglang", self.model, argv, env)


def _options(values: Mapping[str, str | float | None]) -> list[str]:
    return [each for option, value in values.items() if value is not None for each in (option, str(value))]


def _command(
    engine: str, model: str, argv: Callable[[ServerAddress], list[str]], env: dict[str, str]
) -> Command:
    return Command(
        engine=engine,
        description=f"the {engine} server of model {model}",
        argv=argv,
        env=env,
        load_seconds=_LOAD_SECONDS,
        check_seconds=_CHECK_SECONDS,
        max_failed_checks=_MAX_FAILED_CHECKS,
    )
