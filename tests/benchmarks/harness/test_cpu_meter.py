import asyncio
import sys
import time

import pytest

from benchmarks.harness.cpu import CpuMeter

SPIN = """
import time
input()
until = time.process_time() + 0.3
while time.process_time() < until: pass
print(flush=True)
input()
"""


def spin(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


async def test_it_counts_what_was_used_between_two_moments() -> None:
    async with CpuMeter() as meter:
        begin = time.time()
        spin(0.1)
    spent = meter.used(begin, time.time())
    assert 0.08 < spent < 0.3
    assert meter.used(begin - 10, begin) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize(("counted", "expected"), [(True, 0.3), (False, 0.0)])
async def test_children_count_unless_left_out(counted: bool, expected: float) -> None:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", SPIN, stdin=pipe, stdout=pipe)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        async with CpuMeter(without=None if counted else child.pid) as meter:
            begin = time.time()
            child.stdin.write(b"go\n")
            await child.stdout.readline()
        assert meter.used(begin, time.time()) == pytest.approx(expected, abs=0.1)
    finally:
        child.kill()
        await child.communicate()
