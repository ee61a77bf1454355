"""Read the scores that compare answers, from a field of the row or the values of a judge."""

from collections.abc import Sequence
from typing import Any, cast

from peerloom.errors import ConfigError
from peerloom.sink.export.conversation import Row, SkippedRow, check_roles
from peerloom.sink.export.where import parse_path

DEFAULT = "result.score"


class Scores:
    """The numbers at a path of a row, or those that a judge gave as the values of its turns.

    Args:
        score: the path; by default `result.score`.
        judge: the role, or `role.field` if its values are objects.

    Raises:
        ConfigError: if both are given, or `score` is no path in a row.
    """

    def __init__(self, score: str | None, judge: str | None) -> None:
        if score and judge:
            raise ConfigError(f"score={score} and judge={judge}: give one of them")
        self._score = score or DEFAULT
        self._judge, _, field = (judge or "").partition(".")
        self._fields = field.split(".") if field else []
        self._name = judge or self._score
        self._read = parse_path(self._score)
        self._roles: set[str] = set()

    def of_row(self, row: Row) -> float:
        """Return the number for a row: that at the path, or the judge's last one.

        Raises:
            SkippedRow: if there is none.
        """
        if not self._judge:
            return self._number(self._read(row))
        self._roles.update(turn["agent"] for turn in row["turns"])
        turns = [turn for turn in row["turns"] if turn["agent"] == self._judge]
        return self._number(self._judged(turns[-1]) if turns else None)

    def of_turns(self, row: Row, answers: Sequence[int]) -> dict[int, float]:
        """Return the number for each answer, which are positions in the row's turns.

        At the path is a list in the order of the answers, or an object with a number for each role. A judge's
        turn is about all answers since its previous one.

        Raises:
            SkippedRow: if there is not one number for each answer.
        """
        if not self._judge:
            return self._spread(self._read(row), row, answers)
        self._roles.update(turn["agent"] for turn in row["turns"])
        scores: dict[int, float] = {}
        pending: list[int] = []
        for position, turn in enumerate(row["turns"]):
            if position in answers:
                pending.append(position)
            elif pending and turn["agent"] == self._judge:
                scores |= self._spread(self._judged(turn), row, pending)
                pending = []
        return scores | self._spread([], row, pending)

    def check(self) -> None:
        """Refuse a judge that had no turn in any of the rows.

        Raises:
            ConfigError: if it had none.
        """
        check_roles("judge", [self._judge] if self._judge else [], self._roles)

    def _spread(self, value: Any, row: Row, answers: Sequence[int]) -> dict[int, float]:
        roles = [row["turns"][position]["agent"] for position in answers]
        if isinstance(value, dict) and len(set(roles)) == len(roles):
            value = [cast("Row", value).get(role) for role in roles]
        numbers = cast("list[Any]", value if isinstance(value, list) else [value])
        if len(numbers) != len(answers):
            raise SkippedRow(f"not one number at {self._name} for each answer")
        return dict(zip(answers, map(self._number, numbers), strict=True))

    def _judged(self, turn: Row) -> Any:
        value = turn.get("value")
        for name in self._fields:
            value = cast("Row", value).get(name) if isinstance(value, dict) else None
        return value

    def _number(self, value: Any) -> float:
        if not isinstance(value, int | float):
            raise SkippedRow(f"no number at {self._name}")
        return value
