"""Define the four roles. Each prompts a model for one thing, and rejects unusable results.

A rejection ends the task with outcome `filtered` and one of the reasons

    filter    empty, short, language (all three before any model is asked), no_reasoning
    score     score
    question  no_question, not_self_contained, copied
    answer    no_answer, copied

`copied` means that the model repeated an example of its instructions, as small models do.

If a prompt exceeds the model's context, the document is cut to half and the model prompted again.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from peerloom.agents.base import Services
from peerloom.agents.llm import LLMAgent
from peerloom.errors import ContextExceeded
from peerloom.recipes.natural_reasoning.document import (
    Document,
    escape_marks,
    open_document,
    reopen_document,
    with_input,
)
from peerloom.recipes.natural_reasoning.language import language_of
from peerloom.recipes.natural_reasoning.params import ReasoningParams
from peerloom.task import FILTERED, End, Task, Turn

YES, NO = "yes", "no"
# A question that refers to the document cannot be answered without it. A false match costs little.
_IT = "(?:article|author|document|excerpt|passage|text|web ?page|website)"
_MENTIONS = re.compile(
    rf"\bthis (?:{_IT}|page)\b|\bthe (?:above|following|given) {_IT}\b|\bthe (?:document|excerpt)\b"
    r"|\b(?:according to|based on|(?:described|discussed|given|mentioned|presented|stated) (?:in|by)|from|in)"
    rf" the {_IT}\b",
    re.IGNORECASE,
)

_PROMPTS = "\n".join(
    file.read_text("utf-8") for file in sorted((Path(__file__).parent / "prompts").iterdir())
)

Value = dict[str, Any]
Judge = Callable[[Any, Document, ReasoningParams], tuple[Value, End | None]]


@dataclass(frozen=True)
class FilterRole:
    """Accept documents in the right language that contain reasoning.

    Its value has `language`, `cut` if the document was cut, `reasoning` (yes or no), and the extracted
    `title` and `text` of HTML.
    """

    agent: LLMAgent
    params: ReasoningParams

    async def act(self, task: Task, services: Services) -> Turn:
        """Check the document without a model first, then ask the model.

        Raises:
            RowError: if the row has no document.
            LLMError: see `LLMAgent.act`.
        """
        # In a thread, since large pages take a tenth of a second.
        document, language, end = await asyncio.to_thread(self._read, task.input)
        value: Value = {"language": language}
        if document.extracted:
            value |= {"title": document.title, "text": document.text}
        if end is not None:
            return Turn(agent="", value=value, end=end)
        turn, document = await _prompt(self.agent, task, document, self.params, services)
        end = _rejected("no_reasoning") if turn.value == NO else None
        return msgspec.structs.replace(turn, value=value | {"reasoning": turn.value} | document.cut, end=end)

    def _read(self, row: Any) -> tuple[Document, str | None, End | None]:
        params = self.params
        document = open_document(row, params)
        if not document.text:
            return document, None, _rejected("empty")
        if document.size < params.min_tokens:
            return document, None, _rejected("short", f"{document.size} tokens of {params.min_tokens} wanted")
        language = language_of(document.text) if params.languages else None
        if params.languages and language not in params.languages:
            return document, language, _rejected("language", language or "none that could be told")
        return document, language, None


@dataclass(frozen=True)
class DocumentRole:
    """Prompt the model about the document, and judge its answer."""

    agent: LLMAgent
    judge: Judge
    params: ReasoningParams

    async def act(self, task: Task, services: Services) -> Turn:
        """Return the judged answer, with the cut of the document.

        Raises:
            LLMError: see `LLMAgent.act`.
        """
        document = reopen_document(task, self.params)
        turn, document = await _prompt(self.agent, task, document, self.params, services)
        value, end = self.judge(turn.value, document, self.params)
        return msgspec.structs.replace(turn, value=value | document.cut, end=end)


@dataclass(frozen=True)
class AnswerRole:
    """Answer the question without the document, so that the two answers can be compared."""

    agent: LLMAgent

    async def act(self, task: Task, services: Services) -> Turn:
        """Return the reasoning and the answer, as a value and as a message.

        Raises:
            LLMError: see `LLMAgent.act`.
        """
        question = task.value("question")["question"]
        turn = await self.agent.act(with_input(task, question=escape_marks(question)), services)
        reasoning, answer = turn.value["reasoning"].strip(), turn.value["answer"].strip()
        message = {"role": "assistant", "content": f"{reasoning}\n\nAnswer: {answer}".strip()}
        end = None if answer else _rejected("no_answer")
        if _contains(_PROMPTS, reasoning):
            end = _rejected("copied")
        value = {"reasoning": reasoning, "answer": answer}
        context = ({"role": "user", "content": question},)
        return msgspec.structs.replace(turn, message=message, value=value, end=end, context=context)


def judge_scores(
    scores: dict[str, int], document: Document, params: ReasoningParams
) -> tuple[Value, End | None]:
    """Return the mean score, and a rejection if it is below `min_score`."""
    score = round(fmean(scores.values()), 3)
    end = (
        _rejected("score", f"{score:g} of {params.min_score:g} wanted") if score < params.min_score else None
    )
    return {"score": score, "scores": scores}, end


def judge_question(written: Value, document: Document, params: ReasoningParams) -> tuple[Value, End | None]:
    """Return the question, and a rejection if it is unusable; `verbatim` if its answer is in the document."""
    question, answer = written["question"].strip(), written["answer"].strip() or None
    end = None
    if not question:
        end = _rejected("no_question")
    elif mention := _MENTIONS.search(question):
        end = _rejected("not_self_contained", f"it says {mention[0]!r}")
    elif _contains(_PROMPTS, question):
        end = _rejected("copied")
    verbatim = answer is not None and _contains(f"{document.title}\n{document.seen}", answer)
    return {
        "question": question,
        "category": written["category"],
        "answer": answer,
        "verbatim": verbatim,
    }, end


async def _prompt(
    agent: LLMAgent, task: Task, document: Document, params: ReasoningParams, services: Services
) -> tuple[Turn, Document]:
    """Return the agent's turn about the document, and the document, cut further if necessary."""
    cuts = 0
    while True:
        fields = {"title": escape_marks(document.title), "text": escape_marks(document.seen)}
        try:
            return await agent.act(with_input(task, criteria=params.criteria, **fields), services), document
        except ContextExceeded:
            if cuts == params.max_cuts:
                raise
            cuts += 1
            document = document.halved()


def _rejected(reason: str, detail: str = "") -> End:
    return End(FILTERED, reason, detail=detail)


def _contains(text: str, answer: str) -> bool:
    """Return whether a text contains the words of an answer; case, spaces and punctuation are ignored."""
    sought, words = (" ".join(re.findall(r"\w+", part.casefold())) for part in (answer, text))
    if sought.isascii():  # words are separated by spaces, so that 4 is not found in 24
        sought, words = f" {sought} ", f" {words} "
    return sought.strip() != "" and sought in words
