"""The child process of `llamacpp`: llama.cpp's own HTTP server, until a signal ends it.

Run as `python -m peerloom.services.llm.llamacpp_server --help`. Once it answers it writes its address to
the file `--ready`, whole or not at all. The only module that imports xllamacpp.
"""

import argparse
import os
import signal
import threading
from pathlib import Path
from typing import Any

import xllamacpp as _xllamacpp  # pyright: ignore[reportMissingTypeStubs] - it has none

xllamacpp: Any = _xllamacpp


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    options = _options()
    stop = threading.Event()

    def end(_number: int, _frame: object) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    server = xllamacpp.Server(_parameters(options))
    address: str = server.listening_address
    scratch = options.ready.with_suffix(".tmp")
    scratch.write_text(address)
    scratch.replace(options.ready)
    stop.wait()
    # Its destructor waits for whoever is still connected; there is nothing in it that must be saved.
    os._exit(0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="llama.cpp's HTTP server")
    parser.add_argument("--model", required=True, help="path of a .gguf file")
    parser.add_argument("--slots", type=int, required=True, help="conversations at once")
    parser.add_argument("--context", type=int, required=True, help="tokens of each slot")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--ready", type=Path, required=True, help="file that receives the address")
    return parser.parse_args()


def _parameters(options: argparse.Namespace) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.port = 0  # any free one, on 127.0.0.1
    params.n_parallel = options.slots
    params.n_ctx = options.slots * options.context
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.kv_unified = False  # a long conversation must not eat the context of the others
    params.cache_ram_mib = 1024  # prompts whose slot was given away are kept here, and found again
    params.verbosity = 0
    return params


if __name__ == "__main__":
    main()
