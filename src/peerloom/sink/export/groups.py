"""Gather the answers to one prompt, with the scores that compare them."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal, NamedTuple

import orjson

from peerloom.sink.export.conversation import (
    Conversation,
    Message,
    Row,
    SkippedRow,
    check_roles,
    exchange,
    read_conversations,
    roles_in,
    speakers,
)
from peerloom.sink.export.exporter import CommittedRows
from peerloom.sink.export.records import RecordsExporter
from peerloom.sink.export.scores import Scores
from peerloom.sink.export.templates import for_templates

ALONE = "the only answer to its input row (run with trials=2 or more)"
ALONE_IN_TASK = "the only answer to its prompt in its task"


class ScoredAnswer(NamedTuple):
    """One of several conversations that begin with the same prompt; `turn` has made its last message."""

    messages: list[Message]
    tools: list[Any]
    score: float
    turn: Row


@dataclass(frozen=True)
class ScoredExporter(RecordsExporter):
    """Base of the formats that compare answers.

    Attributes:
        score: the path of the number in a row that tells how good an answer is, by default `result.score`.
        judge: instead of `score`, the role whose values are the numbers, or `role.field`.
        candidates: `trials` compares the tasks of one input row, `turns` the turns within a task that answer
            the same prompt.
    """

    score: str | None = None
    judge: str | None = None
    candidates: Literal["trials", "turns"] = "trials"

    def answers(self, rows: CommittedRows) -> Iterator[ScoredAnswer]:
        """Yield all answers that have a score; count the others as skipped."""
        if self.candidates == "turns":
            for group in self._groups_in_tasks(rows):
                yield from group
        else:
            yield from (answer for _, answer in self._answers_of_tasks(rows))

    def groups(self, rows: CommittedRows) -> Iterator[list[ScoredAnswer]]:
        """Yield the answers to each prompt, at least two, as soon as all are read.

        Rows without a conversation or a score, and answers that are alone, are counted as skipped.

        Raises:
            ConfigError: if `score` is no path in a row, or no row has a turn of a role that is named.
        """
        of_tasks = self.candidates == "trials"
        for group in self._groups_of_tasks(rows) if of_tasks else self._groups_in_tasks(rows):
            if len(group) > 1:
                yield group
            elif group:
                rows.skipped[ALONE if of_tasks else ALONE_IN_TASK] += 1

    def _answers_of_tasks(self, rows: CommittedRows) -> Iterator[tuple[Row, ScoredAnswer]]:
        scores = Scores(self.score, self.judge)
        none: Row = {}
        for row, found in read_conversations(rows, self.assistant):
            try:
                ready = for_templates(found)
                roles = {found.role} if found.role else speakers(row)
                turn = next((turn for turn in reversed(row["turns"]) if turn["agent"] in roles), none)
                yield row, ScoredAnswer(ready.messages, ready.tools, scores.of_row(row), turn)
            except SkippedRow as reason:
                rows.skipped[str(reason)] += 1
        scores.check()

    def _groups_of_tasks(self, rows: CommittedRows) -> Iterator[list[ScoredAnswer]]:
        trials = Counter(input_row(row) for row in rows)
        groups: defaultdict[tuple[str, str], list[tuple[int, ScoredAnswer]]] = defaultdict(list)
        for row, answer in self._answers_of_tasks(rows):
            role = answer.turn.get("agent", "") if "," in (self.assistant or "") else ""
            key = input_row(row), role
            group = groups[key]
            group.append((int(row["id"].rpartition("-")[2]), answer))
            if len(group) == trials[key[0]]:
                yield _in_order(groups.pop(key))
        yield from map(_in_order, groups.values())

    def _groups_in_tasks(self, rows: CommittedRows) -> Iterator[list[ScoredAnswer]]:
        scores = Scores(self.score, self.judge)
        names = roles_in(self.assistant)
        found: set[str] = set()
        for row in rows:
            found.update(turn["agent"] for turn in row["turns"])
            try:
                yield from _groups_in_task(row, names or speakers(row), scores)
            except SkippedRow as reason:
                rows.skipped[str(reason)] += 1
        check_roles("assistant", names, found)
        scores.check()


def _in_order(group: list[tuple[int, ScoredAnswer]]) -> list[ScoredAnswer]:
    return [answer for _, answer in sorted(group, key=lambda each: each[0])]


def _groups_in_task(row: Row, roles: Sequence[str] | set[str], scores: Scores) -> list[list[ScoredAnswer]]:
    """Return the answers of a row's turns, grouped by the messages that their models were given."""
    turns = [(n, turn) for n, turn in enumerate(row["turns"]) if turn["agent"] in roles]
    given = {n: (turn, made) for n, turn in turns if (made := exchange(turn))}
    if not given:
        raise SkippedRow(f"no recorded call of {', '.join(roles) or 'an assistant'}")
    numbers = scores.of_turns(row, list(given))
    groups: defaultdict[bytes, list[ScoredAnswer]] = defaultdict(list)
    for n, (turn, (prompt, answer, tools)) in given.items():
        key = orjson.dumps([prompt, tools])
        ready = for_templates(Conversation([*prompt, *answer], tools))
        groups[key].append(ScoredAnswer(ready.messages, ready.tools, numbers[n], turn))
    return list(groups.values())


def input_row(row: Row) -> str:
    """Return the id of the input row from which a row was made: its own id without the trial."""
    return row["id"].rpartition("-")[0]


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
