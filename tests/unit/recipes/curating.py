"""What the tests of NaturalReasoning share: a document, the replies it gets, what a run made of it."""

import json
from typing import Any, NamedTuple

from peerloom.services.llm.base import ChatReply, ChatRequest

TEXT = (
    "A tank is filled by a wide pipe in 4 hours and by a narrow pipe in 6 hours. Times do not add up, rates "
    "do: in one hour the wide pipe fills a quarter of the tank and the narrow pipe a sixth, which makes "
    "five twelfths. So the whole tank is full after twelve fifths of an hour, or 2 hours and 24 minutes."
)
ROW = {"id": "tank", "url": "https://example.org/tank", "title": "Two pipes", "text": TEXT}
MARKS = '{"depth": 4, "correctness": 5, "clarity": 3, "use": 2}'


def asked(question: str = "How long do both pipes take?", answer: str = "2 hours and 24 minutes.") -> str:
    return json.dumps({"question": question, "category": "mathematics", "answer": answer})


def solved(answer: str = " 2.4 hours ") -> str:
    return json.dumps({"reasoning": "1/4 + 1/6 = 5/12, so 12/5 hours.", "answer": answer})


COPIED = '{"reasoning": "From Monday noon to Friday noon there are 4 days.", "answer": "noon"}'
Reply = str | ChatReply | Exception


class Curated(NamedTuple):
    """What a run made: its rows in order, and what the model was asked."""

    rows: list[dict[str, Any]]
    requests: list[ChatRequest]

    @property
    def end(self) -> tuple[str, str]:
        (row,) = self.rows
        return row["outcome"], row["reason"]

    def value(self, agent: str) -> Any:
        (row,) = self.rows
        return next(turn["value"] for turn in reversed(row["turns"]) if turn["agent"] == agent)


def words(request: ChatRequest) -> str:
    return "\n".join(message["content"] for message in request.messages)
