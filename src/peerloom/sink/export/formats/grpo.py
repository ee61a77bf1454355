"""Write the answers to each input row with their rewards, for reinforcement learning in groups (GRPO)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from peerloom.sink.export.conversation import SkippedRow, speakers
from peerloom.sink.export.exporter import CommittedRows
from peerloom.sink.export.groups import ScoredAnswer, read_groups, shared_prompt
from peerloom.sink.export.records import RecordsExporter


@dataclass(frozen=True)
class GrpoExporter(RecordsExporter):
    """`{"prompt", "completions", "rewards"}` from the trials of an input row.

    `score` is the path of the reward in a row.
    `token_ids` and `logprobs`, a list for each completion, are added if the server returned them for all
    completions, and each is one message.
    """

    suffix: ClassVar[str] = ".grpo.jsonl"
    score: str = "result.score"

    def records(self, rows: CommittedRows) -> Iterator[dict[str, Any]]:
        """Yield the record of each input row that has several answers."""
        for answers in read_groups(rows, self.assistant, self.score):
            try:
                prompt = shared_prompt(answers)
            except SkippedRow as reason:
                rows.skipped[str(reason)] += 1
                continue
            completions = [answer.messages[len(prompt) :] for answer in answers]
            record: dict[str, Any] = {
                "prompt": prompt,
                "completions": completions,
                "rewards": [answer.score for answer in answers],
            }
            if all(len(each) == 1 for each in completions):
                record |= self._tokens(answers)
            if answers[0].tools:
                record["tools"] = answers[0].tools
            yield record

    def _tokens(self, answers: list[ScoredAnswer]) -> dict[str, Any]:
        turns = [self._last_turn(answer) for answer in answers]
        found: dict[str, Any] = {}
        if all(turn.get("token_ids") for turn in turns):
            found["token_ids"] = [turn["token_ids"] for turn in turns]
        if all(turn.get("logprobs") for turn in turns):
            found["logprobs"] = [[token["logprob"] for token in turn["logprobs"]] for turn in turns]
        return found

    def _last_turn(self, answer: ScoredAnswer) -> dict[str, Any]:
        roles = {self.assistant} if self.assistant else speakers(answer.row)
        turns: list[dict[str, Any]] = answer.row["turns"]
        return next(turn for turn in reversed(turns) if turn["agent"] in roles)


EXPORTER = GrpoExporter
