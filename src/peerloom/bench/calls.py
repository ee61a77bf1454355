"""`peerloom bench calls`: how busy the framework keeps a model that answers over HTTP.

Mini-Coral, six calls and three pattern matches a task, one after the other: teacher, extractor, matcher,
then student, extractor, matcher, then the teacher's three again. Teacher and student resend the whole
conversation, system prompts have about 600 characters, replies about 1,000, with usage. The model is
`peerloom simulate-llm` in a process of its own, every reply after the same latency.

With C tasks in flight and a latency of L seconds no more than C / L calls a second are possible; the
share of that ideal is taken from the arrival of the first call to the reply to the last, ramps included,
by the server's own log. A hop is counted as in `peerloom.bench.hops`.
"""

import asyncio
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from peerloom.agents.function import FunctionAgent
from peerloom.agents.llm import LLMAgent
from peerloom.bench.cpu import CpuMeter
from peerloom.bench.harness import perform, scratch
from peerloom.bench.points import Bench, BenchError, CallsPoint, Setting
from peerloom.runtime.program import Program
from peerloom.services.children import LocalSpawner
from peerloom.services.llm.openai import OpenAIService
from peerloom.services.llm.prose import prose
from peerloom.source.memory import RowsSource
from peerloom.task import Task
from peerloom.workflow import Sequence

LATENCY = 0.5
CALLS = 6  # of a task
REPLY_TOKENS = 250
START_SECONDS = 30.0

QUESTION = """Question: {{ input.question }}
{% for option in input.options %}
({{ "ABCD"[loop.index0] }}) {{ option }}
{% endfor %}"""
SPEAKER = """You are one of two people who work on a multiple-choice question together. Think it through step \
by step, and show every step on which your result depends. Whenever the other one has made a proposal, go over \
each of its steps, name the first one that you hold wrong, and say what you would put in its place. If your own \
work is called into question, look at it again before you defend it: give way where it is wrong, and keep to it \
where it is right. Keep to the subject, be brief, and do not repeat what was said before. Always finish with one \
sentence of the form "The answer is (B).", with the letter of the option that you hold right at that moment."""
EXTRACTOR = """You read what somebody has said about a multiple-choice question, and find out which of its \
options they hold right. Go by what is said in the end: whoever weighs several options, or changes their mind \
on the way, holds the one that they settle on. Do not solve the question yourself, and do not correct anything, \
even if you are sure that it is wrong: only what was said counts. If no option is named but its content is, take \
the letter of the option with that content. If nothing at all is settled, say so. Explain shortly what you went \
by, and finish with one sentence of the form "The answer is (B).", with the letter that you have found."""
STATED = re.compile(r"answer is \(?([A-D])\b")


async def run(setting: Setting) -> CallsPoint:
    """Measure one setting once."""
    with scratch() as folder:
        async with simulated_llm(folder) as (url, pid), CpuMeter(without=pid) as cpu:
            llm = OpenAIService(base_url=url, api_key="none")
            source = questions(setting.tasks)
            work = await perform(program(), source, llm, setting, path=folder / "run", name="bench-calls")
        served = served_in(folder / "calls.jsonl", CALLS * setting.tasks)
    seconds = served.last - served.first
    per_second = served.calls / seconds
    return CallsPoint(
        bench=BENCH.name,
        placement=setting.placement,
        in_flight=setting.in_flight,
        tasks=setting.tasks,
        hops_per_task=work.hops / work.tasks,
        tasks_per_second=work.tasks / seconds,
        latency_seconds=LATENCY,
        calls_per_second=per_second,
        share_of_ideal=per_second / (setting.in_flight / LATENCY),
        cpu_seconds_per_1000_calls=cpu.used(served.first, served.last) * 1_000 / served.calls,
    )


BENCH = Bench(
    name="calls",
    placements=("packed",),
    in_flight=(100, 1_000, 5_000),
    tasks=lambda in_flight: 5 * in_flight,
    runs=1,
    run=run,
)


def program() -> Program:
    """Three models' roles and one pattern, and their fixed order."""
    agents = {
        "teacher": LLMAgent(system=SPEAKER, opening=QUESTION, dialogue=True, say="assistant"),
        "student": LLMAgent(system=SPEAKER, opening=QUESTION, dialogue=True, say="user"),
        "extractor": LLMAgent("{{ last.text }}", system=EXTRACTOR, say=None),
        "matcher": FunctionAgent(stated),
    }
    once = ("extractor", "matcher")
    return Program(Sequence("teacher", *once, "student", *once, "teacher", *once), agents)


def questions(tasks: int) -> RowsSource:
    """Multiple-choice questions, each another one."""
    return RowsSource(
        [
            {"question": prose(240, row), "options": [prose(40, row * 4 + n) for n in range(4)]}
            for row in range(tasks)
        ]
    )


def stated(task: Task) -> str | None:
    """The letter at the end of what the extractor has found."""
    last = task.last
    found: list[str] = STATED.findall(last.value) if last is not None else []
    return found[-1] if found else None


class Served(NamedTuple):
    """What the server's log says: how many calls, and when the first came and the last was answered."""

    calls: int
    first: float
    last: float


class _Call(msgspec.Struct):
    """What is needed of a line of that log."""

    t: float
    received: float
    status: int


def served_in(log: Path, expected: int) -> Served:
    """What the server has served.

    Raises:
        BenchError: if it was anything else than `expected` calls, all answered.
    """
    decoder = msgspec.json.Decoder(_Call)
    calls = decoder.decode_lines(log.read_bytes())
    good = sum(call.status == 200 for call in calls)
    if not good == len(calls) == expected:
        raise BenchError(f"{expected} calls were expected; the model served {len(calls)}, {good} of them well")
    return Served(len(calls), min(call.received for call in calls), max(call.t for call in calls))


@asynccontextmanager
async def simulated_llm(folder: Path) -> AsyncGenerator[tuple[str, int]]:
    """A simulated model in a process of its own, logging to `calls.jsonl`; its URL and process id.

    Raises:
        BenchError: if it does not start.
    """
    options: dict[str, Any] = {
        "port": 0,
        "latency": LATENCY,
        "tokens": REPLY_TOKENS,
        "tokens-sigma": 0,
        "seed": 0,
        "log": folder / "calls.jsonl",
    }
    argv = [sys.executable, "-m", "peerloom.cli", "simulate-llm"]
    argv += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    output = folder / "simulate-llm.log"
    child = await LocalSpawner().start(argv, name="simulate-llm", log=output)
    try:
        yield await _announced(output), child.pid
    finally:
        await child.stop()


async def _announced(output: Path) -> str:
    """The URL that the server prints once it listens."""
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                found = re.search(r"http://\S+", output.read_text())
                if found:
                    return found[0]
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise BenchError(f"the simulated model did not start: {output.read_text().strip()}") from error
