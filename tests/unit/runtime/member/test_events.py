"""The stream of events from a member to the driver."""

import asyncio

from peerloom.runtime.member.events import EventStream, MemberEvent, MemberNotice, MemberStats, decode_event


async def events_after(stream: EventStream, received: int) -> list[MemberEvent]:
    async with asyncio.timeout(5):
        return [decode_event(data) for data in await stream.poll(received)]


async def test_an_answer_that_was_lost_is_repeated() -> None:
    stream = EventStream()
    stream.emit(MemberNotice("one"))
    await stream.poll(0)  # nobody gets this answer
    stream.emit(MemberNotice("two"))
    assert await events_after(stream, 0) == [MemberNotice("one"), MemberNotice("two")]
    stream.emit(MemberNotice("three", once=True))
    assert await events_after(stream, 2) == [MemberNotice("three", once=True)]


async def test_a_poll_that_was_given_up_takes_no_event() -> None:
    stream = EventStream()
    abandoned, waiting = (asyncio.create_task(events_after(stream, 0)) for _ in range(2))
    await asyncio.sleep(0)
    stream.emit(MemberNotice("one"))
    assert await waiting == await abandoned == [MemberNotice("one")]


async def test_the_stream_ends_after_its_last_event() -> None:
    stream = EventStream()
    stream.emit(MemberNotice("last"))
    stream.end()
    assert await events_after(stream, 0) == [MemberNotice("last")]
    assert await events_after(stream, 1) == []


async def test_statistics_are_reported_when_more_than_the_cpu_time_has_changed() -> None:
    stream = EventStream()
    for turns, cpu_seconds in ((1, 0.5), (1, 0.6), (2, 0.7)):
        stream.emit_stats(MemberStats(turns=turns), cpu_seconds)
    first, second = await events_after(stream, 0)
    assert first == MemberStats(turns=1, cpu_seconds=0.5)
    assert second == MemberStats(turns=2, cpu_seconds=0.7)
