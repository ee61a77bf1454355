"""NaturalReasoning: a web document becomes a question that takes reasoning, with two answers.

    filter ──▶ score ──▶ question ──▶ answer ──▶ end
       └─────────┴──────────┴───────────┴─ rejected: filtered, with the reason

The filter looks at the language without a model, then asks one whether the document is worth it; what
passes is marked by criteria; a question is made of it, with the answer if the document has it; and the
question is answered once more by somebody who has not seen the document. The finished row is ready to
train on (arXiv 2511.21686, section 5.2).
"""

from functools import partial
from pathlib import Path
from typing import Any

from peerloom.agents.llm import LLMAgent
from peerloom.agents.prompts import Prompt
from peerloom.errors import ConfigError
from peerloom.recipes.base import Recipe
from peerloom.recipes.natural_reasoning.language import check_languages
from peerloom.recipes.natural_reasoning.params import BEST, Params
from peerloom.recipes.natural_reasoning.roles import (
    NO,
    YES,
    Answer,
    Filter,
    Shown,
    judge_question,
    judge_scores,
)
from peerloom.recipes.natural_reasoning.rows import read_row
from peerloom.runtime.program import Program
from peerloom.task import Task
from peerloom.workflow import Sequence

HERE = Path(__file__).parent
PROMPTS = HERE / "prompts"
DOCUMENT = Prompt.load(PROMPTS / "document.j2")  # what three roles begin with, so that a prompt cache helps
CATEGORIES = (
    *("mathematics", "physics", "chemistry", "biology", "medicine", "earth science", "computer science"),
    *("engineering", "economics", "business", "law", "politics", "history", "psychology", "philosophy"),
    *("language", "everyday life", "other"),
)
CHARACTERS = 3  # of a token, at least in English: so an answer in JSON ends before its tokens do


def program(params: Params) -> Program:
    """The agents, S' = F(S, M), and the workflow that sends a task from one to the next, M' = G(S).

    Raises:
        ConfigError: for a language that there is not, no criteria, or an extra that is not installed.
    """
    if params.languages:
        check_languages(params.languages)
    if not params.criteria:
        raise ConfigError("recipe.criteria is empty: name at least one, e.g. recipe.criteria.depth='...'")
    shown = partial(LLMAgent, system=PROMPTS / "system.j2", opening=DOCUMENT, say=None)
    agents = {
        "filter": Filter(
            shown(PROMPTS / "filter.j2", choices=(YES, NO), max_tokens=8, temperature=0, on_length="trim"),
            params,
        ),
        "score": Shown(
            shown(
                PROMPTS / "score.j2",
                schema=_object({name: _MARK for name in params.criteria}),
                max_tokens=16 + 16 * len(params.criteria),
                temperature=0,
            ),
            judge_scores,
            params,
        ),
        "question": Shown(
            shown(
                PROMPTS / "question.j2",
                schema=question_schema(params.question_tokens),
                max_tokens=params.question_tokens,
                temperature=params.temperature,
            ),
            judge_question,
            params,
        ),
        "answer": Answer(
            LLMAgent(
                PROMPTS / "answer.j2",
                system=PROMPTS / "solver.j2",
                schema=answer_schema(params.answer_tokens),
                max_tokens=params.answer_tokens,
                temperature=params.temperature,
                say=None,
            )
        ),
    }
    workflow = Sequence(*agents, result=partial(result, field=params.field), opening=opening)
    return Program(workflow, agents, partial(check_row, field=params.field))


def question_schema(tokens: int) -> dict[str, Any]:
    """The shape of a question with its category and the answer that the document gives, if any."""
    characters = CHARACTERS * (tokens - 32)
    return _object(
        {
            "question": {"type": "string", "maxLength": characters * 2 // 3},
            "category": {"type": "string", "enum": list(CATEGORIES)},
            "answer": {"type": "string", "maxLength": characters // 3},
        }
    )


def answer_schema(tokens: int) -> dict[str, Any]:
    """The shape of an independent answer. The steps come first: a model that has answered thinks no more."""
    characters = CHARACTERS * (tokens - 32)
    return _object(
        {
            "reasoning": {"type": "string", "maxLength": characters * 3 // 4},
            "answer": {"type": "string", "maxLength": characters // 4},
        }
    )


def opening(task: Task) -> list[dict[str, Any]]:
    """The row's messages begin with the question, if there is one."""
    asked = task.value("question")
    return [{"role": "user", "content": asked["question"]}] if asked and asked["question"] else []


def result(task: Task, field: str = "") -> dict[str, Any]:
    """The finished row's `result`: `reference_answer` is the document's own, None if it has none."""
    page = read_row(task.input, field)
    read, marks, asked, answered = map(task.value, ("filter", "score", "question", "answer"))
    return {
        "question": asked["question"],
        "category": asked["category"],
        "reference_answer": asked["answer"],
        "verbatim": asked["verbatim"],
        "reasoning": answered["reasoning"],
        "answer": answered["answer"],
        "score": marks["score"],
        "scores": marks["scores"],
        "document": {
            "id": page.id,
            "url": page.url,
            "title": read.get("title", page.title),
            "language": read["language"],
            "cut": asked.get("cut"),
        },
    }


def check_row(data: Any, field: str = "") -> None:
    """Refuse a row without a document.

    Raises:
        RowError: see `read_row`.
    """
    read_row(data, field)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_MARK = {"type": "integer", "minimum": 0, "maximum": BEST}

RECIPE = Recipe(
    name="natural_reasoning",
    summary="web documents become questions that take reasoning, with answers",
    params=Params,
    program=program,
    sample=HERE / "documents.jsonl",
)
