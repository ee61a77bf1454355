"""`hops`: tasks hop between agents that only make up text.

The shape is that of the reference system's own workload without a model, `coral_mmlu_pro_dummy` of
Matrix: teacher, extractor, matcher, student, extractor, matcher, and so on. What teacher and student say
is about a kilobyte of text. The matcher lets them agree by chance: with probability 0.1 after the first
two statements, 0.9 after each later one, and 20 statements are the most. That makes 2.8 statements, or
8.4 turns, on average.

A *hop* is a task handed on to whoever has it next: to its first agent, from agent to agent, and by its
last agent to the sink. So a task of n turns makes n + 1 hops, here 9.4 on average; `timing.hops` of a row
counts turns. The reference's hops are counted in the same way, from the histories in its output: one
message that opens the history and one for each turn. Which hops cross processes is up to the placement:
all of them in `spread`, the first and the last one of each task in `packed`.
"""

from typing import Any

from benchmarks.workloads.base import Rows, Workload
from peerloom.agents.function import FunctionAgent
from peerloom.runtime.program import Program
from peerloom.services.llm.simulated.prose import prose
from peerloom.task import Task, Turn, Usage
from peerloom.workflow import Loop

STATEMENTS = 20  # at most
TEXT = 1024  # characters of a statement, give or take a fifth
WORDS = prose(64 * 1024, 0)  # statements are cut out of this: making them up should cost next to nothing
LETTERS = "ABCDEFGHIJ"


def program() -> Program:
    """Return the four agents and their workflow."""
    workflow = Loop(
        *("teacher", "extractor", "matcher"),
        *("student", "extractor", "matcher"),
        until=agreed,
        max_rounds=STATEMENTS // 2,
    )
    agents = {
        "teacher": FunctionAgent(teach),
        "student": FunctionAgent(study),
        "extractor": FunctionAgent(extract),
        "matcher": FunctionAgent(match),
    }
    return Program(workflow, agents)


def questions(tasks: int) -> Rows:
    """Yield multiple-choice questions of some hundred characters, all different."""
    for row in range(tasks):
        yield {
            "question": prose(240, row),
            "options": [prose(40, row * len(LETTERS) + n) for n in range(len(LETTERS))],
            "answer": LETTERS[row % len(LETTERS)],
        }


def opening(task: Task) -> list[dict[str, Any]]:
    """Return the question as the row's first message."""
    options = (f"({letter}) {text}" for letter, text in zip(LETTERS, task.input["options"], strict=True))
    return [{"role": "user", "content": "\n".join((task.input["question"], *options))}]


def teach(task: Task) -> Turn:
    """Make the teacher's statement."""
    return _statement(task, "assistant")


def study(task: Task) -> Turn:
    """Make the student's statement."""
    return _statement(task, "user")


def extract(task: Task) -> Turn:
    """Draw the letter that a statement is taken to mean."""
    draw = _draw(task)
    return Turn(agent="", value=LETTERS[draw % len(LETTERS)], usage=Usage(300 + draw % 100, 2))


def match(task: Task) -> dict[str, Any]:
    """Draw whether the two agree by now."""
    statements = task.header.hop // 3 + 1
    agreement = _draw(task) % 10 < (1 if statements < 3 else 9)
    return {"agreement": agreement, "statements": statements}


def agreed(task: Task) -> bool:
    """Return whether the matcher has just found agreement."""
    last = task.last
    return last is not None and last.agent == "matcher" and last.value["agreement"]


def _statement(task: Task, role: str) -> Turn:
    draw = _draw(task)
    start = draw % (len(WORDS) - 2 * TEXT)
    text = WORDS[start : start + TEXT * 4 // 5 + draw % (TEXT * 2 // 5)]
    usage = Usage(200 + draw % 300, len(text) // 4)
    context = tuple(opening(task)) if task.header.hop == 0 else ()
    return Turn(agent="", message={"role": role, "content": text}, usage=usage, context=context)


def _draw(task: Task) -> int:
    """Return a number of 31 bits, another one for each task and hop."""
    mixed = ((task.seed << 16 | task.header.hop) + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
    return (mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9 >> 33 & (1 << 31) - 1


HOPS = Workload("hops", questions)
