"""A key is in no file and no message, though the provider quotes it wherever it can."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

import peerloom
from peerloom.events import Hooks, Notice
from peerloom.services.secret import Secret

KEY = "sk-this-must-not-be-found-anywhere"
SAYS = f"you sent Authorization: Bearer {KEY}"


class Hears(Hooks):
    """Everything that is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, event: Notice) -> None:
        self.texts.append(event.text)


def response(status: int, body: bytes, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} {SAYS}\r\nContent-Length: {len(body)}\r\nX-Echo: {KEY}\r\n{headers}\r\n"
    return head.encode() + body


def failing(status: int) -> bytes:
    return response(status, orjson.dumps({"error": {"message": SAYS, "code": KEY}}))


def answering() -> bytes:
    message = {"role": "assistant", "content": SAYS, "reasoning_content": f"the key is {KEY}"}
    choice = {"message": message, "finish_reason": "stop"}
    return response(200, orjson.dumps({"model": f"m of {KEY}", "choices": [choice]}))


def escaping() -> bytes:
    """A reply whose characters are all escaped, so that the key shows only when it is decoded."""
    text = "".join(f"\\u{ord(letter):04x}" for letter in SAYS)
    return response(200, b'{"choices": [{"message": {"content": "' + text.encode() + b'"}}]}')


class Tells:
    """An agent that puts the key where it can."""

    async def act(self, task: peerloom.Task, services: peerloom.Services) -> peerloom.Turn:
        if task.input["n"] % 4 == 0:
            raise ValueError(KEY)
        reason = f"because of {KEY}" if task.input["n"] % 4 == 1 else ""
        end = peerloom.End("filtered", reason, detail=KEY) if reason else None
        return peerloom.Turn("", {"role": "assistant", "content": KEY}, {KEY: [KEY, 1]}, end)


ANSWERS = (
    failing(400),
    failing(500),
    failing(422),
    response(200, f"<html>{SAYS}</html>".encode()),
    response(200, orjson.dumps({"error": {"code": 400, "message": SAYS}})),
    response(308, b"", f"Location: https://elsewhere/?key={KEY}\r\n"),
    f"HTTP/1.1 nonsense {SAYS}\r\n\r\n".encode(),
    answering(),
    escaping(),
)


@asynccontextmanager
async def quoting_provider() -> AsyncIterator[str]:
    """Lists a model; each chat gets the next of `ANSWERS`."""
    answers = itertools.cycle(ANSWERS)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                assert KEY.encode() in head
                writer.write(response(200, b'{"data": [{"id": "m"}]}'))
            else:
                writer.write(next(answers))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


def holding(key: str, folders: Iterable[Path]) -> list[Path]:
    """The files in which the key stands."""
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return [file for file in files if key.encode() in file.read_bytes()]


async def test_a_key_is_in_no_file_and_no_message(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    hears = Hears()
    async with quoting_provider() as url:
        ran = await peerloom.arun(
            workflow=peerloom.Sequence("writer"),
            agents={"writer": peerloom.LLMAgent("Write about {{ input.n }}.")},
            source=[{"n": number} for number in range(40)],
            llm="openai",
            config={"llm.base_url": url, "llm.max_retries": 1, "llm.routing.eject_after": 1000},
            run_dir=tmp_path / "run",
            engine=engine,
            hooks=[hears],
        )
    assert ran.summary["outcomes"]["failed"] and ran.summary["outcomes"]["completed"]
    details = [row["detail"] for row in ran.rows(rejected=True) if row["outcome"] == "failed"]
    assert any("***" in detail for detail in details), "the provider was quoted, without the key"
    assert holding(KEY, [tmp_path, *_ray_logs(engine)]) == []
    assert not [text for text in hears.texts if KEY in text]
    assert KEY not in "".join(capfd.readouterr())


def _ray_logs(engine: str) -> list[Path]:
    if engine == "local":
        return []
    import ray

    return [Path(ray._private.worker._global_node.get_logs_dir_path())]


async def test_a_key_that_an_agent_tells_is_in_no_row(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with quoting_provider() as url:
        ran = await peerloom.arun(
            workflow=peerloom.Sequence("teller"),
            agents={"teller": Tells()},
            source=[{"n": number} for number in range(8)],
            llm="openai",
            config={"llm.base_url": url},
            run_dir=tmp_path / "run",
            engine=engine,
        )
    assert ran.summary["outcomes"] == {"completed": 4, "filtered": 2, "failed": 2}
    assert ran.summary["reasons"]["because of ***"] == 2
    rows = list(ran.rows(rejected=True))
    assert sum(row["turns"][-1].get("value") == {"***": ["***", 1]} for row in rows if row["turns"]) == 6
    assert [path for path in holding(KEY, [tmp_path / "run"]) if path.parent.name != "journal"] == []


def test_a_key_that_is_also_a_number_spoils_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEERLOOM_TEST_KEY", "1234567890")
    held = Secret.from_env("PEERLOOM_TEST_KEY")
    ran = peerloom.run(
        workflow=peerloom.Sequence("echo"),
        agents={"echo": peerloom.FunctionAgent(lambda task: task.input)},
        source=[{"number": 1234567890, "text": "the key is 1234567890"}],
        run_dir=tmp_path / "run",
        engine="local",
    )
    (row,) = ran.rows()
    assert row["result"] == {"number": 1234567890, "text": "the key is ***"}
    del held
