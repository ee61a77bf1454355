"""The options of the recipe, `recipe.min_score=3` on the command line."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

BEST = 5
"""The highest mark of a criterion; the lowest is 0."""


def _criteria() -> dict[str, str]:
    return {
        "depth": "how much thinking its subject takes, beyond remembering facts",
        "correctness": "how far it is free of mistakes and unfounded claims",
        "clarity": "how well it explains itself to somebody who does not know the subject",
        "use": "how much a student would learn from it",
    }


@dataclass(frozen=True)
class Params:
    """The options, with their defaults."""

    field: str = ""
    """The field of a row that has the document; by default the first of text, raw_content, content, html."""
    languages: tuple[str, ...] = ("en",)
    """Languages to keep, as ISO 639-1 codes; an empty list keeps all, and detects none."""
    min_tokens: Annotated[int, Meta(ge=0)] = 50
    """Shorter documents are filtered, reason `short`."""
    max_tokens: Annotated[int, Meta(ge=16)] = 1000
    """Of longer documents only the beginning is shown to the model. Tokens are estimated."""
    max_cuts: Annotated[int, Meta(ge=0)] = 4
    """How often a document is halved because the prompt is longer than the model's context."""
    criteria: dict[str, str] = dataclasses.field(default_factory=_criteria)
    """What a document is marked by, from 0 to 5: a name, and what it means."""
    min_score: Annotated[float, Meta(ge=0, le=BEST)] = 2.5
    """The mean of the marks below which a document is filtered, reason `score`."""
    question_tokens: Annotated[int, Meta(ge=64)] = 256
    """The longest question, together with the answer that the document gives."""
    answer_tokens: Annotated[int, Meta(ge=64)] = 512
    """The longest independent answer, with the reasoning that leads to it."""
    temperature: Annotated[float, Meta(ge=0)] = 0.5
    """How freely questions and answers are written; filter and marks are always at 0."""
