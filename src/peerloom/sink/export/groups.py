"""Gather the answers to one input row, with the scores that compare them."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from peerloom.sink.export.conversation import (
    Message,
    Row,
    SkippedRow,
    read_conversations,
    with_objects,
)
from peerloom.sink.export.exporter import CommittedRows
from peerloom.sink.export.where import Value, parse_path

ALONE = "the only answer to its input row (run with trials=2 or more)"


class ScoredAnswer(NamedTuple):
    """One of several conversations that were made from the same input row."""

    row: Row
    messages: list[Message]
    tools: list[Any]
    score: float


def read_groups(rows: CommittedRows, assistant: str | None, score: str) -> Iterator[list[ScoredAnswer]]:
    """Yield the answers to each input row in the order of their trials, as soon as all are read.

    Rows without a conversation or a score, and answers that are alone, are counted as skipped.

    Raises:
        ConfigError: if `score` is no path in a row, or no row has a turn of the role `assistant`.
    """
    read_score = parse_path(score)
    left = Counter(input_row(row) for row in rows)
    groups: defaultdict[str, list[ScoredAnswer]] = defaultdict(list)
    for row, conversation in read_conversations(rows, assistant):
        key = input_row(row)
        left[key] -= 1
        try:
            messages = with_objects(conversation.messages)
            number = score_of(row, score, read_score)
            groups[key].append(ScoredAnswer(row, messages, conversation.tools, number))
        except SkippedRow as reason:
            rows.skipped[str(reason)] += 1
        if not left[key]:
            yield from _complete(rows, groups.pop(key, []))
    for group in groups.values():
        yield from _complete(rows, group)


def _complete(rows: CommittedRows, group: list[ScoredAnswer]) -> Iterator[list[ScoredAnswer]]:
    if len(group) > 1:
        yield sorted(group, key=lambda answer: int(answer.row["id"].rpartition("-")[2]))
    elif group:
        rows.skipped[ALONE] += 1


def input_row(row: Row) -> str:
    """Return the id of the input row from which a row was made: its own id without the trial."""
    return row["id"].rpartition("-")[0]


def score_of(row: Row, path: str, read_score: Value) -> float:
    """Return the number at a path; true counts as 1.

    Raises:
        SkippedRow: if there is none.
    """
    score = read_score(row)
    if not isinstance(score, int | float):
        raise SkippedRow(f"no number at {path}")
    return score


def shared_prompt(answers: Sequence[ScoredAnswer]) -> list[Message]:
    """Return the messages with which all answers begin, up to where each continues with an assistant message.

    Raises:
        SkippedRow: if there is no such beginning.
    """
    columns = zip(*(answer.messages for answer in answers), strict=False)
    length = sum(1 for _ in takewhile(lambda each: all(one == each[0] for one in each), columns))
    while length and not all(_continues(answer.messages, length) for answer in answers):
        length -= 1
    if not length:
        raise SkippedRow("answers with nothing in common before them")
    return answers[0].messages[:length]


def _continues(messages: list[Message], length: int) -> bool:
    return len(messages) > length and messages[length]["role"] == "assistant"


def length_of(messages: Sequence[Message]) -> int:
    """Return the number of characters in the texts of messages."""
    return sum(len(str(message["content"])) for message in messages)
