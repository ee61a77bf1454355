"""Coral: a teacher and a student discuss a multiple-choice question until they agree.

    teacher ──▶ extractor ──▶ matcher ──▶ student ──▶ extractor ──▶ matcher
       ▲                       agreed? ──▶ end ◀──────────────────── agreed?
       └────────────────────────── at most max_rounds times ─────────────┘

After each statement the extractor reads which option it holds right, and the matcher compares what the
two believe by now. The finished row tells whether they agreed, and whether on the right answer: the
"agreement correctness" of Collaborative Reasoner (arXiv 2511.21686, section 5.1).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from peerloom.agents.function import FunctionAgent
from peerloom.agents.llm import LLMAgent
from peerloom.agents.prompts import Prompt
from peerloom.recipes.base import Recipe
from peerloom.recipes.coral.rows import check_row, read_row
from peerloom.runtime.program import Program
from peerloom.task import Task
from peerloom.workflow import Loop

HERE = Path(__file__).parent
PROMPTS = HERE / "prompts"
QUESTION = Prompt.load(PROMPTS / "question.j2")
EXAMPLES = (
    ("Reply with the letter of the option that the statement chooses.\n\nStatement: B. Iron", "B"),
    ("Statement: I agree, it is E.", "E"),
    ("Statement: No, I think C is right.", "C"),
    ("Statement: Option F is better.", "F"),
)


@dataclass(frozen=True)
class Params:
    """The options of `recipe=coral`."""

    max_rounds: Annotated[int, Meta(ge=1)] = 3
    """Rounds of one statement each, after which a dialogue ends without agreement."""
    max_tokens: Annotated[int, Meta(ge=8)] = 64
    """The longest statement; what is cut is trimmed to whole sentences."""
    temperature: Annotated[float, Meta(ge=0)] = 0.7


def program(params: Params) -> Program:
    """The four agents, S' = F(S, M), and the workflow that routes between them, M' = G(S)."""
    speaker = partial(
        LLMAgent,
        opening=QUESTION,
        dialogue=True,
        max_tokens=params.max_tokens,
        temperature=params.temperature,
        stop=("\n",),
        on_length="trim",
    )
    agents = {
        "teacher": speaker(PROMPTS / "teacher.j2", say="assistant"),
        "student": speaker(PROMPTS / "student.j2", say="user"),
        "extractor": LLMAgent(
            "Statement: {{ last.text }}",
            opening=QUESTION,
            examples=EXAMPLES,
            say=None,
            choices=options,
            max_tokens=8,
            temperature=0,
            on_length="trim",
        ),
        "matcher": FunctionAgent(agreed),
    }
    workflow = Loop(
        *("teacher", "extractor", "matcher"),
        *("student", "extractor", "matcher"),
        until=lambda task: task.value("matcher", False),
        max_rounds=params.max_rounds,
        result=result,
        opening=lambda task: [{"role": "user", "content": QUESTION.render(task)}],
    )
    return Program(workflow, agents, check_row)


def options(task: Task) -> str:
    """The letters that the extractor chooses from."""
    return read_row(task.input).letters


def beliefs(task: Task) -> dict[str, str | None]:
    """What each of the two held right when it spoke last: a letter, or None if it has not spoken."""
    held: dict[str, str | None] = {"teacher": None, "student": None}
    speaker = ""
    for turn in task.turns:
        if turn.agent in held:
            speaker = turn.agent
        elif turn.agent == "extractor":
            held[speaker] = turn.value
    return held


def agreed(task: Task) -> bool:
    """Whether both have spoken and hold the same option right."""
    held = beliefs(task)
    return held["teacher"] is not None and held["teacher"] == held["student"]


def result(task: Task) -> dict[str, Any]:
    """The finished row's `result`."""
    held, right = beliefs(task), read_row(task.input).right
    correct = {speaker: letter == right for speaker, letter in held.items()}
    return {
        "agreement": agreed(task),
        "agreement_correctness": agreed(task) and correct["teacher"],
        "correct": correct,
        "beliefs": held,
        "answer": right,
        "turns": len(task.by("teacher")) + len(task.by("student")),
    }


RECIPE = Recipe(
    name="coral",
    summary="a teacher and a student discuss a multiple-choice question until they agree",
    params=Params,
    program=program,
    sample=HERE / "questions.jsonl",
)
