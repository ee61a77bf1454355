"""Load and unload LoRA adapters of a vLLM fleet while it serves.

Each adapter of a fleet is a file in a directory beside the fleet's file: the file name is the adapter's name,
the content the path of the weights. Servers start with all adapters listed there, also after a restart.
"""

import asyncio
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import aiohttp
import orjson

from peerloom.errors import ConfigError, ServiceError
from peerloom.services.fleets.directory import NAME, Entry, read
from peerloom.services.llm.wire_format.failures import message_in
from peerloom.services.secret import Secret, mask

POLL_SECONDS = 0.5
REQUEST_SECONDS = 120.0
"""The timeout of a request, in which a server reads the weights."""


def adapters_of(fleet: Path) -> dict[str, str]:
    """Return the paths of a fleet's adapters by name, sorted."""
    try:
        files = sorted(_directory(fleet).iterdir())
    except OSError:
        return {}
    found: dict[str, str] = {}
    for file in files:
        with suppress(FileNotFoundError):  # removed in the meantime
            found[file.name] = file.read_text()
    return found


def remove_adapters(fleet: Path) -> None:
    """Remove the adapter list of a fleet that has ended."""
    shutil.rmtree(_directory(fleet), ignore_errors=True)


def check_adapter(name: str) -> None:
    """Raise ConfigError unless the name of an adapter is valid; it becomes part of a command line."""
    if NAME.fullmatch(name) is None:
        raise ConfigError(
            f"an adapter cannot be called {name!r}: use letters, digits, '-', '_' and '.', 64 at most"
        )


async def load_adapter(fleet: Path, name: str, weights: str, key: Secret | None) -> None:
    """Load an adapter into all servers of a fleet, and into those started later.

    Waits for servers that are starting; if this is cancelled meanwhile, they load it when they start.

    Args:
        fleet: the fleet's file.
        name: the model name in calls: `llm.model=NAME`. A name cannot be reused for other weights.
        weights: the adapter's directory on each server's machine, or a name on Hugging Face.
        key: the fleet's key, if it has one.

    Raises:
        ConfigError: for an invalid name, or a name that is in use.
        ServiceError: if the fleet takes no adapters, or a server refuses this one; a new one is unloaded.
    """
    check_adapter(name)
    entry = _adaptable(fleet)
    listed = adapters_of(fleet)
    taken = {entry.model: "the fleet's model", **listed}.get(name, weights)
    if taken != weights:
        raise ConfigError(f"{name} is {taken} in fleet {fleet.stem} already: choose another name")
    _list(fleet, name, weights)
    try:
        async with _session(key) as session:
            await _load_into_all(fleet, session, name, weights)
    except ServiceError:
        if name not in listed:  # or calls may be using it
            with suppress(ServiceError):
                await unload_adapter(fleet, name, key)
        raise


async def unload_adapter(fleet: Path, name: str, key: Secret | None) -> None:
    """Remove an adapter from all servers of a fleet; an absent adapter is not an error.

    Raises:
        ConfigError: for an invalid name.
        ServiceError: if the fleet takes no adapters, or a server does not remove it.
    """
    check_adapter(name)
    entry = _adaptable(fleet)
    (_directory(fleet) / name).unlink(missing_ok=True)
    async with _session(key) as session:
        for url in entry.urls:
            if name in await _models(session, url):
                await _send(session, "POST", f"{url}/unload_lora_adapter", {"lora_name": name})


async def _load_into_all(fleet: Path, session: aiohttp.ClientSession, name: str, weights: str) -> None:
    done: set[str] = set()
    while True:
        entry = read(fleet)
        for url in entry.urls:
            if url not in done and name not in await _models(session, url):
                body = {"lora_name": name, "lora_path": weights}
                await _send(session, "POST", f"{url}/load_lora_adapter", body)
            done.add(url)
        # A server that is down may have been started before the list was written.
        if all(endpoint.state in ("up", "lost") for endpoint in entry.endpoints):
            return
        await asyncio.sleep(POLL_SECONDS)


def _list(fleet: Path, name: str, weights: str) -> None:
    """Add an adapter to a fleet's list atomically."""
    scratch = fleet.with_name(f".{fleet.stem}.{os.getpid()}.adapter")
    try:
        _directory(fleet).mkdir(exist_ok=True)
        scratch.write_text(weights)
        scratch.replace(_directory(fleet) / name)
    except OSError as error:
        raise ServiceError(f"{_directory(fleet)} cannot be written: {error.strerror}") from error


def _adaptable(fleet: Path) -> Entry:
    entry = read(fleet)
    if not entry.lora:
        raise ServiceError(
            f"fleet {fleet.stem} takes no adapters: start it with `peerloom serve up`, engine=vllm lora=true"
        )
    return entry


def _directory(fleet: Path) -> Path:
    return fleet.with_name(f".{fleet.stem}.adapters")


def _session(key: Secret | None) -> aiohttp.ClientSession:
    headers = {} if key is None else {"Authorization": f"Bearer {key.reveal()}"}
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS))


async def _models(session: aiohttp.ClientSession, url: str) -> set[str]:
    """Return the names that a server lists."""
    listed = orjson.loads(await _send(session, "GET", f"{url}/models"))
    return {model["id"] for model in listed["data"]}


async def _send(
    session: aiohttp.ClientSession, method: str, url: str, body: Mapping[str, str] | None = None
) -> bytes:
    try:
        async with session.request(method, url, json=body) as response:
            answer = await response.read()
    except (TimeoutError, aiohttp.ClientError) as error:
        raise ServiceError(f"{url} does not answer: {mask(str(error)) or 'timeout'}") from error
    if response.status != 200:
        raise ServiceError(f"{url} answered HTTP {response.status}: {mask(message_in(answer))}")
    return answer
