"""`python -m peerloom.bench.works SPEC`: our side of one measurement; prints what `house.job` reads."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson

from peerloom.bench import calls, hops
from peerloom.bench.works import dialogues, documents, engine, growth, handing, plain, waiting
from peerloom.bench.works.running import Spec, carry_out

Doer = Callable[[Spec], Coroutine[Any, Any, dict[str, Any]]]


async def _nr(spec: Spec) -> dict[str, Any]:
    return await carry_out(documents.program(spec["system"], spec["roles"]), spec)


async def _tau(spec: Spec) -> dict[str, Any]:
    # As many processes of the tool as the peers have, in two peers.
    return await carry_out(dialogues.program(spec["system"], spec["tool"], spec["tools"] // 2), spec)


DOERS: dict[str, Doer] = {
    "hops": lambda spec: carry_out(hops.program(), spec),
    "mini-coral": lambda spec: carry_out(calls.program(), spec),
    "nr": _nr,
    "tau": _tau,
    "one-turn": lambda spec: carry_out(plain.one_turn(), spec),
    "turns": lambda spec: carry_out(plain.talk(spec["turns"], spec["size"], spec["texts"]), spec),
    "waiting": waiting.run,
    "growth": growth.many_tasks,
    "long": growth.long_dialogues,
    "engine": engine.run,
    "handing": handing.measure,
}


def main() -> None:
    """Do what the spec says."""
    spec: Spec = orjson.loads(Path(sys.argv[1]).read_bytes())
    found = asyncio.run(DOERS[spec["workload"]](spec))
    sys.stdout.write("\n" + orjson.dumps(found).decode() + "\n")


if __name__ == "__main__":
    main()
