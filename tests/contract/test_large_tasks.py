"""What travels of a large task does not change what becomes of it."""

from pathlib import Path
from typing import Any

import pytest
from programs import debate, stable

from peerloom.protocol.messages import Deliver, Delivered, Item
from peerloom.protocol.shard import ShardCommitter
from peerloom.runtime.engines.local import LocalEngine
from peerloom.runtime.transport.deltas import DeltaCodec
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.task import Header, Task
from peerloom.testing import execute

ROWS = [{"document": f"{number} " * 20_000} for number in range(12)]
FEW = 0.3  # megabytes: of the twelve tasks, two or three


async def rows_of(path: Path, **settings: Any) -> list[dict[str, Any]]:
    done = await execute(debate(), ROWS, SimulatedService(), path, placement="spread", **settings)
    assert done.summary["outcomes"] == {"completed": 12}
    assert all(row["timing"]["hops"] == 12 for row in done.rows)
    return [stable(row) for row in done.rows]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import asyncio

    return asyncio.run(rows_of(tmp_path_factory.mktemp("whole") / "run", histories=0, in_flight=1))


@pytest.mark.parametrize(
    ("engine", "most"),
    [("local", 128), ("local", 0), ("local", FEW), pytest.param("ray", FEW, marks=pytest.mark.slow)],
    indirect=["engine"],
)
async def test_rows_are_the_same_with_histories_without_and_with_hardly_any(
    most: float, engine: str, tmp_path: Path, expected: Any
) -> None:
    assert await rows_of(tmp_path / "run", engine=engine, histories=most) == expected


@pytest.mark.parametrize("forgets", [False, True])
async def test_a_document_crosses_once_to_each_peer_or_again_if_it_was_forgotten(
    forgets: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Any
) -> None:
    crossed: list[int] = []
    missing: list[Header] = []
    send, unpack = LocalEngine.send, DeltaCodec._unpack

    async def noted(engine: LocalEngine, to: str, data: bytes) -> bytes:
        if to.startswith("peer-"):
            crossed.append(sum(data.count(row["document"].encode()) for row in ROWS))
        return await send(engine, to, data)

    def forgetful(codec: DeltaCodec, sender: str, item: Item, delta: Any) -> Task | None:
        if forgets:
            codec.drop(item.header)
        task = unpack(codec, sender, item, delta)
        if task is None:
            missing.append(item.header)
        return task

    monkeypatch.setattr(LocalEngine, "send", noted)
    monkeypatch.setattr(DeltaCodec, "_unpack", forgetful)
    assert await rows_of(tmp_path / "run") == expected

    hops, peers = 12, 3
    assert len(missing) == (hops - peers if forgets else 0) * len(ROWS)
    assert sum(crossed) == (hops if forgets else peers) * len(ROWS)


@pytest.mark.parametrize("forgets", [False, True])
async def test_the_row_of_a_large_task_is_made_on_its_sinks_host_if_a_peer_there_has_seen_it(
    forgets: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Any
) -> None:
    senders: set[str] = set()
    deliver, unpack = ShardCommitter.deliver, DeltaCodec._unpack

    def noted(shard: ShardCommitter, message: Deliver) -> Delivered:
        senders.add(message.sender)
        return deliver(shard, message)

    def forgetful(codec: DeltaCodec, sender: str, item: Item, delta: Any) -> Task | None:
        codec.drop(item.header)
        return unpack(codec, sender, item, delta)

    def host_of(engine: LocalEngine, member: str) -> str:
        return "far" if member in last else "near"

    monkeypatch.setattr(ShardCommitter, "deliver", noted)
    monkeypatch.setattr(LocalEngine, "host_of", host_of)
    last: set[str] = set()
    assert await rows_of(tmp_path / "one") == expected
    last |= senders
    assert len(last) == 1  # the peer of the role that comes last

    senders.clear()
    assert await rows_of(tmp_path / "small", histories=0) == expected
    assert senders == last

    senders.clear()
    if forgets:
        monkeypatch.setattr(DeltaCodec, "_unpack", forgetful)
    assert await rows_of(tmp_path / "large") == expected
    assert senders.isdisjoint(last)
    assert senders
