"""A run is steered while it goes on, from another process, on both engines."""

import asyncio
import contextlib
import json
import os
import signal
import stat
from pathlib import Path

import pytest
from programs import Talker
from steering import Steered, going

from peerloom.control.client import Channel, NotRunning, find, last_state
from peerloom.control.protocol import seal
from peerloom.errors import ConfigError, EngineError
from peerloom.runtime.program import Program
from peerloom.services.secret import Secret
from peerloom.workflow import Sequence

ROWS = [{"n": number} for number in range(12)]


def calls(turns: int) -> Program:
    """So many turns, each of one call."""
    roles = [f"turn{index}" for index in range(turns)]
    return Program(Sequence(*roles), {role: Talker() for role in roles})


async def end(run: Steered, rows: int) -> None:
    """Let the run end by itself, with so many rows."""
    run.model.open()
    summary = await run.ending
    assert summary["outcomes"] == {"completed": rows}
    assert len(run.rows()) == rows


@pytest.mark.parametrize(
    ("engine", "placement"),
    [("local", "packed"), ("local", "spread"), pytest.param("ray", "spread", marks=pytest.mark.slow)],
    indirect=True,
)
async def test_a_pause_begins_nothing_and_continue_goes_on(
    engine: str, placement: str, tmp_path: Path
) -> None:
    async with going(
        calls(3), ROWS, tmp_path / "run", engine=engine, placement=placement, in_flight=4
    ) as run:
        await run.model.until_waiting(4)
        assert (await run.ask("pause"))["state"] == "paused"
        run.model.release()
        await run.watch.until(lambda snapshot: bool(snapshot.paused) and snapshot.turns == 0)
        await run.watch.next()
        status = await run.ask("status")
        assert run.model.calls == 4
        assert (status["state"], status["in_flight"], status["turns"]) == ("paused", 4, 0)
        assert status["session"] == 1
        assert status["rates"]["seconds_left"] is None
        assert (await run.ask("pause"))["state"] == "paused"  # again: no harm
        assert (await run.ask("continue"))["state"] == "running"
        assert (await run.ask("continue"))["state"] == "running"
        await end(run, 12)
        assert run.model.calls == 36
        told = [text for text in run.watch.notices if "paus" in text or "continuing" in text]
        assert [text.partition(":")[0].partition(" from ")[0] for text in told] == [
            "paused",
            "ctl pause",
            "continuing",
            "ctl continue",
        ]
        assert all(" from " in text for text in told if text.startswith("ctl"))


