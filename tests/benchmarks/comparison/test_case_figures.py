import asyncio

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from benchmarks.comparison.cases.growth import DIALOGUES, each_task, each_turn
from benchmarks.comparison.cases.parallel import one_member
from benchmarks.harness.process import Seen
from benchmarks.programs.engine import Served, rate, saturated, until_idle


class Clock:
    """CPU time that goes by at some pace, faster after a moment."""

    def __init__(self, slow: float, fast: float, turn: float) -> None:
        self._paces = slow, fast, turn

    def used(self, begin: float, end: float, process: int | None = None) -> float:
        slow, fast, turn = self._paces
        share = 1.0 if process is None else process / 100
        before = max(0.0, min(end, turn) - begin)
        return share * (slow * before + fast * (end - begin - before))


def seen(cpu: Clock, **said: object) -> Seen:
    found = Seen(1, 0.5)
    found.cpu = cpu  # type: ignore[assignment]
    found.said = dict(said)
    return found


def test_growth_is_the_last_tasks_cost_by_that_of_the_first() -> None:
    moments = {"10": 0.0, "20": 10.0, "40": 30.0}
    found = each_task([10, 20, 40], seen(Clock(1.0, 1.5, 10.0), moments=moments))
    assert found["cpu_us_to_20"] == pytest.approx(1e6)
    assert found["cpu_us_to_40"] == pytest.approx(1.5e6)
    assert found["growth"] == pytest.approx(1.5)


def test_a_hop_costs_what_goes_by_while_all_dialogues_take_it() -> None:
    found = each_turn(
        ((2, 8), (190, 199)), seen(Clock(1, 1, 0), moments={"2": 0, "8": 6, "190": 20, "199": 38})
    )
    assert found["cpu_us_at_2"] == pytest.approx(1e6 / DIALOGUES)
    assert found["cpu_us_at_190"] == pytest.approx(2e6 / DIALOGUES)


def test_what_one_feeder_can_do_is_its_cpu_time_turned_round() -> None:
    members = {"feeder-0.1": 10, "sink-0.1": 20, "peer-0.1": 70}
    found = one_member(seen(Clock(1, 1, 0), begin=0.0, end=10.0, tasks=1_000, members=members))
    assert found == {"feeder_limit": pytest.approx(1_000), "sink_limit": pytest.approx(500)}


def test_tokens_are_those_of_the_calls_answered_while_all_slots_have_work() -> None:
    full = [Served(0, 10, 100), Served(0, 12, 100), Served(10, 20, 50)]
    tail = [Served(12, 22, 50), Served(22, 90, 1)]
    assert until_idle([*full, *tail], slots=2) == full  # from 20 on there is one call only
    assert rate(full) == pytest.approx(250 / 20)
    assert until_idle(full[:2], slots=4) == full[:2]


async def test_the_bare_client_keeps_all_slots_busy_until_so_many_calls_are_answered() -> None:
    asked: list[int] = []
    together, gone = asyncio.Barrier(3), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        number = (await request.json())["number"]
        asked.append(number)
        if number < 3:
            await together.wait()
        if number == 1:
            await gone.wait()
        return web.json_response({"usage": {"completion_tokens": 7}})

    app = web.Application()
    app.router.add_post("/", answer)
    async with TestServer(app) as server, ClientSession() as session:
        bodies = [{"number": number} for number in range(20)]
        served = await saturated(session, str(server.make_url("/")), bodies, at_once=3, count=10)
        gone.set()
    assert [call.tokens for call in served] == [7] * 10
    assert 11 <= len(asked) <= 13
