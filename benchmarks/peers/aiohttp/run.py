"""What a user would write by hand: one event loop, aiohttp, orjson, uvloop; no journal, nothing is kept."""

import resource
import sys
from pathlib import Path

import aiohttp
import orjson
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "common"))
import work

RESERVE = 256  # open files that are no connections


async def main(spec):
    url, headers = f"{spec.url}/chat/completions", {"content-type": "application/json"}
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    connector = aiohttp.TCPConnector(limit=files - RESERVE)
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(None)
    ) as session:

        async def chat(messages, max_tokens):
            body = {"model": spec.model, "messages": messages}
            if max_tokens is not None:
                body["max_tokens"] = max_tokens
            async with session.post(url, data=orjson.dumps(body)) as response:
                response.raise_for_status()
                reply = orjson.loads(await response.read())
            return reply["choices"][0]["message"]["content"]

        await work.loop(spec, chat)


uvloop.run(main(work.spec()))
