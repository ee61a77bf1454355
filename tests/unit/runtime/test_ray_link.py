"""Members on Ray reach each other by their own connections, and by actor calls where there are none."""

import asyncio
from typing import Any

import pytest

from peerloom.runtime.direct import Address, Door
from peerloom.runtime.link import Unreachable
from peerloom.runtime.ray.actor import RayLink

SECRET = b"s" * 32


class Handle:
    """An actor that answers every call in capitals."""

    def __init__(self) -> None:
        self.receive = self
        self.calls = 0

    async def remote(self, data: bytes) -> bytes:
        self.calls += 1
        return data.upper()


async def say(link: RayLink, handle: Any, address: Address) -> bytes:
    link.introduce({"peer-0.1": handle}, {"peer-0.1": address})
    return await link.send("peer-0.1", b"abc")


async def test_a_message_goes_through_the_door() -> None:
    door, handle, link = Door(SECRET, lambda data: data[::-1]), Handle(), RayLink(SECRET)
    assert await say(link, handle, await door.open("127.0.0.1")) == b"cba"
    assert await asyncio.gather(link.send("peer-0.1", b"de"), link.send("peer-0.1", b"fg")) == [b"ed", b"gf"]
    assert handle.calls == 0
    link.close()
    door.close()


@pytest.mark.parametrize("port", [0, 1])
async def test_where_there_is_no_door_it_is_an_actor_call(port: int) -> None:
    handle, link = Handle(), RayLink(SECRET)
    assert await say(link, handle, Address("127.0.0.1", port)) == b"ABC"
    assert await link.send("peer-0.1", b"de") == b"DE"
    assert handle.calls == 2


async def test_what_was_on_its_way_when_a_connection_broke_is_not_sent_again() -> None:
    door, handle, link = Door(SECRET, lambda _: door.close() or b""), Handle(), RayLink(SECRET)
    with pytest.raises(Unreachable):
        await say(link, handle, await door.open("127.0.0.1"))
    assert handle.calls == 0
    link.close()


async def test_whoever_is_not_known_is_unreachable() -> None:
    with pytest.raises(Unreachable, match=r"peer-9\.1"):
        await RayLink(SECRET).send("peer-9.1", b"abc")
