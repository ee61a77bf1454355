"""Write pairs of a better and a worse answer to the same prompt, as TRL's DPO trainer reads them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from peerloom.options import NotNegative
from peerloom.sink.export.conversation import SkippedRow
from peerloom.sink.export.exporter import CommittedRows
from peerloom.sink.export.groups import ScoredAnswer, ScoredExporter, length_of, shared_prompt


@dataclass(frozen=True)
class DpoExporter(ScoredExporter):
    """`{"prompt", "chosen", "rejected"}` from several answers to a prompt.

    Attributes:
        min_gap: the smallest difference of the scores; equal scores never make a pair.
        max_length_ratio: leave out pairs whose chosen answer has more than this many times the characters of
            the rejected one.
        pairs: `best` takes one pair of each group, that with the largest difference; of several, that with
            the shortest chosen answer; `all` takes every pair that fulfills the rules.
    """

    suffix: ClassVar[str] = ".dpo.jsonl"
    min_gap: NotNegative = 0.0
    max_length_ratio: Annotated[float, Ge(1)] | None = None
    pairs: Literal["best", "all"] = "best"

    def records(self, rows: CommittedRows) -> Iterator[dict[str, Any]]:
        """Yield the records of each group of answers; count those without a pair as skipped."""
        for answers in self.groups(rows):
            found: list[tuple[float, int, dict[str, Any]]] = []
            reasons: list[str] = []
            for better, worse in permutations(answers, 2):
                if better.score > worse.score:
                    try:
                        found.append(self._pair(better, worse))
                    except SkippedRow as reason:
                        reasons.append(str(reason))
            if not found:
                rows.skipped[reasons[0] if reasons else "answers with equal scores"] += 1
            elif self.pairs == "all":
                yield from (record for *_, record in found)
            else:
                yield min(found, key=lambda pair: (-pair[0], pair[1]))[2]

    def _pair(self, better: ScoredAnswer, worse: ScoredAnswer) -> tuple[float, int, dict[str, Any]]:
        """Return the difference of the scores, the length of the chosen answer, and the record."""
        gap = better.score - worse.score
        if gap < self.min_gap:
            raise SkippedRow("answers whose scores differ by less than min_gap")
        prompt = shared_prompt([better, worse])
        chosen, rejected = (answer.messages[len(prompt) :] for answer in (better, worse))
        length = length_of(chosen)
        if self.max_length_ratio is not None and length > self.max_length_ratio * length_of(rejected):
            raise SkippedRow("chosen answers longer than max_length_ratio allows")
        record = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        return gap, length, record | ({"tools": better.tools} if better.tools else {})


EXPORTER = DpoExporter
