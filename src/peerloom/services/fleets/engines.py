"""The engines that `peerloom serve` starts as processes, as command lines with the engines' own options.

What is said here of vLLM's options was tried on vLLM 0.32 (`make engines`), of SGLang's it is what its
documentation says; other tests put a stand-in in their place. Keys go by the environment, never by the
command line.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peerloom.services.fleets import sglang_launcher
from peerloom.services.processes.server import Command, ServerAddress
from peerloom.services.secret import Secret

_LOAD_SECONDS = 3600.0  # the weights may have to be fetched first, and compiled for
_LOOK_SECONDS = 10.0
_LOOKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Vllm:
    """`vllm serve`.

    Args:
        model: a name on Hugging Face, or a directory.
        served_name: what it is called in calls; default `model`.
        tensor_parallel_size: GPUs of one replica.
        max_model_len: longest prompt and reply together, in tokens; default the model's own.
        prefix_caching: whether prompts that begin alike share what was computed; default vLLM's own.
        gpu_memory_utilization: share of a GPU's memory that it takes; default vLLM's own.
        max_num_seqs: sequences worked on at once; default vLLM's own.
        dtype: of the weights; default vLLM's own.
        lora: whether adapters can be loaded while it serves.
        adapters: returns the adapters to start with, paths by names.
        extra: further options as they stand on a command line.
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
        """What the model is called in calls."""
        return self.served_name or self.model

    def command(self, key: Secret | None) -> Command:
        """How one replica is run; with a key, calls have to show it."""

        def argv(seat: ServerAddress) -> list[str]:
            argv = [self.program, "serve", self.model, "--host", seat.host, "--port", str(seat.port)]
            argv += ["--served-model-name", self.name]
            argv += ["--enable-prompt-tokens-details"]  # or replies do not say how many tokens were cached
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
    """`python -m sglang.launch_server`.

    Args:
        model: a name on Hugging Face, or a directory.
        served_name: what it is called in calls; default `model`.
        tensor_parallel_size: GPUs of one replica.
        context_length: longest prompt and reply together, in tokens; default the model's own.
        mem_fraction_static: share of a GPU's memory for weights and cache; default SGLang's own.
        dtype: of the weights; default SGLang's own.
        extra: further options as they stand on a command line.
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
        """What the model is called in calls."""
        return self.served_name or self.model

    def command(self, key: Secret | None) -> Command:
        """How one replica is run; with a key, calls have to show it."""
        run = ["-m", "sglang.launch_server"] if key is None else [str(Path(sglang_launcher.__file__))]

        def argv(seat: ServerAddress) -> list[str]:
            argv = [self.python, *run, "--model-path", self.model]
            argv += ["--host", seat.host, "--port", str(seat.port), "--served-model-name", self.name]
            argv += ["--enable-cache-report"]  # or replies do not say how many tokens were cached
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
    return [part for option, value in values.items() if value is not None for part in (option, str(value))]


def _command(
    engine: str, model: str, argv: Callable[[ServerAddress], list[str]], env: dict[str, str]
) -> Command:
    return Command(
        engine=engine,
        what=f"the {engine} server of model {model}",
        argv=argv,
        env=env,
        load=_LOAD_SECONDS,
        look=_LOOK_SECONDS,
        looks=_LOOKS,
    )
