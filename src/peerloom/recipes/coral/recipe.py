"""Define the Coral recipe: a teacher and a student discuss a multiple-choice question until they agree.

    teacher ──▶ extractor ──▶ matcher ──▶ student ──▶ extractor ──▶ matcher
       ▲                       agreed? ──▶ end ◀────────────────── agreed?
       └────────────────────── at most max_rounds times ──────────────┘

After each statement the extractor reads the chosen option from it, and the matcher compares the latest
choices of both. The finished row says whether they agreed, and whether on the right answer: the "agreement
correctness" of Collaborative Reasoner (arXiv 2511.21686, section 5.1).
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
QUESTION = Prompt.load(PROMPTS / "question.j2")  # the first message of every agent
NONE = "none"
EXAMPLES = (
    (
        f"Reply with the letter that the statement chooses, or with {NONE}.\n\nStatement: The answer is B.",
        "B",
    ),
    ("Statement: I agree, it is E.", "E"),
    ("Statement: No, C is right.", "C"),
    ("Statement: F. Iron", "F"),
    ("Statement: I am not sure.", NONE),  # last, since a small model in doubt repeats the last example
)


@dataclass(frozen=True)
class CoralParams:
    """The options of the recipe, set by `recipe.max_rounds=5` on the command line."""

    max_rounds: Annotated[int, Meta(ge=1)] = 3
    """The number of rounds, of one statement each, after which a dialogue ends without agreement."""
    max_tokens: Annotated[int, Meta(ge=8)] = 64
    """The token limit of a statement; a truncated one is trimmed to whole sentences."""
    temperature: Annotated[float, Meta(ge=0)] = 0.7
    """The sampling temperature of both speakers."""


def program(params: CoralParams) -> Program:
    """Return the agents, S' = F(S, M), and the workflow that picks the next agent, M' = G(S)."""
    speaker = partial(
        LLMAgent,
        opening=QUESTION,
        dialogue=True,
        max_tokens=params.max_tokens,
        temperature=params.temperature,
        stop=("\n",),
        on_length="trim",
    )
    reader = LLMAgent(
        "Statement: {{ last.text }}",
        opening=QUESTION,
        examples=EXAMPLES,
        choices=lambda task: (*read_row(task.input).letters, NONE),
        chat_role=None,
        max_tokens=8,
        temperature=0,
        on_length="trim",
    )
    agents = {
        "teacher": speaker(PROMPTS / "teacher.j2", chat_role="assistant"),
        "student": speaker(PROMPTS / "student.j2", chat_role="user"),
        "extractor": reader,
        "matcher": FunctionAgent(agree),
    }
    workflow = Loop(
        *("teacher", "extractor", "matcher"),
        *("student", "extractor", "matcher"),
        until=lambda task: task.value("matcher", False),
        max_rounds=params.max_rounds,
        result=result,
    )
    return Program(workflow, agents, check_row)


def beliefs(task: Task) -> dict[str, str | None]:
    """Return the letter that each speaker chose last; None if it chose none, or has not spoken."""
    chosen: dict[str, str | None] = {"teacher": None, "student": None}
    speaker = ""
    for turn in task.turns:
        if turn.agent in chosen:
            speaker = turn.agent
        elif turn.agent == "extractor":
            chosen[speaker] = None if turn.value == NONE else turn.value
    return chosen


def agree(task: Task) -> bool:
    """Return whether both speakers chose the same option."""
    chosen = beliefs(task)
    return chosen["teacher"] is not None and chosen["teacher"] == chosen["student"]


def result(task: Task) -> dict[str, Any]:
    """Return the `result` of the finished row."""
    chosen, right, agreement = beliefs(task), read_row(task.input).right, agree(task)
    return {
        "agreement": agreement,
        "agreement_correctness": agreement and chosen["teacher"] == right,
        "correct": {speaker: letter == right for speaker, letter in chosen.items()},
        "beliefs": chosen,
        "answer": right,
        "turns": len(task.by("teacher")) + len(task.by("student")),
    }


RECIPE = Recipe(
    name="coral",
    summary="a teacher and a student discuss a multiple-choice question until they agree",
    params=CoralParams,
    program=program,
    sample=HERE / "questions.jsonl",
)
