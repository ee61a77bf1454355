import asyncio
import sys

from benchmarks.harness.memory import MemoryMeter

HOLD = "held = bytearray(b'x') * (80 << 20); print(flush=True); input()"


async def peak(*, counted: bool) -> int:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLD, stdin=pipe, stdout=pipe)
    assert child.stdout is not None
    try:
        await child.stdout.readline()
        async with MemoryMeter(without=0 if counted else child.pid) as meter:
            pass
    finally:
        child.kill()
        await child.communicate()
    return meter.peak


async def test_children_count_unless_left_out() -> None:
    assert 80 << 20 < await peak(counted=True) - await peak(counted=False) < 120 << 20
