"""`mini-coral`: a dialogue of six calls of the model and three pattern matches, one after the other.

Teacher, extractor, matcher, then student, extractor, matcher, then the teacher's three again. Teacher and
student resend the whole conversation, system prompts have about 600 characters, replies about 1,000.
"""

import re

from benchmarks.workloads.base import Rows, Workload
from peerloom.agents.function import FunctionAgent
from peerloom.agents.llm import LLMAgent
from peerloom.runtime.program import Program
from peerloom.services.llm.simulated.prose import prose
from peerloom.task import Task
from peerloom.workflow import Sequence

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


def program() -> Program:
    """Return three agents that ask the model and one that matches a pattern, in fixed order."""
    agents = {
        "teacher": LLMAgent(system=SPEAKER, opening=QUESTION, dialogue=True, chat_role="assistant"),
        "student": LLMAgent(system=SPEAKER, opening=QUESTION, dialogue=True, chat_role="user"),
        "extractor": LLMAgent("{{ last.text }}", system=EXTRACTOR, chat_role=None),
        "matcher": FunctionAgent(stated),
    }
    read = ("extractor", "matcher")
    return Program(Sequence("teacher", *read, "student", *read, "teacher", *read), agents)


def questions(tasks: int) -> Rows:
    """Yield multiple-choice questions, all different."""
    for row in range(tasks):
        options = [prose(40, row * len(LETTERS) + n) for n in range(len(LETTERS))]
        yield {"question": prose(240, row), "options": options}


def stated(task: Task) -> str | None:
    """Return the letter that the extractor has settled on."""
    last = task.last
    found: list[str] = STATED.findall(last.value) if last is not None else []
    return found[-1] if found else None


MINI_CORAL = Workload(
    "mini-coral",
    questions,
    lambda rows: CALLS * len(rows),
    {"tokens": REPLY_TOKENS},
    {"speaker": SPEAKER, "extractor": EXTRACTOR, "pattern": STATED.pattern},
)
