"""The four roles. Each asks a model one thing and rejects what is not good enough.

A rejection is the task's end: outcome `filtered`, and one of the reasons

    filter    empty, short, language (all three before any model is asked), no_reasoning
    score     score
    question  no_question, not_self_contained, copied
    answer    no_answer, copied

`copied` is what a small model does that repeats the example of its instructions instead of making something.

A prompt that is longer than the model's context is asked again with half of the document.
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
    harmless,
    open_document,
    reopen_document,
    view,
)
from peerloom.recipes.natural_reasoning.language import language_of
from peerloom.recipes.natural_reasoning.params import Params
from peerloom.task import FILTERED, End, Task, Turn

YES, NO = "yes", "no"
# Whoever answers the question has not seen the document. A good question lost to this costs little.
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
Judge = Callable[[Any, Document, Params], tuple[Value, End | None]]


@dataclass(frozen=True)
class Filter:
    """Reads the document, and lets pass what is in the right language and takes reasoning.

    Its value has `language`, `cut` if the document was cut, `reasoning` (yes or no), and the `title` and
    `text` of what was HTML.
    """

    asks: LLMAgent
    params: Params

    async def act(self, task: Task, services: Services) -> Turn:
        """Without a model first.

        Raises:
            RowError: if the row has no document.
            LLMError: see `LLMAgent.act`.
        """
        # On a thread, as large pages take a tenth of a second.
        document, language, end = await asyncio.to_thread(self._read, task.input)
        value: Value = {"language": language}
        if document.made:
            value |= {"title": document.title, "text": document.text}
        if end is not None:
            return Turn(agent="", value=value, end=end)
        turn, document = await _show(self.asks, task, document, self.params, services)
        end = _rejected("no_reasoning") if turn.value == NO else None
        return _judged(turn, value | {"reasoning": turn.value} | document.cut, end)

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
class Shown:
    """Asks about the document, and has the answer judged."""

    asks: LLMAgent
    judge: Judge
    params: Params

    async def act(self, task: Task, services: Services) -> Turn:
        """The judged answer, with the cut that the document had.

        Raises:
            LLMError: see `LLMAgent.act`.
        """
        document = reopen_document(task, self.params)
        turn, document = await _show(self.asks, task, document, self.params, services)
        value, end = self.judge(turn.value, document, self.params)
        return _judged(turn, value | document.cut, end)


@dataclass(frozen=True)
class Answer:
    """Answers the question without the document, so that two answers can be held against each other."""

    asks: LLMAgent

    async def act(self, task: Task, services: Services) -> Turn:
        """The reasoning and the answer, said aloud too.

        Raises:
            LLMError: see `LLMAgent.act`.
        """
        question = task.value("question")["question"]
        turn = await self.asks.act(view(task, question=harmless(question)), services)
        reasoning, answer = turn.value["reasoning"].strip(), turn.value["answer"].strip()
        said = {"role": "assistant", "content": f"{reasoning}\n\nAnswer: {answer}".strip()}
        end = None if answer else _rejected("no_answer")
        if _contains(_PROMPTS, reasoning):
            end = _rejected("copied")
        value = {"reasoning": reasoning, "answer": answer}
        return _judged(msgspec.structs.replace(turn, message=said), value, end)


def judge_scores(marks: dict[str, int], document: Document, params: Params) -> tuple[Value, End | None]:
    """The mean of the marks, against `min_score`."""
    score = round(fmean(marks.values()), 3)
    end = (
        _rejected("score", f"{score:g} of {params.min_score:g} wanted") if score < params.min_score else None
    )
    return {"score": score, "scores": marks}, end


def judge_question(asked: Value, document: Document, params: Params) -> tuple[Value, End | None]:
    """A question that can be understood without the document; `verbatim` tells if its answer is in there."""
    question, answer = asked["question"].strip(), asked["answer"].strip() or None
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
        "category": asked["category"],
        "answer": answer,
        "verbatim": verbatim,
    }, end


async def _show(
    asks: LLMAgent, task: Task, document: Document, params: Params, services: Services
) -> tuple[Turn, Document]:
    """What `asks` makes of the document, and the document as short as it had to become for that."""
    cuts = 0
    while True:
        fields = {"title": harmless(document.title), "text": harmless(document.seen)}
        try:
            return await asks.act(view(task, criteria=params.criteria, **fields), services), document
        except ContextExceeded:
            if cuts == params.max_cuts:
                raise
            cuts += 1
            document = document.halved()


def _judged(turn: Turn, value: Value, end: End | None) -> Turn:
    return msgspec.structs.replace(turn, value=value, end=end)


def _rejected(reason: str, detail: str = "") -> End:
    return End(FILTERED, reason, detail=detail)


def _contains(text: str, answer: str) -> bool:
    """Whether the words of the answer stand in the text; case, spaces and punctuation do not matter."""
    sought, words = (" ".join(re.findall(r"\w+", part.casefold())) for part in (answer, text))
    if sought.isascii():  # so words have spaces between them, and 4 is not in 24
        sought, words = f" {sought} ", f" {words} "
    return sought.strip() != "" and sought in words
