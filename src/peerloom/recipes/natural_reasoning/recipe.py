"""Define the NaturalReasoning recipe: turn a web document into a reasoning question with two answers.

    filter ──▶ score ──▶ question ──▶ answer ──▶ end
       └─────────┴──────────┴───────────┴─ rejected: filtered, with the reason

The filter detects the language without a model, then asks the model whether the document contains reasoning.
A document that passes is scored by criteria. Then the model writes a question about it, with the document's
answer if there is one, and finally answers the question without seeing the document. The finished row is
ready for training (arXiv 2511.21686, section 5.2).
"""

from functools import partial
from pathlib import Path
from typing import Any

from peerloom.agents.llm import LLMAgent
from peerloom.agents.prompts import Prompt
from peerloom.errors import ConfigError
from peerloom.recipes.base import Recipe
from peerloom.recipes.natural_reasoning.language import check_languages
from peerloom.recipes.natural_reasoning.params import BEST, ReasoningParams
from peerloom.recipes.natural_reasoning.roles import (
    NO,
    YES,
    AnswerRole,
    DocumentRole,
    FilterRole,
    judge_question,
    judge_scores,
)
from peerloom.recipes.natural_reasoning.rows import read_row
from peerloom.runtime.program import Program
from peerloom.task import Task
from peerloom.workflow import Sequence

HERE = Path(__file__).parent
PROMPTS = HERE / "prompts"
DOCUMENT = Prompt.load(PROMPTS / "document.j2")  # the first message of three roles, for the prefix cache
CATEGORIES = (
    *("mathematics", "physics", "chemistry", "biology", "medicine", "earth science", "computer science"),
    *("engineering", "economics", "business", "law", "politics", "history", "psychology", "philosophy"),
    *("language", "everyday life", "other"),
)
CHARACTERS = 3  # at least, for a token of English: the JSON ends before the token limit


def program(params: ReasoningParams) -> Program:
    """Return the agents, S' = F(S, M), and the workflow that picks the next agent, M' = G(S).

    Raises:
        ConfigError: for an unknown language, no criteria, or an extra that is not installed.
    """
    if params.languages:
        check_languages(params.languages)
    if not params.criteria:
        raise ConfigError("recipe.criteria is empty: name at least one, e.g. recipe.criteria.depth='...'")
    reader = partial(LLMAgent, system=PROMPTS / "system.j2", opening=DOCUMENT, chat_role=None)
    agents = {
        "filter": FilterRole(
            reader(PROMPTS / "filter.j2", choices=(YES, NO), max_tokens=8, temperature=0, on_length="trim"),
            params,
        ),
        "score": DocumentRole(
            reader(
                PROMPTS / "score.j2",
                schema=_object({name: _SCORE for name in params.criteria}),
                max_tokens=16 + 16 * len(params.criteria),
                temperature=0,
            ),
            judge_scores,
            params,
        ),
        "question": DocumentRole(
            reader(
                PROMPTS / "question.j2",
                schema=question_schema(params.question_tokens),
                max_tokens=params.question_tokens,
                temperature=params.temperature,
            ),
            judge_question,
            params,
        ),
        "answer": AnswerRole(
            LLMAgent(
                PROMPTS / "answer.j2",
                system=PROMPTS / "solver.j2",
                schema=answer_schema(params.answer_tokens),
                max_tokens=params.answer_tokens,
                temperature=params.temperature,
                chat_role=None,
            )
        ),
    }
    workflow = Sequence(*agents, result=partial(result, field=params.field))
    return Program(workflow, agents, partial(check_row, field=params.field))


def question_schema(tokens: int) -> dict[str, Any]:
    """Return the schema of a question with its category and the document's answer, if there is one."""
    characters = CHARACTERS * (tokens - 32)
    return _object(
        {
            "question": {"type": "string", "maxLength": characters * 2 // 3},
            "category": {"type": "string", "enum": list(CATEGORIES)},
            "answer": {"type": "string", "maxLength": characters // 3},
        }
    )


def answer_schema(tokens: int) -> dict[str, Any]:
    """Return the schema of an independent answer, with the reasoning first so that it leads to the answer."""
    characters = CHARACTERS * (tokens - 32)
    return _object(
        {
            "reasoning": {"type": "string", "maxLength": characters * 3 // 4},
            "answer": {"type": "string", "maxLength": characters // 4},
        }
    )


def result(task: Task, field: str = "") -> dict[str, Any]:
    """Return the `result` of the finished row; `reference_answer` is the document's, or None."""
    page = read_row(task.input, field)
    filtered, scored, question, answer = map(task.value, ("filter", "score", "question", "answer"))
    return {
        "question": question["question"],
        "category": question["category"],
        "reference_answer": question["answer"],
        "verbatim": question["verbatim"],
        "reasoning": answer["reasoning"],
        "answer": answer["answer"],
        "score": scored["score"],
        "scores": scored["scores"],
        "document": {
            "id": page.id,
            "url": page.url,
            "title": filtered.get("title", page.title),
            "language": filtered["language"],
            "cut": question.get("cut"),
        },
    }


def check_row(data: Any, field: str = "") -> None:
    """Raise RowError for a row without a document."""
    read_row(data, field)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_SCORE = {"type": "integer", "minimum": 0, "maximum": BEST}

RECIPE = Recipe(
    name="natural_reasoning",
    summary="web documents become questions that take reasoning, with answers",
    params=ReasoningParams,
    program=program,
    sample=HERE / "documents.jsonl",
)