@pytest.mark.slow
async def test_a_long_pause_asks_for_no_census(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with going(calls(1), ROWS, tmp_path / "run", engine="local", in_flight=2) as run:
        await run.model.until_waiting(2)
        await run.ask("pause")
        monkeypatch.setattr("peerloom.runtime.driver.stats.CENSUS_SECONDS", 0.0)
        views = len(run.watch.views)
        for _ in range(3):
            await run.watch.next()
        assert len(run.watch.views) == views
        await run.ask("continue")
        while len(run.watch.views) == views:  # now it does, since no row comes
            await run.watch.next()
        await end(run, 12)


@pytest.mark.slow
async def test_whoever_replaces_a_member_is_paused_too(ray_cluster: None, tmp_path: Path) -> None:
    async with going(calls(2), ROWS, tmp_path / "run", engine="ray", in_flight=4) as run:
        await run.model.until_waiting(4)
        await run.ask("pause")
        run.model.release()
        await run.watch.until(lambda snapshot: bool(snapshot.paused) and snapshot.turns == 0)
        before = run.model.calls
        pids = {member["name"]: member["pid"] for member in (await run.ask("status"))["members"]}
        os.kill(pids["peer-0.1"], signal.SIGKILL)
        os.kill(pids["feeder-0.1"], signal.SIGKILL)
        while not {"peer-0.2", "feeder-0.2"} <= set(run.watch.views[-1].members):
            await run.watch.next()
        for _ in range(3):
            await run.watch.next()
        assert run.model.calls == before
        assert (await run.ask("status"))["state"] == "paused"
        await run.ask("continue")
        await end(run, 12)


async def test_in_flight_is_raised_and_lowered(engine: str, tmp_path: Path) -> None:
    async with going(calls(1), ROWS * 4, tmp_path / "run", engine=engine, in_flight=2, partitions=2) as run:
        await run.model.until_waiting(2)
        told = await run.ask("set", {"key": "in_flight", "value": "5"})
        assert told["told"] == "in_flight is 5"
        await run.model.until_waiting(5)  # also more calls at once than the client was made for
        await run.ask("set", {"key": "in_flight", "value": "3"})
        run.model.release()
        await run.watch.until(lambda snapshot: snapshot.outcomes == {"completed": 5})
        await run.model.until_waiting(3)
        run.model.peak = 0
        run.model.release()
        await run.watch.until(lambda snapshot: snapshot.outcomes == {"completed": 8})
        await run.model.until_waiting(3)
        assert run.model.peak == 3
        assert (await run.ask("status"))["settings"]["in_flight"] == 3
        await end(run, 48)
        assert "in_flight is now 5, it was 2" in run.watch.notices


async def test_what_cannot_be_set_is_refused_by_name(tmp_path: Path) -> None:
    async with going(calls(1), ROWS, tmp_path / "run", engine="local", in_flight=2, partitions=2) as run:
        for key, value, message in (
            ("seed", "3", "seed cannot be set.*only in_flight, heartbeat_seconds, suspect_seconds can"),
            (
                "in_flight",
                "1",
                "in_flight=1: must be a whole number, at least 2 and at most 1,000,000, one for each",
            ),
            ("in_flight", "many", "in_flight=many: must be a whole number"),
            ("suspect_seconds", "nan", "suspect_seconds=nan: must be a number of seconds above 0"),
        ):
            with pytest.raises(ConfigError, match=message):
                await run.ask("set", {"key": key, "value": value})
        with pytest.raises(ConfigError, match=r'must be {"key": text, "value": text}'):
            await run.ask("set", {"key": "in_flight"})
        await run.ask("set", {"key": "suspect_seconds", "value": "20"})
        assert (await run.ask("status"))["settings"]["suspect_seconds"] == 20.0


async def test_drain_finishes_what_is_in_flight(engine: str, tmp_path: Path) -> None:
    async with going(calls(2), ROWS, tmp_path / "run", engine=engine, in_flight=3) as run:
        await run.model.until_waiting(3)
        assert (await run.ask("drain"))["state"] == "draining"
        await run.ask("drain")
        await end(run, 3)
    assert last_state(tmp_path / "run")["state"] == "drained"


async def test_drain_ends_a_pause(tmp_path: Path) -> None:
    async with going(calls(2), ROWS, tmp_path / "run", engine="local", in_flight=3) as run:
        await run.model.until_waiting(3)
        await run.ask("pause")
        assert (await run.ask("drain"))["state"] == "draining"
        await end(run, 3)


async def test_cancel_stops_at_once_and_keeps_the_rows(engine: str, tmp_path: Path) -> None:
    async with going(calls(1), ROWS, tmp_path / "run", engine=engine, in_flight=3) as run:
        await run.model.until_waiting(3)
        run.model.release()
        await run.model.until_waiting(3)
        assert (await run.ask("cancel"))["state"] == "stopping"
        summary = await run.ending
        assert summary["admitted"] == len(run.rows()) == 3
        assert len(run.model.waiting) == 3
    with pytest.raises(NotRunning, match="peerloom resume"):
        find(tmp_path / "run")


async def test_the_token_is_in_one_file_for_one_user(tmp_path: Path) -> None:
    async with going(calls(1), ROWS, tmp_path / "run", engine="local", in_flight=3) as run:
        await run.model.until_waiting(3)
        control = run.run_dir / ".peerloom/control.json"
        assert stat.S_IMODE(control.stat().st_mode) == 0o600
        content = json.loads(control.read_text())
        assert content["address"].startswith("127.0.0.1:")
        wrong = Channel(content["address"], Secret("wrong"))
        with pytest.raises(EngineError, match="refuses: the token is not this run's"):
            await run.ask("cancel", channel=wrong)
        status = await run.ask("status")
        assert status["state"] == "running"
        await end(run, 12)
        assert not control.exists()
        token = content["token"].encode()
        files = [path for path in run.run_dir.rglob("*") if path.is_file()]
        assert len(files) > 5
        assert not [path for path in files if token in path.read_bytes()]
        assert token.decode() not in json.dumps(status)
    with pytest.raises(NotRunning, match="run is finished"):
        find(run.run_dir)


async def test_a_malformed_request_does_no_harm(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with going(calls(1), ROWS, tmp_path / "run", engine="local", in_flight=3) as run:
        host, _, port = find(run.run_dir).address.partition(":")
        for data, answer in (
            (b"\x16\x03\x01\x02\x00\x01nonsense\r\n\r\n", b"refused\n"),
            (b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n", b"refused\n"),
            (b"\n", b"refused\n"),
            (b"x" * 100_000 + b"\n", b""),
        ):
            reader, writer = await asyncio.open_connection(host, int(port))
            nonce = await reader.readline()
            assert len(nonce) > 16
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                assert await reader.readline() == answer
            writer.close()
        with pytest.raises(ConfigError, match="there is no command 'dance'"):
            await run.ask("dance")
        await end(run, 12)
    assert capfd.readouterr() == ("", "")


async def test_a_recorded_request_is_refused(tmp_path: Path) -> None:
    async with going(calls(1), ROWS, tmp_path / "run", engine="local", in_flight=3) as run:
        channel = find(run.run_dir)
        host, _, port = channel.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        recorded = seal(channel.token, "request", await reader.readline(), {"verb": "cancel"})
        writer.close()
        for _ in range(2):
            reader, writer = await asyncio.open_connection(host, int(port))
            await reader.readline()
            writer.write(recorded)
            assert await reader.readline() == b"refused\n"
            writer.close()
        assert (await run.ask("status"))["state"] == "running"
        await end(run, 12)


async def test_idle_connections_are_closed_and_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("peerloom.control.server.MAX_CONNECTIONS", 8)
    monkeypatch.setattr("peerloom.control.server.REQUEST_SECONDS", 0.5)
    async with going(calls(1), ROWS, tmp_path / "run", engine="local", in_flight=3) as run:
        host, _, port = find(run.run_dir).address.partition(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(30)]
        for number, (_, writer) in enumerate(idle):
            writer.write((b"", b"0123 {")[number % 2])
        admitted = 0
        for reader, writer in idle:
            with contextlib.suppress(ConnectionError):
                admitted += (await reader.read()).endswith(b"\n")
            writer.close()
        assert admitted == 8
        assert (await run.ask("status"))["state"] == "running"
        left = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        await end(run, 12)
        for _, writer in left:
            writer.close()
    assert capfd.readouterr() == ("", "")
