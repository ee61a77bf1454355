"""The same loop with the client that most people use; its limit of connections is lifted."""

import asyncio
import sys
from pathlib import Path

import openai

sys.path.insert(0, str(Path(__file__).parents[1] / "common"))
import work


async def main(spec):
    client = openai.AsyncOpenAI(base_url=spec.url, api_key="none", timeout=3_600, max_retries=0)

    async def chat(messages, max_tokens):
        more = {} if max_tokens is None else {"max_tokens": max_tokens}
        reply = await client.chat.completions.create(model=spec.model, messages=messages, **more)
        return reply.choices[0].message.content

    await work.loop(spec, chat)


asyncio.run(main(work.spec()))
