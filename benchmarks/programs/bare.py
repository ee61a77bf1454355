"""The least that a task in flight can take: asyncio tasks that hold a payload each and wait."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import orjson


def _resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def wait(tasks: int, payload: int) -> dict[str, Any]:
    """Hold so many tasks at once, and measure the bytes of each beyond its payload."""
    begin, before = time.time(), _resident()

    async def hold(number: int) -> int:
        held = number.to_bytes(8, "big") * (payload // 8)
        await over.wait()
        return len(held)

    over = asyncio.Event()
    waiting = [asyncio.create_task(hold(number)) for number in range(tasks)]
    await asyncio.sleep(0.1)
    each = (_resident() - before) / tasks - payload
    over.set()
    await asyncio.gather(*waiting)
    return {"begin": begin, "end": time.time(), "figures": {"bytes_each": each}}


def main() -> None:
    """Do what the spec says."""
    spec: dict[str, Any] = orjson.loads(Path(sys.argv[1]).read_bytes())
    sys.stdout.write("\n" + orjson.dumps(asyncio.run(wait(spec["tasks"], spec["payload"]))).decode() + "\n")


if __name__ == "__main__":
    main()
