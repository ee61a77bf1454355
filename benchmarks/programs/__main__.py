"""`python -m benchmarks.programs SPEC`: do what a spec says, and print what `harness.process` reads."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson

from benchmarks.programs import engine, growth, transfer
from benchmarks.programs.runner import Spec, carry_out
from benchmarks.workloads import hops, mini_coral, nr, plain, tau
from peerloom.services.llm.simulated.service import SimulatedService

Doer = Callable[[Spec], Coroutine[Any, Any, dict[str, Any]]]


async def _nr(spec: Spec) -> dict[str, Any]:
    return await carry_out(nr.program(spec["system"], spec["roles"]), spec)


async def _tau(spec: Spec) -> dict[str, Any]:
    # As many processes of the tool as the peers have, in two peers.
    return await carry_out(tau.program(spec["system"], spec["tool"], spec["tools"] // 2), spec)


async def _waiting(spec: Spec) -> dict[str, Any]:
    # The model is in the process that calls it, and its latency is what the tasks wait for.
    return await carry_out(plain.one_call(), spec, SimulatedService(latency=spec["latency"], tokens=30))


DOERS: dict[str, Doer] = {
    "hops": lambda spec: carry_out(hops.program(), spec),
    "mini-coral": lambda spec: carry_out(mini_coral.program(), spec),
    "nr": _nr,
    "tau": _tau,
    "one-turn": lambda spec: carry_out(plain.one_turn(), spec),
    "turns": lambda spec: carry_out(plain.talk(spec["turns"], spec["size"], spec["texts"]), spec),
    "waiting": _waiting,
    "growth": growth.many_tasks,
    "long": growth.long_dialogues,
    "engine": engine.run,
    "transfer": transfer.measure,
}


def main() -> None:
    """Do what the spec says."""
    spec: Spec = orjson.loads(Path(sys.argv[1]).read_bytes())
    found = asyncio.run(DOERS[spec["workload"]](spec))
    sys.stdout.write("\n" + orjson.dumps(found).decode() + "\n")


if __name__ == "__main__":
    main()
