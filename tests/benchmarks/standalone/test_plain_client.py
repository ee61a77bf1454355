from random import Random

import pytest

from benchmarks.standalone.plain_client import ask_plainly, own_wait
from peerloom.services.llm.simulated.behavior import RetryAfterAs, SimulatedBehavior
from peerloom.services.llm.simulated.server.app import ServerConfig, serving


@pytest.mark.parametrize(("stated_as", "asked"), [("fraction", 7.5), ("none", None), ("year", None)])
async def test_it_waits_as_it_is_asked_or_longer_each_time(
    stated_as: RetryAfterAs, asked: float | None
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    behavior = SimulatedBehavior(rate_429=0.5, retry_after=7.5, retry_after_as=stated_as)
    async with serving(ServerConfig(behavior=behavior, port=0)) as port:
        await ask_plainly(f"http://127.0.0.1:{port}/v1", 40, 1, sleep=sleep)
    assert len(waits) > 10
    if asked is not None:
        assert set(waits) == {asked}
    else:
        assert min(waits) >= 0.375 and 1.0 < max(waits) <= 8.0


def test_waits_double_to_eight_seconds_less_up_to_a_quarter() -> None:
    rng = Random(1)
    for tries, longest in enumerate((0.5, 1.0, 2.0, 4.0, 8.0, 8.0)):
        drawn = [own_wait(tries, rng) for _ in range(50)]
        assert 0.75 * longest <= min(drawn) < max(drawn) <= longest
