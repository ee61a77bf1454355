"""What a refusal does to other calls: they are held back as it asks, and slowed if it is not alone."""

import asyncio
import math

from peerloom.services.llm.limits.amounts import ANYTHING, NOTHING, Grant, encode
from peerloom.services.llm.limits.desk import Desk
from peerloom.services.llm.limits.pace import Pace


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


def test_a_refusal_among_a_hundred_answers_slows_nothing() -> None:
    pace = Pace(watch_slowness=False)
    for second in range(100):
        pace.answered(100, 5.0, 50, float(second))
        pace.refused(50, second + 0.5)
    assert pace.ceiling == math.inf and pace.factor == 1.0


def test_refusals_that_are_not_alone_slow_everything() -> None:
    pace = Pace(watch_slowness=False)
    pace.answered(100, 5.0, 50, 0.0)
    for second in range(1, 6):
        pace.answered(10, 0.5, 50, float(second))
        pace.refused(50, second + 0.5, 5)
    assert pace.ceiling < 30 and pace.factor < 0.5
