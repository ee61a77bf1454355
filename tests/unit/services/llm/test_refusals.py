"""What a refusal does to other calls: they are held back as it asks, and slowed if it is not alone."""

import asyncio

from peerloom.services.llm.limits.amounts import ANYTHING, NOTHING, Grant, encode
from peerloom.services.llm.limits.desk import Desk


async def test_calls_go_on_after_a_hold_even_if_the_timer_comes_early() -> None:
    now = [0.0]
    desk = Desk(clock=lambda: now[0])
    meter = desk.meter("llm", limited=True, moved=lambda names: None)
    grant = Grant(service="llm", number=1, limited=True, granted=ANYTHING, slots=9.0, hold=0.0, moved=None)
    desk.hear(encode([grant]))
    meter.refused(0.01)
    waiting = asyncio.create_task(meter.take("role", NOTHING))
    now[0] = 0.0099
    await asyncio.sleep(0.02)
    assert not waiting.done(), "by the meter's clock the hold is not over"
    now[0] = 0.0101
    async with asyncio.timeout(1):
        await waiting
