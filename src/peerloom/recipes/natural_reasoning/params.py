"""Define the options of the recipe, set by `recipe.min_score=3` on the command line."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

BEST = 5
"""The highest score of a criterion; the lowest is 0."""


def _criteria() -> dict[str, str]:
    return {
        "depth": "how much thinking its subject takes, beyond remembering facts",
        "correctness": "how far it is free of mistakes and unfounded claims",
        "clarity": "how well it explains itself to somebody who does not know the subject",
        "use": "how much a student would learn from it",
    }


@dataclass(frozen=True)
class ReasoningParams:
    """The options, with their defaults."""

    field: str = ""
    """The field of the document in a row; by default the first of text, raw_content, content, html."""
    languages: tuple[str, ...] = ("en",)
    """The languages to keep, as ISO 639-1 codes; an empty list keeps all, without detection."""
    min_tokens: Annotated[int, Meta(ge=0)] = 50
    """The length of a document in tokens below which it is filtered, reason `short`."""
    max_tokens: Annotated[int, Meta(ge=16)] = 1000
    """The number of tokens, estimated, of a long document that the model sees."""
    max_cuts: Annotated[int, Meta(ge=0)] = 4
    """How often a document is halved if the prompt exceeds the model's context."""
    criteria: dict[str, str] = dataclasses.field(default_factory=_criteria)
    """The criteria by which a document is scored from 0 to 5: names and their meaning."""
    min_score: Annotated[float, Meta(ge=0, le=BEST)] = 2.5
    """The mean score below which a document is filtered, reason `score`."""
    question_tokens: Annotated[int, Meta(ge=64)] = 256
    """The token limit of a question together with the document's answer."""
    answer_tokens: Annotated[int, Meta(ge=64)] = 512
    """The token limit of an independent answer together with its reasoning."""
    temperature: Annotated[float, Meta(ge=0)] = 0.5
    """The sampling temperature of questions and answers; filter and score use 0."""
