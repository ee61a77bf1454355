"""Run llama.cpp's HTTP server for one model in this process until SIGTERM.

It is ready when `/health` answers. Its output is a log. The key that calls must present is passed in the
environment.
"""

import argparse
import importlib
import os
import signal
import sys
from typing import Any

import psutil

from peerloom.errors import ModelError
from peerloom.services.llm.llamacpp import weights as models

KEY = "PEERLOOM_SERVER_KEY"
"""The environment variable with the key that calls must present, if any."""

CACHE_MIB = 2048
"""Memory for prompts evicted from their slot, so that a dialogue finds its prefix after other dialogues used
the slot. With 16 Coral dialogues on 4 slots, 70 % of the prompt tokens are cached; without this memory 22 %,
at 2.5 times the CPU time. More slots than concurrent calls save no further tokens. A token of SmolLM2-135M
takes 23 KB."""

_WARNINGS = 2  # a log level of llama.cpp; higher levels write several lines a call


def main() -> None:
    """Serve until SIGTERM. Exit with code 1 and the reason on stderr if the model cannot be loaded."""
    options = _options()
    # OpenMP threads spin at each barrier. If other processes use the same cores, the default spin count
    # makes the server twenty times slower. This count costs nothing on idle cores.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # before threads are started, which inherit it
    xllamacpp: Any = importlib.import_module("xllamacpp")  # untyped; reads the environment when imported
    try:
        path = models.pull(options.model)  # may be missing on other machines than the driver's
        server = xllamacpp.Server(_params(xllamacpp, options, str(path)))
    except (RuntimeError, ModelError) as error:
        sys.exit(f"cannot load {options.model}: {error}")
    print(f"listening at {server.listening_address}", flush=True)
    signal.sigwait(stops)
    os._exit(0)  # skips the server's destructor, which would finish abandoned replies


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="its name, or the path of a .gguf file")
    parser.add_argument("--alias", required=True, help="its name in replies")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True, help="sequences worked on at once")
    parser.add_argument("--context", type=int, required=True, help="tokens of each slot")
    parser.add_argument("--threads", type=int, default=0, help="0: one per core, divided among the servers")
    parser.add_argument("--sharing", type=int, default=1, help="servers that share the machine's cores")
    return parser.parse_args()


def _params(xllamacpp: Any, options: argparse.Namespace, path: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {options.alias}
    params.hostnames = [options.host]
    params.port = options.port
    params.reuse_port = True  # the parent keeps the port bound across restarts
    params.n_parallel = options.slots
    params.n_ctx = options.slots * options.context
    if key := os.environ.pop(KEY, ""):
        params.api_keys = [key]
    threads = options.threads or max(1, _cores() // options.sharing)
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.cache_prompt = True
    params.cache_ram_mib = CACHE_MIB
    params.ui = False
    params.cors_origins = ""
    params.verbosity = _WARNINGS
    return params


def _cores() -> int:
    """Return the number of physical cores this process may use; a second thread on a core slows the first."""
    allowed = len(os.sched_getaffinity(0))
    return min(psutil.cpu_count(logical=False) or allowed, allowed)


if __name__ == "__main__":
    main()
