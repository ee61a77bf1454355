"""Mini-coral as a round-robin group chat of four agents for each task, nine turns."""

import asyncio
import sys
import time
from pathlib import Path

from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import ModelFamily, SystemMessage, UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient

sys.path.insert(0, str(Path(__file__).parents[1] / "common"))
import work


class Reader(BaseChatAgent):
    """Extractor, a call of the model about the last statement only; or matcher, a pattern."""

    def __init__(self, name, spec, client=None):
        super().__init__(name, "Reads a statement.")
        self._spec = spec
        self._client = client

    @property
    def produced_message_types(self):
        return (TextMessage,)

    async def on_messages(self, messages, cancellation_token):
        text = messages[-1].content
        if self._client is None:
            found = work.letter(self._spec, text) or "none"
        else:
            asked = [SystemMessage(content=self._spec.extractor), UserMessage(content=text, source="user")]
            found = (await self._client.create(asked)).content
        return Response(chat_message=TextMessage(content=found, source=self.name))

    async def on_reset(self, cancellation_token):
        pass


async def dialogue(spec, client, row):
    """One task, with a team of its own."""
    speaker = {"model_client": client, "system_message": spec.speaker}
    members = [
        AssistantAgent("teacher", **speaker),
        Reader("extractor1", spec, client),
        Reader("matcher1", spec),
        AssistantAgent("student", **speaker),
        Reader("extractor2", spec, client),
        Reader("matcher2", spec),
    ]
    team = RoundRobinGroupChat(members, termination_condition=MaxMessageTermination(10))
    return await team.run(task=work.opening(row))


async def main(spec):
    client = OpenAIChatCompletionClient(
        model=spec.model,
        base_url=spec.url,
        api_key="none",
        max_retries=0,
        timeout=3_600,
        model_info={
            "vision": False,
            "function_calling": False,
            "json_output": False,
            "structured_output": False,
            "family": ModelFamily.UNKNOWN,
        },
    )
    left, results = iter(spec.rows_), []

    async def worker():
        for row in left:
            results.append(len((await dialogue(spec, client, row)).messages))

    begin = time.time()
    await asyncio.gather(*(worker() for _ in range(min(spec.in_flight, spec.tasks))))
    assert results == [10] * spec.tasks, results[:5]
    work.said(begin, len(results))


asyncio.run(main(work.spec()))
