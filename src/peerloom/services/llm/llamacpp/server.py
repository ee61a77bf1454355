"""The child process of `llamacpp`: llama.cpp's own HTTP server over one model, until SIGTERM.

It is well once `/health` answers; its output is a log. A key that calls have to show comes by the
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
"""The environment variable with the key that calls have to show, if any."""

CACHE_MIB = 2048
"""Memory for prompts that had to leave their slot, so that a dialogue finds its prefix again after others
had the slot. With 16 Coral dialogues over 4 slots it saves 70 % of the prompt tokens, without it 22 %,
at 2.5 times the CPU time; with it, more slots than work at once save no more. A token of SmolLM2-135M
takes 23 KB."""

_WARNINGS = 2  # of llama.cpp's log levels; from 3 on it writes several lines a call


def main() -> None:
    """Serve until SIGTERM; exit code 1 if the model cannot be loaded, with the reason on stderr."""
    options = _options()
    # An OpenMP thread spins at each barrier, by default for so long that with the cores shared with
    # others (agents, say) the server is twenty times slower. This costs nothing on idle cores.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # before there are threads: they inherit it
    xllamacpp: Any = importlib.import_module("xllamacpp")  # untyped; and it reads the environment at once
    try:
        path = models.pull(options.model)  # on another machine than the run's it may not be there yet
        server = xllamacpp.Server(_params(xllamacpp, options, str(path)))
    except (RuntimeError, ModelError) as error:
        sys.exit(f"cannot load {options.model}: {error}")
    print(f"listening at {server.listening_address}", flush=True)
    signal.sigwait(stops)
    os._exit(0)  # not through the server's destructor: it would finish the replies nobody waits for


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="its name, or the path of a .gguf file")
    parser.add_argument("--alias", required=True, help="its name in replies")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True, help="sequences worked on at once")
    parser.add_argument("--context", type=int, required=True, help="tokens of each slot")
    parser.add_argument("--threads", type=int, default=0, help="0: one for each core of its share")
    parser.add_argument("--sharing", type=int, default=1, help="so many servers share the machine's cores")
    return parser.parse_args()


def _params(xllamacpp: Any, options: argparse.Namespace, path: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {options.alias}
    params.hostnames = [options.host]
    params.port = options.port
    params.reuse_port = True  # whoever started us holds it, bound, so that it is ours after a restart too
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
    """Physical cores this process may use: a second thread on one core slows the first."""
    allowed = len(os.sched_getaffinity(0))
    return min(psutil.cpu_count(logical=False) or allowed, allowed)


if __name__ == "__main__":
    main()
