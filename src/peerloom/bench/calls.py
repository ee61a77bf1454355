"""`peerloom bench calls`: how busy the framework keeps a model that answers over HTTP.

Mini-Coral, six calls and three pattern matches a task, one after the other: teacher, extractor, matcher,
then student, extractor, matcher, then the teacher's three again. Teacher and student resend the whole
conversation, system prompts have about 600 characters, replies about 1,000, with usage. The model is
`peerloom simulate-llm` in a process of its own, every reply after the same latency.

With C tasks in flight and a latency of L seconds no more than C / L calls a second are possible; the
share of that ideal is taken from the arrival of the first call to the reply to the last, ramps included,
by the model's own log. A hop is counted as in `peerloom.bench.hops`.
"""

import re
from collections.abc import Iterator
from typing import Any

from peerloom.agents.function import FunctionAgent
from peerloom.agents.llm import LLMAgent
from peerloom.bench.cpu import CpuMeter
from peerloom.bench.harness import common, perform, scratch
from peerloom.bench.model import served, simulated_llm
from peerloom.bench.points import Bench, CallsPoint, Setting
from peerloom.runtime.program import Program
from peerloom.services.llm.openai import OpenAIService
from peerloom.services.llm.prose import prose
from peerloom.source.memory import RowsSource
from peerloom.task import Task
from peerloom.workflow import Sequence

LATENCY = 0.5
CALLS = 6  # of a task
REPLY_TOKENS = 250
LETTERS = "ABCD"

QUESTION = """Question: {{ input.question }}
{% for option in input.options %}
({{ "ABCD"[loop.index0] }}) {{ option }}
{% endfor %}"""
SPEAKER = """\
You are one of two people who work on a multiple-choice question together. Think it through step by step, and
show every step on which your result depends. Whenever the other one has made a proposal, go over each of its
steps, name the first one that you hold wrong, and say what you would put in its place. If your own work is
called into question, look at it again before you defend it: give way where it is wrong, and keep to it where
it is right. Keep to the subject, be brief, and do not repeat what was said before. Always finish with one
sentence of the form "The answer is (B).", with the letter of the option that you hold right."""
EXTRACTOR = """\
You read what somebody has said about a multiple-choice question, and find out which option they hold right.
Go by what is said in the end: whoever weighs several options, or changes their mind on the way, holds the one
that they settle on. Do not solve the question yourself, and do not correct anything, even if you are sure
that it is wrong: only what was said counts. If no option is named but its content is, take the letter of the
option with that content. If nothing at all is settled, say so. Explain shortly what you went by, and finish
with one sentence of the form "The answer is (B).", with the letter that you have found."""
STATED = re.compile(rf"answer is \(?([{LETTERS}])\b")


async def run(setting: Setting) -> CallsPoint:
    """Measure one setting once."""
    with scratch() as folder:
        log = folder / "calls.jsonl"
        async with (
            simulated_llm(log, latency=LATENCY, tokens=REPLY_TOKENS) as (url, pid),
            CpuMeter(without=pid) as cpu,
        ):
            llm, source = OpenAIService(base_url=url, api_key="none"), questions(setting.tasks)
            work = await perform(program(), source, llm, setting, path=folder / "run", name="bench-calls")
        calls, first, last, _ = served(log, CALLS * setting.tasks)
    per_second = calls / (last - first)
    return CallsPoint(
        **common(BENCH, setting, work),
        latency_seconds=LATENCY,
        calls_per_second=per_second,
        share_of_ideal=per_second / (setting.in_flight / LATENCY),
        cpu_seconds_per_1000_calls=cpu.used(first, last) * 1_000 / calls,
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
    """Three roles for the model and one for a pattern, in their fixed order."""
    agents = {
        "teacher": LLMAgent(system=SPEAKER, opening=QUESTION, dialogue=True, say="assistant"),
        "student": LLMAgent(system=SPEAKER, opening=QUESTION, dialogue=True, say="user"),
        "extractor": LLMAgent("{{ last.text }}", system=EXTRACTOR, say=None),
        "matcher": FunctionAgent(stated),
    }
    read = ("extractor", "matcher")
    return Program(Sequence("teacher", *read, "student", *read, "teacher", *read), agents)


def questions(tasks: int) -> RowsSource:
    """Multiple-choice questions, each another one."""
    return RowsSource(list(question_rows(tasks)))


def question_rows(tasks: int) -> Iterator[dict[str, Any]]:
    """Their rows."""
    for row in range(tasks):
        options = [prose(40, row * len(LETTERS) + n) for n in range(len(LETTERS))]
        yield {"question": prose(240, row), "options": options}


def stated(task: Task) -> str | None:
    """The letter that the extractor has settled on."""
    last = task.last
    found: list[str] = STATED.findall(last.value) if last is not None else []
    return found[-1] if found else None
