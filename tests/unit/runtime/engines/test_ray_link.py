"""Members on Ray reach each other by their own connections, and by actor calls where there are none."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from peerloom.protocol.view import Member
from peerloom.runtime.engines.ray import actor
from peerloom.runtime.engines.ray.actor import RayLink
from peerloom.runtime.member.spec import MemberSpec
from peerloom.runtime.program import Program
from peerloom.runtime.settings import RunSettings
from peerloom.runtime.transport.base import Unreachable
from peerloom.runtime.transport.compression import Compress, Packer
from peerloom.runtime.transport.connections import Address, MemberListener
from peerloom.runtime.transport.tls import Credentials
from peerloom.workflow import Sequence

CREDENTIALS = Credentials.create()


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


async def test_a_message_goes_over_a_connection() -> None:
    listener, handle, link = (
        MemberListener(CREDENTIALS, lambda data: data[::-1]),
        Handle(),
        RayLink(CREDENTIALS),
    )
    assert await say(link, handle, await listener.open("127.0.0.1")) == b"cba"
    assert await asyncio.gather(link.send("peer-0.1", b"de"), link.send("peer-0.1", b"fg")) == [b"ed", b"gf"]
    assert handle.calls == 0
    link.close()
    listener.close()


@pytest.mark.parametrize("local", ["", "/nowhere/member"])
async def test_where_none_can_be_made_it_is_an_actor_call(local: str) -> None:
    handle, link = Handle(), RayLink(CREDENTIALS)
    assert await say(link, handle, Address("127.0.0.1", local=local)) == b"ABC"
    assert await link.send("peer-0.1", b"de") == b"DE"
    assert handle.calls == 2


async def test_what_was_on_its_way_when_a_connection_broke_is_not_sent_again() -> None:
    listener, handle, link = (
        MemberListener(CREDENTIALS, lambda _: listener.close() or b""),
        Handle(),
        RayLink(CREDENTIALS),
    )
    with pytest.raises(Unreachable):
        await say(link, handle, await listener.open("127.0.0.1"))
    assert handle.calls == 0
    link.close()


def test_a_member_is_on_the_host_of_its_address() -> None:
    link = RayLink(CREDENTIALS)
    link.introduce({"peer-0.1": Handle()}, {"peer-0.1": Address("10.0.0.7", 5)})
    assert link.host_of("peer-0.1") == "10.0.0.7"
    assert link.host_of("peer-1.1") == ""


async def test_whoever_is_not_known_is_unreachable() -> None:
    with pytest.raises(Unreachable, match=r"peer-9\.1"):
        await RayLink(CREDENTIALS).send("peer-9.1", b"abc")


@pytest.mark.parametrize(("compress", "packed"), [("always", True), ("auto", False)])
async def test_what_is_sent_is_compressed_as_the_run_says(
    compress: Compress, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def build(spec: MemberSpec, link: RayLink) -> None:
        links.append(link)
        raise Stop

    pieces, links = list[bytes](), list[RayLink]()
    pack = Packer.pack
    monkeypatch.setattr(Packer, "pack", lambda self, data: pieces.append(data) or pack(self, data))
    monkeypatch.setattr(actor, "build", build)
    spec = MemberSpec(
        Member("peer", 0, 1), Program(Sequence("a"), {}), RunSettings(compress=compress), Path(), {}
    )
    with pytest.raises(Stop):
        await actor.MemberActor(CREDENTIALS, []).run(spec)
    (link,) = links
    listener = MemberListener(CREDENTIALS, lambda data: data[:1])
    link.introduce({"peer-0.1": Handle()}, {"peer-0.1": await listener.open("127.0.0.1")})
    assert await link.send("peer-0.1", b"a" * 5_000) == b"a"
    assert bool(pieces) is packed
    link.close()
    listener.close()
