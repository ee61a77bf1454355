"""`tau`: a model and a tool take turns, up to 50 each; a step of the tool is a line to a process and back."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import orjson

from benchmarks.workloads.base import Rows, Workload
from benchmarks.workloads.mini_coral import SPEAKER
from peerloom.agents.function import FunctionAgent
from peerloom.agents.llm import LLMAgent
from peerloom.runtime.program import Program
from peerloom.services.llm.simulated.prose import prose
from peerloom.task import Task, Turn
from peerloom.workflow import Loop

REQUEST = "{{ input.request }}"
MOST = 50  # rounds; the row says how many


def requests(count: int) -> Rows:
    """Yield requests, each with the length of its dialogue."""
    for number in range(count):
        rng = Random(number)
        exchanges = min(MOST, max(5, round(rng.lognormvariate(3.0, 0.6))))
        yield {"request": prose(400, number), "exchanges": exchanges}


class Tool:
    """A pool of processes that answer one line at a time; they start with the first question."""

    def __init__(self, path: str, count: int) -> None:
        self._path = path
        self._count = count
        self._free: asyncio.Queue[Process] | None = None

    async def ask(self, dialogue: str, text: str) -> str:
        """Ask the tool, and return its answer."""
        if self._free is None:
            self._free = asyncio.Queue()
            for _ in range(self._count):
                self._free.put_nowait(await self._start())
        process = await self._free.get()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(orjson.dumps({"dialogue": dialogue, "text": text}) + b"\n")
        line = await process.stdout.readline()
        self._free.put_nowait(process)
        answer: dict[str, Any] = orjson.loads(line)
        return answer["text"]

    async def _start(self) -> Process:
        command = [sys.executable, "-I", "-S", self._path]
        return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)


@dataclass(frozen=True)
class ToolAgent:
    """The tool's side of the dialogue; the processes belong to the peer it runs in."""

    path: str
    count: int

    async def act(self, task: Task) -> Turn:
        """Take one step of the tool."""
        last = task.last
        text = await _tool(self.path, self.count).ask(str(task.id), last.text if last else "")
        return Turn(agent="", message={"role": "user", "content": text})


_tools: dict[str, Tool] = {}


def _tool(path: str, count: int) -> Tool:
    """Return the tool of this process: a peer is one process, and agents keep nothing."""
    return _tools.setdefault(path, Tool(path, count))


def over(task: Task) -> bool:
    """Return whether the dialogue is as long as its row says."""
    return task.header.hop >= 2 * task.input["exchanges"]


def program(system: str, tool: str, count: int) -> Program:
    """Return the model and the tool, in turn."""
    agents = {
        "assistant": LLMAgent(system=system, opening=REQUEST, dialogue=True, chat_role="assistant"),
        "tool": FunctionAgent(ToolAgent(tool, count).act),
    }
    return Program(Loop("assistant", "tool", until=over, max_rounds=MOST), agents)


TAU = Workload(
    "tau",
    requests,
    lambda rows: sum(row["exchanges"] for row in rows),
    {"tokens": 40},
    {"system": SPEAKER, "tool": str(Path(__file__).with_name("tool.py")), "tools": 8},
)
